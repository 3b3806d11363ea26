//! The job and its tasks: sources that read splits, and counters that write transactions.

use std::collections::{BTreeMap, VecDeque};

use tidemill_checkpoint::{
    AlignDecision, Aligner, AlignmentMode, KeyedHandle, SinkState, SplitState, StateLocation,
    SubtaskState, TaskRestore,
};
use tidemill_types::{
    CheckpointId, ConnectorConfig, Edge, JobGraph, KeyGroup, KeyGroupRange, Operator, ShipStrategy,
    SinkBinding, SourceBinding, StateDecl, StateKind, TaskId, Vertex,
};

use crate::outside::{Row, Transactions};

pub(crate) const MAX_PARALLELISM: u32 = 16;
pub(crate) const SPLITS: u32 = 3;
pub(crate) const RECORDS: u64 = 60;
const KEYS: u64 = 7;

/// The key of a record.
pub(crate) fn key_of(split: u32, position: u64) -> String {
    format!(
        "key-{}",
        (position * 5 + u64::from(split) * 3 + position / 7) % KEYS
    )
}

fn connector() -> ConnectorConfig {
    ConnectorConfig {
        kind: "simulated".into(),
        options: BTreeMap::new(),
    }
}

fn vertex(uid: &str) -> Vertex {
    let operator = Operator {
        uid: format!("{uid}-op"),
        name: uid.into(),
        description: uid.into(),
    };
    Vertex {
        uid: uid.into(),
        name: uid.into(),
        parallelism: None,
        max_parallelism: None,
        source: None,
        operators: vec![operator],
        sinks: Vec::new(),
        states: Vec::new(),
        wants_watermarks: false,
        makes_watermarks: false,
    }
}

pub(crate) fn graph() -> JobGraph {
    let mut source = vertex("source");
    let (uid, name) = ("in".to_owned(), "in".to_owned());
    source.source = Some(SourceBinding {
        uid,
        name,
        connector: connector(),
        idle_timeout_ms: None,
    });
    let mut count = vertex("count");
    let (uid, name) = ("out".to_owned(), "out".to_owned());
    count.sinks = vec![SinkBinding {
        uid,
        name,
        port: 0,
        connector: connector(),
    }];
    count.states = vec![StateDecl {
        name: "counts".into(),
        operator: 0,
        kind: StateKind::Value,
        key_schema: String::new(),
        subkey_schema: String::new(),
        value_schema: String::new(),
        ttl_ms: None,
    }];
    let edge = Edge {
        from: 0,
        port: 0,
        to: 1,
        input: 0,
        strategy: ShipStrategy::Hash,
    };
    let (vertices, edges) = (vec![source, count], vec![edge]);
    JobGraph {
        name: "simulated".into(),
        vertices,
        edges,
        config: BTreeMap::new(),
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Element {
    Record(String),
    Barrier(CheckpointId),
    End,
}

/// What a source sends, by downstream subtask.
pub(crate) type Sent = Vec<(u32, Element)>;

#[derive(Debug)]
pub(crate) struct Source {
    positions: BTreeMap<u32, u64>,
    downstream: u32,
    last_barrier: Option<CheckpointId>,
    triggers: VecDeque<CheckpointId>,
    pub(crate) finished: bool,
}

impl Source {
    pub(crate) fn new(
        id: TaskId,
        (own, downstream): (u32, u32),
        restore: Option<&TaskRestore>,
    ) -> Self {
        let restored: BTreeMap<u32, u64> = restore
            .and_then(|restore| restore.source.as_ref())
            .into_iter()
            .flatten()
            .map(|split| {
                (
                    number(&split.split),
                    number(std::str::from_utf8(&split.state).expect("digits")),
                )
            })
            .collect();
        let mine = (0..SPLITS).filter(|split| split % own == id.subtask.0);
        let positions = mine
            .map(|split| (split, restored.get(&split).copied().unwrap_or(0)))
            .collect();
        let (last_barrier, triggers) = (None, VecDeque::new());
        Self {
            positions,
            downstream,
            last_barrier,
            triggers,
            finished: false,
        }
    }

    pub(crate) fn trigger(&mut self, checkpoint: CheckpointId) {
        if self.last_barrier.is_none_or(|last| last < checkpoint) {
            self.triggers.push_back(checkpoint);
        }
    }

    /// Sends a barrier if one is due: its checkpoint, and what the source acknowledges.
    pub(crate) fn barrier(&mut self) -> Option<(CheckpointId, SubtaskState, Sent)> {
        let checkpoint = self.triggers.pop_front()?;
        if self.last_barrier.is_some_and(|last| last >= checkpoint) {
            return None;
        }
        self.last_barrier = Some(checkpoint);
        let sent = (0..self.downstream)
            .map(|to| (to, Element::Barrier(checkpoint)))
            .collect();
        Some((checkpoint, self.state(), sent))
    }

    pub(crate) fn state(&self) -> SubtaskState {
        let split = |(split, position): (&u32, &u64)| SplitState {
            split: split.to_string(),
            state: position.to_string().into_bytes(),
        };
        SubtaskState {
            source: self.positions.iter().map(split).collect(),
            ..SubtaskState::default()
        }
    }

    /// Reads a record, of the split that is furthest behind.
    pub(crate) fn read(&mut self) -> Option<(u32, Element)> {
        let (&split, position) = self
            .positions
            .iter_mut()
            .min_by_key(|(_, position)| **position)?;
        if *position >= RECORDS {
            return None;
        }
        let key = key_of(split, *position);
        *position += 1;
        let to =
            KeyGroup::of(key.as_bytes(), MAX_PARALLELISM).owner(self.downstream, MAX_PARALLELISM);
        Some((to, Element::Record(key)))
    }

    pub(crate) fn end(&mut self) -> Sent {
        self.finished = true;
        (0..self.downstream).map(|to| (to, Element::End)).collect()
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the simulation wrote a number")
}

#[derive(Debug)]
pub(crate) struct Counter {
    id: TaskId,
    range: KeyGroupRange,
    pub(crate) aligner: Aligner,
    counts: BTreeMap<String, u64>,
    open: Vec<Row>,
    /// Prepared and not known to be committed.
    prepared: Vec<(CheckpointId, String)>,
}

/// What a counter tells the coordinator.
#[derive(Debug)]
pub(crate) enum Answer {
    Ack(CheckpointId, SubtaskState),
    Decline(CheckpointId),
}

impl Counter {
    /// Starts a counter: commits what its checkpoint holds, and aborts everything else of its own.
    pub(crate) fn new(
        id: TaskId,
        (upstream, own): (u32, u32),
        restore: Option<&TaskRestore>,
        outside: &mut Transactions,
    ) -> Result<Self, String> {
        let range = KeyGroupRange::of_subtask(id.subtask.0, own, MAX_PARALLELISM);
        let mut counts = BTreeMap::new();
        for handle in restore.iter().flat_map(|restore| &restore.keyed) {
            let StateLocation::Inline(bytes) = &handle.location else {
                return Err("the simulation keeps state inline".into());
            };
            handle.verify(bytes).map_err(|error| error.to_string())?;
            let all: BTreeMap<String, u64> =
                serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
            counts.extend(
                all.into_iter().filter(|(key, _)| {
                    range.contains(KeyGroup::of(key.as_bytes(), MAX_PARALLELISM))
                }),
            );
        }
        for committable in restore
            .iter()
            .flat_map(|r| &r.sinks)
            .flat_map(|s| &s.committables)
        {
            outside.commit(std::str::from_utf8(committable).map_err(|e| e.to_string())?)?;
        }
        outside.abort_older(id.attempt.0, |owner| owner % own == id.subtask.0);
        let aligner = Aligner::new(upstream as usize, AlignmentMode::ExactlyOnce);
        let (open, prepared) = (Vec::new(), Vec::new());
        Ok(Self {
            id,
            range,
            aligner,
            counts,
            open,
            prepared,
        })
    }

    pub(crate) fn receive(
        &mut self,
        channel: usize,
        element: Element,
        outside: &mut Transactions,
    ) -> Vec<Answer> {
        let decisions = match element {
            Element::Record(key) => {
                let count = self.counts.entry(key.clone()).or_default();
                *count += 1;
                self.open.push((key, *count));
                return Vec::new();
            }
            Element::Barrier(checkpoint) => self.aligner.barrier(channel, checkpoint),
            Element::End => self.aligner.channel_ended(channel),
        };
        self.answer(decisions, outside)
    }

    pub(crate) fn aborted(
        &mut self,
        checkpoint: CheckpointId,
        outside: &mut Transactions,
    ) -> Vec<Answer> {
        let decisions = self.aligner.cancelled(checkpoint);
        self.answer(decisions, outside)
    }

    pub(crate) fn complete(
        &mut self,
        checkpoint: CheckpointId,
        outside: &mut Transactions,
    ) -> Result<(), String> {
        let (done, rest) = std::mem::take(&mut self.prepared)
            .into_iter()
            .partition(|(by, _)| *by <= checkpoint);
        self.prepared = rest;
        let done: Vec<(CheckpointId, String)> = done;
        done.iter().try_for_each(|(_, id)| outside.commit(id))
    }

    fn answer(&mut self, decisions: Vec<AlignDecision>, outside: &mut Transactions) -> Vec<Answer> {
        let mut answers = Vec::new();
        for decision in decisions {
            match decision {
                AlignDecision::Complete { checkpoint, .. } => {
                    answers.push(Answer::Ack(checkpoint, self.snapshot(checkpoint, outside)));
                }
                AlignDecision::Abort { checkpoint, .. } => {
                    answers.push(Answer::Decline(checkpoint));
                }
                AlignDecision::Block { .. } => {}
            }
        }
        answers
    }

    fn snapshot(&mut self, checkpoint: CheckpointId, outside: &mut Transactions) -> SubtaskState {
        if !self.open.is_empty() {
            let (attempt, owner) = (self.id.attempt.0, self.id.subtask.0);
            let id = format!("{attempt}-{owner}-{checkpoint}");
            outside.prepare(&id, (attempt, owner), std::mem::take(&mut self.open));
            self.prepared.push((checkpoint, id));
        }
        let bytes = serde_json::to_vec(&self.counts).expect("a map of numbers");
        let committables = self
            .prepared
            .iter()
            .map(|(_, id)| id.clone().into_bytes())
            .collect();
        SubtaskState {
            keyed: vec![KeyedHandle::inline(self.range, bytes)],
            sinks: vec![SinkState {
                uid: "out".into(),
                committables,
            }],
            ..SubtaskState::default()
        }
    }
}
