//! What every source must do, and what tests of connectors share.

#![allow(unreachable_pub, reason = "shared by several test targets")]
#![allow(dead_code, reason = "each test target uses a part of it")]

use std::collections::BTreeMap;

use tidemill_connectors::{
    BatchBudget, ConnectorError, Registry, SinkContext, Source, SourceContext, SourceEvent,
    SplitState,
};
use tidemill_types::{Attempt, Batch, CheckpointId, ConnectorConfig, JobId, TenantId};

pub fn config(kind: &str, options: &[(&str, &str)]) -> ConnectorConfig {
    let options = options
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    ConnectorConfig {
        kind: kind.to_owned(),
        options,
    }
}

pub fn source_context(subtask: u32, parallelism: u32) -> SourceContext {
    SourceContext {
        job: JobId::from_name("job"),
        tenant: TenantId::default_tenant(),
        vertex_uid: "vertex".into(),
        source_uid: "source".into(),
        subtask,
        parallelism,
        max_parallelism: 128,
        attempt: Attempt(0),
    }
}

pub fn sink_context(subtask: u32, parallelism: u32) -> SinkContext {
    SinkContext {
        job: JobId::from_name("job"),
        tenant: TenantId::default_tenant(),
        vertex_uid: "vertex".into(),
        sink_uid: "sink".into(),
        subtask,
        parallelism,
        max_parallelism: 128,
        attempt: Attempt(0),
    }
}

pub const fn budget(records: usize) -> BatchBudget {
    BatchBudget {
        records,
        bytes: 1 << 20,
    }
}

pub async fn open(
    config: &ConnectorConfig,
    cx: SourceContext,
    restored: Option<Vec<SplitState>>,
) -> Result<Box<dyn Source>, ConnectorError> {
    Registry::standard().open_source(config, cx, restored).await
}

pub async fn open_one(config: &ConnectorConfig) -> Box<dyn Source> {
    open(config, source_context(0, 1), None).await.unwrap()
}

pub fn values(batch: &Batch) -> Vec<String> {
    (0..batch.len())
        .map(|i| String::from_utf8(batch.values.get(i).unwrap_or(b"<null>").to_vec()).unwrap())
        .collect()
}

/// What a source gave.
#[derive(Debug, Default)]
pub struct Given {
    pub values: Vec<String>,
    /// The names of splits by number.
    pub splits: BTreeMap<u32, String>,
    pub finished_splits: Vec<u32>,
    pub caught_up: bool,
    pub finished: bool,
}

impl Given {
    pub fn take(&mut self, event: SourceEvent) {
        assert!(!self.finished, "nothing comes after the end");
        match event {
            SourceEvent::Batch { split, batch } => {
                batch.validate().unwrap();
                assert!(!batch.is_empty());
                assert!(
                    self.splits.contains_key(&split),
                    "a split starts before its records"
                );
                assert!(!self.finished_splits.contains(&split));
                self.values.extend(values(&batch));
                self.caught_up = false;
            }
            SourceEvent::SplitStarted { split, name } => {
                assert!(self.splits.insert(split, name).is_none());
            }
            SourceEvent::SplitFinished { split } => self.finished_splits.push(split),
            SourceEvent::CaughtUp => self.caught_up = true,
            SourceEvent::Finished => self.finished = true,
        }
    }

    /// Reads until `enough`.
    pub async fn read(
        &mut self,
        source: &mut Box<dyn Source>,
        size: usize,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<(), ConnectorError> {
        let limit = std::time::Duration::from_secs(30);
        while !enough(self) {
            let next = tokio::time::timeout(limit, source.next(budget(size))).await;
            self.take(next.unwrap_or_else(|_| panic!("nothing came for {limit:?}: {self:?}"))?);
        }
        Ok(())
    }
}

/// Everything that a bounded source gives at parallelism 1.
pub async fn read_bounded(config: &ConnectorConfig) -> Vec<String> {
    let mut source = open_one(config).await;
    let mut given = Given::default();
    given
        .read(&mut source, 100, |given| given.finished)
        .await
        .unwrap();
    given.values
}

/// Everything that an unbounded source gives until it has caught up.
pub async fn read_to_rest(config: &ConnectorConfig) -> Vec<String> {
    let mut source = open_one(config).await;
    let mut given = Given::default();
    given
        .read(&mut source, 100, |given| given.caught_up)
        .await
        .unwrap();
    given.values
}

/// A small generator of pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// The suite: a bounded source, stopped at any point and restored at any parallelism, gives every
/// record exactly once.
pub async fn source_conforms(config: &ConnectorConfig, expected: &[String], seeds: u64) {
    Registry::standard().validate_source(config).unwrap();
    let mut expected = expected.to_vec();
    expected.sort();
    for seed in 0..seeds {
        let mut given = interrupted(config, &mut Dice(seed), expected.len()).await;
        given.sort();
        assert!(
            given == expected,
            "seed {seed}: {} records, not {}",
            given.len(),
            expected.len()
        );
    }
}

async fn interrupted(config: &ConnectorConfig, dice: &mut Dice, total: usize) -> Vec<String> {
    let mut states = None;
    let mut counted = Vec::new();
    let rounds = 1 + dice.below(3);
    for round in 0..rounds {
        let parallelism = u32::try_from(1 + dice.below(4)).unwrap();
        let mut next_states = Vec::new();
        for subtask in 0..parallelism {
            let cx = source_context(subtask, parallelism);
            let mut source = open(config, cx, states.clone()).await.unwrap();
            let mut given = Given::default();
            let stop_after = dice.below(total / 2 + 1);
            let size = 1 + dice.below(50);
            given
                .read(&mut source, size, |g| {
                    g.finished || g.values.len() >= stop_after
                })
                .await
                .unwrap();
            next_states.extend(source.snapshot(CheckpointId(round as u64)).unwrap());
            counted.append(&mut given.values);
            // What is read after the snapshot is lost with the process.
            if !given.finished {
                let again = total.min(dice.below(20));
                given
                    .read(&mut source, size, |g| g.finished || g.values.len() >= again)
                    .await
                    .unwrap();
            }
        }
        let mut names: Vec<_> = next_states
            .iter()
            .map(|state| state.split.clone())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(
            names.len(),
            next_states.len(),
            "each split is in one snapshot"
        );
        states = Some(next_states);
    }
    let parallelism = u32::try_from(1 + dice.below(4)).unwrap();
    for subtask in 0..parallelism {
        let cx = source_context(subtask, parallelism);
        let mut source = open(config, cx, states.clone()).await.unwrap();
        let mut given = Given::default();
        given
            .read(&mut source, 100, |given| given.finished)
            .await
            .unwrap();
        counted.append(&mut given.values);
    }
    counted
}
