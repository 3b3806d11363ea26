//! The source: one consumer per subtask, partitions assigned by hand.
//!
//! # Invariants
//!
//! 1. A message that was pulled goes straight into its split's builder, with no await between, so
//!    that `next` can be cancelled anywhere; what takes longer is a future of the source's own.
//! 2. Positions move when a builder is given out, not when a message is pulled.
//! 3. At most one budget of records waits in builders; librdkafka's own queue is bounded in bytes.

mod assign;
mod ends;

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};
use tidemill_types::CheckpointId;
use tokio::time::Instant;
use tracing::debug;

use super::{
    client::{Context, Watch, drop_elsewhere},
    errors,
    offsets::Partition,
    options::SourceOptions,
    split::{Position, Split},
};
use crate::{BatchBudget, ConnectorError, Source, SourceContext, SourceEvent, SplitState};

/// Offsets of so many snapshots are kept until their checkpoints complete.
const SNAPSHOTS_MAX: usize = 32;

type Consumer = StreamConsumer<Context>;
type Found = Result<Vec<Partition>, ConnectorError>;
/// Partitions that are new, with where they begin.
type Started = Result<Vec<Position>, ConnectorError>;

/// What ended a wait.
enum Woken<'a> {
    Message(KafkaResult<BorrowedMessage<'a>>),
    Started(Started),
    DiscoveryDue,
    EndsArrived,
}

/// The source.
pub(crate) struct KafkaSource {
    options: SourceOptions,
    cx: SourceContext,
    consumer: Option<Arc<Consumer>>,
    watch: Arc<Watch>,
    splits: Vec<Split>,
    by_name: HashMap<Arc<str>, HashMap<i32, usize>>,
    events: VecDeque<SourceEvent>,
    /// Splits with records to give out.
    ready: VecDeque<usize>,
    /// Asks for partitions.
    discovery: Option<BoxFuture<'static, Started>>,
    discovery_due: Option<Instant>,
    /// Ends were met that could be those of several splits.
    ambiguous: bool,
    caught_up: bool,
    finished: bool,
    /// A position does not exist any more: finds out which.
    loss: Option<BoxFuture<'static, Result<ConnectorError, ConnectorError>>>,
    snapshots: VecDeque<(CheckpointId, Vec<(usize, i64)>)>,
    committed: HashMap<usize, i64>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource")
            .field("splits", &self.splits)
            .finish_non_exhaustive()
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        (self.discovery, self.loss) = (None, None);
        if let Some(consumer) = self.consumer.take() {
            drop_elsewhere(consumer);
        }
    }
}

impl KafkaSource {
    /// Connects, finds the partitions of this subtask and where they begin.
    pub(crate) async fn open(
        options: SourceOptions,
        cx: SourceContext,
        restored: Option<Vec<SplitState>>,
    ) -> Result<Self, ConnectorError> {
        let context = Context::default();
        let watch = Arc::clone(&context.watch);
        let consumer: Consumer = client_config(&options.client, &cx)
            .create_with_context(context)
            .map_err(|e| errors::sort("kafka source: no client", &e, None))?;
        let mut source = Self {
            discovery_due: options.discovery.map(|interval| Instant::now() + interval),
            options,
            cx,
            consumer: Some(Arc::new(consumer)),
            watch,
            splits: Vec::new(),
            by_name: HashMap::new(),
            events: VecDeque::new(),
            ready: VecDeque::new(),
            discovery: None,
            ambiguous: false,
            caught_up: false,
            finished: false,
            loss: None,
            snapshots: VecDeque::new(),
            committed: HashMap::new(),
        };
        let found = source.first_discovery().await?;
        source.start(found, restored).await?;
        Ok(source)
    }

    fn consumer(&self) -> &Arc<Consumer> {
        self.consumer
            .as_ref()
            .expect("the consumer is there until the source is dropped")
    }

    fn index_of(&self, topic: &str, partition: i32) -> Option<usize> {
        self.by_name.get(topic)?.get(&partition).copied()
    }

    /// Gives out the records of the split that waits longest.
    fn give(&mut self, budget: BatchBudget) -> Option<SourceEvent> {
        let index = self.ready.pop_front()?;
        let split = &mut self.splits[index];
        let batch = split.take(budget);
        let number = u32::try_from(index).expect("fewer than 2^32 partitions");
        if split.has_records() {
            self.ready.push_front(index);
        } else if split.finished {
            self.events
                .push_back(SourceEvent::SplitFinished { split: number });
        }
        self.caught_up = false;
        Some(SourceEvent::Batch {
            split: number,
            batch,
        })
    }

    /// What there is to say when nothing waits to be given out.
    fn at_rest(&mut self) -> Option<SourceEvent> {
        if !self.finished && self.is_bounded() && self.splits.iter().all(|split| split.finished) {
            self.finished = true;
            return Some(SourceEvent::Finished);
        }
        if !self.caught_up
            && self
                .splits
                .iter()
                .all(|split| split.at_end || split.finished)
        {
            self.caught_up = true;
            return Some(SourceEvent::CaughtUp);
        }
        None
    }

    fn is_bounded(&self) -> bool {
        self.options.bound != super::options::Bound::Never
    }

    /// Takes a message in; says how many bytes it has.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> usize {
        let Some(index) = self.index_of(message.topic(), message.partition()) else {
            return 0;
        };
        let split = &mut self.splits[index];
        let was_finished = split.finished;
        let had_records = split.has_records();
        let bytes = split.push(message);
        if bytes.is_some() && !had_records {
            self.ready.push_back(index);
        }
        if self.splits[index].finished && !was_finished {
            self.stop(index);
        }
        bytes.unwrap_or(0)
    }

    /// Waits for something and takes it in; with messages, all that are there within the budget.
    async fn wait(&mut self, budget: BatchBudget) -> Result<(), ConnectorError> {
        let consumer = Arc::clone(self.consumer());
        let mut stream = consumer.stream();
        let woken = {
            let due = self.discovery_due.filter(|_| self.discovery.is_none());
            let watch = &self.watch;
            tokio::select! {
                biased;
                message = stream.next() => Woken::Message(message.expect("the stream never ends")),
                started = async { self.discovery.as_mut().expect("checked").await }, if self.discovery.is_some() => {
                    Woken::Started(started)
                }
                () = async { tokio::time::sleep_until(due.expect("checked")).await }, if due.is_some() => Woken::DiscoveryDue,
                () = watch.ends_arrived.notified(), if self.ambiguous => Woken::EndsArrived,
            }
        };
        match woken {
            Woken::Message(first) => {
                let (mut records, mut bytes) = (0, 0);
                let mut next = Some(first);
                while let Some(message) = next {
                    match message {
                        Ok(message) => {
                            records += 1;
                            bytes += self.take(&message);
                        }
                        Err(error) => self.handle(&error)?,
                    }
                    let full = records >= budget.records_min_one() || bytes >= budget.bytes;
                    next = if full {
                        None
                    } else {
                        pin!(stream.next()).now_or_never().flatten()
                    };
                }
            }
            Woken::Started(started) => {
                self.discovery = None;
                self.discovery_due = self.options.discovery.map(|i| Instant::now() + i);
                self.add(started?)?;
            }
            Woken::DiscoveryDue => self.discovery = Some(self.discover_new()),
            Woken::EndsArrived => self.read_ends(),
        }
        Ok(())
    }

    /// An error came instead of a message.
    fn handle(&mut self, error: &KafkaError) -> Result<(), ConnectorError> {
        if let KafkaError::PartitionEOF(partition) = error {
            self.meet_end(*partition);
            return Ok(());
        }
        let reason = self.watch.take_reason();
        match error {
            KafkaError::MessageConsumption(code) if errors::heals(*code) => {
                debug!(%error, ?reason, "kafka source: brokers are away");
                // Asking for partitions fails if they stay away.
                if self.discovery.is_none() && *code == Code::AllBrokersDown {
                    self.discovery = Some(self.discover_new());
                }
                Ok(())
            }
            KafkaError::MessageConsumption(Code::AutoOffsetReset) => {
                if self.loss.is_none() {
                    self.loss = Some(self.describe_loss());
                }
                Ok(())
            }
            _ => Err(errors::sort(
                "kafka source: reading failed",
                error,
                reason.as_deref(),
            )),
        }
    }
}

fn client_config(config: &ClientConfig, cx: &SourceContext) -> ClientConfig {
    let mut config = config.clone();
    if config.get("client.id").is_none() {
        let uid: String = cx
            .source_uid
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        config.set("client.id", format!("tidemill-{uid}-{}", cx.subtask));
    }
    config
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self, budget: BatchBudget) -> Result<SourceEvent, ConnectorError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some(event) = self.give(budget) {
                return Ok(event);
            }
            if let Some(event) = self.at_rest() {
                return Ok(event);
            }
            if self.finished {
                return std::future::pending().await;
            }
            if let Some(loss) = &mut self.loss {
                return Err(loss.await?);
            }
            self.wait(budget).await?;
        }
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<SplitState>, ConnectorError> {
        let positions = self.splits.iter().enumerate();
        let positions = positions
            .filter_map(|(i, split)| Some((i, split.position()?)))
            .collect();
        self.snapshots.push_back((checkpoint, positions));
        if self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.pop_front();
        }
        Ok(self
            .splits
            .iter()
            .map(|split| split.snapshot().encode())
            .collect())
    }

    async fn checkpoint_complete(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<(), ConnectorError> {
        let mut complete = None;
        while self
            .snapshots
            .front()
            .is_some_and(|(id, _)| *id <= checkpoint)
        {
            complete = self
                .snapshots
                .pop_front()
                .filter(|(id, _)| *id == checkpoint);
        }
        let Some((_, positions)) = complete.filter(|_| self.options.commits) else {
            return Ok(());
        };
        let mut offsets = TopicPartitionList::new();
        for (index, offset) in positions {
            if self.committed.insert(index, offset) == Some(offset) {
                continue;
            }
            let split = &self.splits[index];
            offsets
                .add_partition_offset(&split.topic, split.partition, Offset::Offset(offset))
                .map_err(|e| errors::sort("kafka source: an offset is refused", &e, None))?;
        }
        if offsets.count() > 0
            && let Err(error) = self.consumer().commit(&offsets, CommitMode::Async)
        {
            debug!(%error, "committing offsets to the group failed");
            self.watch.commits_failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_behind(&self, split: u32) -> bool {
        let split = self.splits.get(split as usize);
        split.is_some_and(|split| !split.finished && (!split.at_end || split.has_records()))
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics")]
    fn metrics(&self) -> Vec<(String, f64)> {
        let mut pending = 0;
        let mut metrics = Vec::with_capacity(2 * self.splits.len() + 3);
        for (index, split) in self.splits.iter().enumerate() {
            let prefix = format!(
                "KafkaSourceReader.topic.{}.partition.{}",
                split.topic, split.partition
            );
            // As in Flink: the offset of the last record, -1 before the first.
            let current = split.position().map_or(-1, |position| position - 1);
            metrics.push((format!("{prefix}.currentOffset"), current as f64));
            let committed = self.committed.get(&index).copied().unwrap_or(-1);
            metrics.push((format!("{prefix}.committedOffset"), committed as f64));
            if let Some(end) = self.watch.end(&split.topic, split.partition) {
                pending += (end.high - split.position().unwrap_or(0)).max(0);
            }
        }
        metrics.push(("pendingRecords".to_owned(), pending as f64));
        let commits = [
            ("commitsSucceeded", &self.watch.commits_succeeded),
            ("commitsFailed", &self.watch.commits_failed),
        ];
        for (name, count) in commits {
            let name = format!("KafkaSourceReader.{name}");
            metrics.push((name, count.load(Ordering::Relaxed) as f64));
        }
        metrics
    }
}
