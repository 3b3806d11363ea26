//! A partition that is being read.

use std::sync::Arc;

use rdkafka::{
    Message as _, Offset,
    message::{BorrowedMessage, Headers as _},
};
use serde::{Deserialize, Serialize};
use tidemill_types::{Batch, BatchBuilder, NO_TIMESTAMP};

use crate::{
    BatchBudget, ConnectorError, SplitState,
    source::{decode_state, encode_state},
};

/// The position before the first record, whatever its offset.
pub(super) const EARLIEST: i64 = -2;

/// What a checkpoint keeps of a partition.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The offset of the next record, or [`EARLIEST`].
    pub(super) offset: i64,
    /// Where a bounded source ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<i64>,
}

impl Position {
    pub(super) fn decode(state: &SplitState) -> Result<Self, ConnectorError> {
        decode_state("kafka source", state)
    }

    pub(super) fn encode(&self) -> SplitState {
        SplitState {
            split: name(&self.topic, self.partition),
            state: encode_state(self),
        }
    }
}

fn name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// A partition, what was pulled from it, and what of that was returned.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// The offset after the last record returned, or [`EARLIEST`].
    position: i64,
    /// The offset after the last record pulled, or [`EARLIEST`].
    pulled: i64,
    stop: Option<i64>,
    builder: BatchBuilder,
    /// The offsets of the records in `builder`.
    offsets: Vec<i64>,
    /// Whether everything that is in the partition was pulled.
    pub(super) at_end: bool,
    /// Whether nothing will be pulled any more.
    pub(super) finished: bool,
}

impl Split {
    pub(super) fn new(position: Position) -> Self {
        let mut split = Self {
            topic: position.topic.into(),
            partition: position.partition,
            position: position.offset,
            pulled: position.offset,
            stop: position.stop,
            builder: BatchBuilder::new(),
            offsets: Vec::new(),
            at_end: false,
            finished: false,
        };
        split.check_stop();
        split
    }

    pub(super) fn name(&self) -> String {
        name(&self.topic, self.partition)
    }

    /// Where the client must start.
    pub(super) const fn start(&self) -> Offset {
        if self.pulled == EARLIEST {
            Offset::Beginning
        } else {
            Offset::Offset(self.pulled)
        }
    }

    /// The offset after the last record returned, if there was one.
    pub(super) fn position(&self) -> Option<i64> {
        (self.position != EARLIEST).then_some(self.position)
    }

    /// The offset after the last record pulled; 0 if there was none.
    pub(super) fn pulled(&self) -> i64 {
        self.pulled.max(0)
    }

    pub(super) fn snapshot(&self) -> Position {
        Position {
            topic: self.topic.to_string(),
            partition: self.partition,
            offset: self.position,
            stop: self.stop,
        }
    }

    pub(super) fn has_records(&self) -> bool {
        !self.offsets.is_empty()
    }

    fn check_stop(&mut self) {
        if self.stop.is_some_and(|stop| self.pulled() >= stop) {
            self.finished = true;
        }
    }

    /// The end of the partition was met at `offset`.
    pub(super) fn meet_end(&mut self, offset: i64) {
        self.at_end = true;
        // What lies between the last record and the end (such as transaction markers) counts.
        if self.stop.is_some_and(|stop| offset >= stop) {
            self.finished = true;
        }
    }

    /// Takes a message in and says how many bytes it has; `None` if it lies past the bound.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>) -> Option<usize> {
        if self.finished || self.stop.is_some_and(|stop| message.offset() >= stop) {
            self.finished = true;
            return None;
        }
        let timestamp = message.timestamp().to_millis().unwrap_or(NO_TIMESTAMP);
        self.builder
            .push(timestamp, message.key(), message.payload());
        let mut bytes = 8 + message.key_len() + message.payload_len();
        if let Some(headers) = message.headers() {
            for header in headers.iter() {
                bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
                self.builder
                    .header(header.key.to_owned(), header.value.map(<[u8]>::to_vec));
            }
        }
        self.offsets.push(message.offset());
        self.pulled = message.offset() + 1;
        self.at_end = false;
        self.check_stop();
        Some(bytes)
    }

    /// Gives the records out, or the first of them if there are more than `budget` allows.
    pub(super) fn take(&mut self, budget: BatchBudget) -> Batch {
        let all = self.builder.take();
        let limit = budget.records_min_one();
        if all.len() <= limit {
            self.position = self.pulled;
            self.offsets.clear();
            return all;
        }
        self.position = self.offsets[limit - 1] + 1;
        self.offsets.drain(..limit);
        for index in limit..all.len() {
            self.builder.push_from(&all, index);
        }
        all.slice(0..limit)
    }
}
