//! What every client of ours does: logs to tracing, and remembers why brokers cannot be reached and
//! where partitions end.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};
use serde::Deserialize;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use crate::ConnectorError;

/// What librdkafka tells us on the side, for one client.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Why the last connection failed.
    trouble: Mutex<Option<String>>,
    /// The text of the last error that came with a code.
    reason: Mutex<Option<String>>,
    /// The ends of partitions, by topic and partition, from the statistics.
    ends: Mutex<HashMap<String, HashMap<i32, PartitionEnd>>>,
    /// Signalled when `ends` are new.
    pub(super) ends_arrived: Notify,
    pub(super) commits_succeeded: AtomicU64,
    pub(super) commits_failed: AtomicU64,
}

/// Where a partition ends, as far as the client has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PartitionEnd {
    /// The offset at which the end was last met; negative if it was not.
    pub(super) met: i64,
    /// The high watermark; negative if unknown.
    pub(super) high: i64,
}

impl Watch {
    /// The reason that came with the error that was just returned.
    pub(super) fn take_reason(&self) -> Option<String> {
        self.reason.lock().take()
    }

    /// Why brokers cannot be reached, if that is known.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub(super) fn end(&self, topic: &str, partition: i32) -> Option<PartitionEnd> {
        self.ends.lock().get(topic)?.get(&partition).copied()
    }

    /// Whether the brokers refuse us, so that waiting is of no use.
    pub(super) fn is_refused(&self) -> bool {
        const WORDS: [&str; 4] = [
            "authentication fail",
            "authentication error",
            "SSL handshake failed",
            "Invalid username or password",
        ];
        let trouble = self.trouble.lock();
        trouble
            .as_ref()
            .is_some_and(|text| WORDS.iter().any(|word| text.contains(word)))
    }
}

/// The callbacks of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    pub(super) watch: Arc<Watch>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                if matches!(facility, "FAIL" | "ERROR") {
                    *self.watch.trouble.lock() = Some(without_prefix(text).to_owned());
                }
                warn!(facility, "kafka client: {text}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                info!(facility, "kafka client: {text}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(facility, "kafka client: {text}");
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Ends>(statistics) {
            Ok(ends) => {
                *self.watch.ends.lock() = ends.into_map();
                self.watch.ends_arrived.notify_one();
            }
            Err(error) => debug!(%error, "kafka client statistics cannot be read"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        *self.watch.reason.lock() = Some(reason.to_owned());
        if error.rdkafka_error_code() != Some(Code::PartitionEOF) {
            debug!(%error, reason, "kafka client error");
        }
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) => self.watch.commits_succeeded.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                warn!(%error, "committing offsets to the group failed; positions are in the checkpoint");
                self.watch.commits_failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// The statistics that we read.
#[derive(Debug, Deserialize)]
struct Ends {
    topics: HashMap<String, TopicEnds>,
}

#[derive(Debug, Deserialize)]
struct TopicEnds {
    partitions: HashMap<String, RawEnd>,
}

#[derive(Debug, Deserialize)]
struct RawEnd {
    eof_offset: i64,
    hi_offset: i64,
}

impl Ends {
    fn into_map(self) -> HashMap<String, HashMap<i32, PartitionEnd>> {
        let partitions = |topic: TopicEnds| {
            let end = |raw: RawEnd| PartitionEnd {
                met: raw.eof_offset,
                high: raw.hi_offset,
            };
            let ends = topic.partitions.into_iter();
            ends.filter_map(|(number, raw)| Some((number.parse().ok()?, end(raw))))
                .collect()
        };
        self.topics
            .into_iter()
            .map(|(name, topic)| (name, partitions(topic)))
            .collect()
    }
}

/// librdkafka puts `[thrd:…]: ` before what it says.
fn without_prefix(text: &str) -> &str {
    match text.split_once("]: ") {
        Some((prefix, rest)) if prefix.starts_with("[thrd:") => rest,
        _ => text,
    }
}

/// Drops a client, which may wait for its threads, where nobody waits for it.
pub(super) fn drop_elsewhere<T: Send + 'static>(client: T) {
    let dropping = std::thread::Builder::new().name("kafka-close".to_owned());
    if let Err(error) = dropping.spawn(move || drop(client)) {
        error!(%error, "no thread to close a kafka client");
    }
}

/// Runs a blocking call of librdkafka.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConnectorError> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|e| ConnectorError::failed(format!("kafka: a call did not end: {e}")))
}
