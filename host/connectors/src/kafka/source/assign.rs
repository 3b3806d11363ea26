//! Which partitions this subtask reads: finding, beginning and ending them.

use std::{collections::HashSet, sync::Arc};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use rdkafka::{TopicPartitionList, consumer::Consumer as _};
use tracing::{debug, info};

use super::{Found, KafkaSource, Started};
use crate::{
    ConnectorError, SourceEvent, SplitState,
    kafka::{
        assignment::owner,
        errors,
        metadata::{self, SILENCE_MAX},
        offsets::{self, Partition},
        split::{Position, Split},
    },
};

impl KafkaSource {
    pub(super) fn discover(&self) -> BoxFuture<'static, Found> {
        let consumer = Arc::clone(self.consumer());
        let watch = Arc::clone(&self.watch);
        let (brokers, topics) = (self.options.brokers(), self.options.topics.clone());
        metadata::partitions(consumer, watch, brokers, topics, SILENCE_MAX).boxed()
    }

    /// Asks for partitions while nothing is assigned.
    pub(super) async fn first_discovery(&mut self) -> Found {
        let mut discovery = self.discover();
        let mut stream = self.consumer().stream();
        loop {
            tokio::select! {
                found = &mut discovery => return found,
                // No messages yet: this lets the client say why it cannot connect.
                _ = stream.next() => {}
            }
        }
    }

    pub(super) fn is_mine(&self, topic: &str, partition: i32) -> bool {
        owner(topic, partition, self.cx.parallelism.max(1)) == self.cx.subtask
    }

    /// Sets the first splits up.
    pub(super) async fn start(
        &mut self,
        found: Vec<Partition>,
        restored: Option<Vec<SplitState>>,
    ) -> Result<(), ConnectorError> {
        let discovered = restored.is_some();
        let mut positions = Vec::new();
        for state in restored.unwrap_or_default() {
            let position = Position::decode(&state)?;
            if !self.is_mine(&position.topic, position.partition) {
                continue;
            }
            if !found
                .iter()
                .any(|(t, p)| *t == position.topic && *p == position.partition)
            {
                return Err(ConnectorError::lost(format!(
                    "kafka source: the checkpoint has a position in {}, which does not exist any more (or is no longer among the source's topics)",
                    state.split
                )));
            }
            positions.push(position);
        }
        let new: Vec<Partition> = found
            .into_iter()
            .filter(|(topic, partition)| self.is_mine(topic, *partition))
            .filter(|(t, p)| {
                !positions
                    .iter()
                    .any(|known| known.topic == *t && known.partition == *p)
            })
            .collect();
        positions.extend(offsets::resolve(self.consumer(), &self.options, new, discovered).await?);
        self.add(positions)
    }

    /// Begins to read partitions.
    pub(super) fn add(&mut self, positions: Vec<Position>) -> Result<(), ConnectorError> {
        let mut assignment = TopicPartitionList::new();
        for position in positions {
            let split = Split::new(position);
            let index = self.splits.len();
            let number = u32::try_from(index).expect("fewer than 2^32 partitions");
            self.events.push_back(SourceEvent::SplitStarted {
                split: number,
                name: split.name(),
            });
            if split.finished {
                self.events
                    .push_back(SourceEvent::SplitFinished { split: number });
            } else {
                debug!(split = split.name(), start = ?split.start(), "reading a partition");
                assignment
                    .add_partition_offset(&split.topic, split.partition, split.start())
                    .map_err(|e| errors::sort("kafka source: a position is refused", &e, None))?;
            }
            let topic = self.by_name.entry(Arc::clone(&split.topic)).or_default();
            topic.insert(split.partition, index);
            self.splits.push(split);
        }
        if assignment.count() == 0 {
            return Ok(());
        }
        self.caught_up = false;
        self.consumer()
            .incremental_assign(&assignment)
            .map_err(|e| errors::sort("kafka source: partitions cannot be assigned", &e, None))
    }

    /// Asks for partitions that are new, and where they begin. All of it is one future, which
    /// goes on where it was when `next` is cancelled.
    pub(super) fn discover_new(&self) -> BoxFuture<'static, Started> {
        let discovery = self.discover();
        let (consumer, options) = (Arc::clone(self.consumer()), self.options.clone());
        let known: HashSet<Partition> = self
            .splits
            .iter()
            .map(|split| (split.topic.to_string(), split.partition))
            .collect();
        let (parallelism, subtask) = (self.cx.parallelism.max(1), self.cx.subtask);
        let find = async move {
            let mut new = discovery.await?;
            new.retain(|(topic, partition)| owner(topic, *partition, parallelism) == subtask);
            new.retain(|partition| !known.contains(partition));
            if !new.is_empty() {
                info!(partitions = ?new, "kafka source: new partitions");
            }
            offsets::resolve(&consumer, &options, new, true).await
        };
        find.boxed()
    }

    /// A split has reached its bound.
    pub(super) fn stop(&mut self, index: usize) {
        let split = &self.splits[index];
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition(&split.topic, split.partition);
        if let Err(error) = self.consumer().incremental_unassign(&assignment) {
            debug!(%error, "a finished partition stays assigned");
        }
        if !split.has_records() {
            let number = u32::try_from(index).expect("fewer than 2^32 partitions");
            self.events
                .push_back(SourceEvent::SplitFinished { split: number });
        }
    }
}
