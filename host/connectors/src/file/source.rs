//! The source: the files of this subtask, one after the other.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt as _, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tidemill_types::{BatchBuilder, CheckpointId, ConnectorConfig, NO_TIMESTAMP};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::{chunks::Lines, listing, path};
use crate::{
    BatchBudget, ConnectorError, Source, SourceContext, SourceEvent, SplitState,
    options::OptionReader,
    source::{decode_state, encode_state},
};

#[derive(Debug, Clone)]
pub(crate) struct SourceOptions {
    path: PathBuf,
    recursive: bool,
    monitor: Option<Duration>,
}

impl SourceOptions {
    pub(crate) fn read(config: &ConnectorConfig) -> Result<Self, ConnectorError> {
        let mut reader = OptionReader::new("file source", &config.options);
        let options = Self {
            path: path::read(&mut reader)?,
            recursive: reader.boolean("recursive")?.unwrap_or(true),
            monitor: reader.duration("monitor-interval")?,
        };
        if options.monitor == Some(Duration::ZERO) {
            return Err(reader.invalid("`monitor-interval` must be above 0"));
        }
        reader.finish()?;
        Ok(options)
    }

    /// Looks whether the path can be read.
    pub(crate) async fn check(&self) -> Result<(), ConnectorError> {
        self.list().await.map(drop)
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<String>, ConnectorError>> {
        let options = self.clone();
        let list = move || listing::list(&options.path, options.recursive);
        let listed = tokio::task::spawn_blocking(list);
        let joined = |listed: Result<_, tokio::task::JoinError>| {
            listed.unwrap_or_else(|e| Err(ConnectorError::failed(format!("file source: {e}"))))
        };
        listed.map(joined).boxed()
    }
}

/// What a checkpoint keeps of a file.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    offset: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    finished: bool,
}

/// The file that is being read.
struct Current {
    name: String,
    split: u32,
    lines: Lines,
}

/// The source.
pub(crate) struct FileSource {
    options: SourceOptions,
    cx: SourceContext,
    /// All files of this subtask, also those that were read.
    files: BTreeMap<String, Position>,
    /// Those that are to be read.
    waiting: VecDeque<String>,
    current: Option<Current>,
    splits: u32,
    listing: Option<BoxFuture<'static, Result<Vec<String>, ConnectorError>>>,
    listing_due: Option<Instant>,
    caught_up: bool,
    ended: bool,
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl FileSource {
    pub(crate) async fn open(
        options: SourceOptions,
        cx: SourceContext,
        restored: Option<Vec<SplitState>>,
    ) -> Result<Self, ConnectorError> {
        let mut source = Self {
            options,
            cx,
            files: BTreeMap::new(),
            waiting: VecDeque::new(),
            current: None,
            splits: 0,
            listing: None,
            listing_due: None,
            caught_up: false,
            ended: false,
        };
        // A bounded source reads what was there when it was first started.
        if restored.is_none() || source.options.monitor.is_some() {
            let found = source.options.list().await?;
            source.restore(restored.unwrap_or_default())?;
            source.found(found);
        } else {
            source.restore(restored.unwrap_or_default())?;
        }
        Ok(source)
    }

    fn restore(&mut self, states: Vec<SplitState>) -> Result<(), ConnectorError> {
        for state in states {
            let position: Position = decode_state("file source", &state)?;
            if self.is_mine(&state.split) {
                if !position.finished {
                    self.waiting.push_back(state.split.clone());
                }
                self.files.insert(state.split, position);
            }
        }
        Ok(())
    }

    fn is_mine(&self, name: &str) -> bool {
        let parallelism = u64::from(self.cx.parallelism.max(1));
        xxh3_64(name.as_bytes()) % parallelism == u64::from(self.cx.subtask)
    }

    fn found(&mut self, names: Vec<String>) {
        for name in names {
            if self.is_mine(&name) && !self.files.contains_key(&name) {
                self.files.insert(name.clone(), Position::default());
                self.waiting.push_back(name);
            }
        }
        self.listing_due = self
            .options
            .monitor
            .map(|interval| Instant::now() + interval);
    }

    /// Begins the next file, if there is one.
    fn begin(&mut self) -> Option<SourceEvent> {
        let name = self.waiting.pop_front()?;
        let position = self.files.get(&name).copied().unwrap_or_default();
        let split = self.splits;
        self.splits += 1;
        let lines = Lines::open(&name, position.offset);
        self.current = Some(Current {
            name: name.clone(),
            split,
            lines,
        });
        self.caught_up = false;
        Some(SourceEvent::SplitStarted { split, name })
    }

    /// Records of the current file, or its end.
    async fn read(&mut self, budget: BatchBudget) -> Result<SourceEvent, ConnectorError> {
        loop {
            let current = self.current.as_mut().expect("a file is open");
            if let Some(event) = lines(current, &mut self.files, budget) {
                return Ok(event);
            }
            if !current.lines.more().await? {
                let Current { name, split, lines } = self.current.take().expect("a file is open");
                let position = Position {
                    offset: lines.position(),
                    finished: true,
                };
                self.files.insert(name, position);
                return Ok(SourceEvent::SplitFinished { split });
            }
        }
    }

    /// Waits until it is time to list again, and lists.
    async fn list_again(&mut self) -> Result<(), ConnectorError> {
        if self.listing.is_none() {
            if let Some(due) = self.listing_due {
                tokio::time::sleep_until(due).await;
            }
            self.listing = Some(self.options.list());
        }
        let found = self.listing.as_mut().expect("it was just set").await;
        self.listing = None;
        self.found(found?);
        Ok(())
    }
}

/// The lines that are in memory, within the budget.
fn lines(
    current: &mut Current,
    files: &mut BTreeMap<String, Position>,
    budget: BatchBudget,
) -> Option<SourceEvent> {
    let mut builder = BatchBuilder::new();
    let mut bytes = 0;
    while builder.len() < budget.records_min_one() && (builder.is_empty() || bytes < budget.bytes) {
        let Some(line) = current.lines.next() else {
            break;
        };
        bytes += line.len() + 12;
        builder.push(NO_TIMESTAMP, None, Some(line));
    }
    if builder.is_empty() {
        return None;
    }
    if let Some(position) = files.get_mut(&current.name) {
        position.offset = current.lines.position();
    }
    Some(SourceEvent::Batch {
        split: current.split,
        batch: builder.take(),
    })
}

#[async_trait]
impl Source for FileSource {
    async fn next(&mut self, budget: BatchBudget) -> Result<SourceEvent, ConnectorError> {
        loop {
            if self.ended {
                return std::future::pending().await;
            }
            if self.current.is_some() {
                tokio::task::consume_budget().await;
                return self.read(budget).await;
            }
            if let Some(event) = self.begin() {
                return Ok(event);
            }
            if self.options.monitor.is_none() {
                self.ended = true;
                return Ok(SourceEvent::Finished);
            }
            if !self.caught_up {
                self.caught_up = true;
                return Ok(SourceEvent::CaughtUp);
            }
            self.list_again().await?;
        }
    }

    fn snapshot(&mut self, _: CheckpointId) -> Result<Vec<SplitState>, ConnectorError> {
        let state = |(name, position): (&String, &Position)| SplitState {
            split: name.clone(),
            state: encode_state(position),
        };
        Ok(self.files.iter().map(state).collect())
    }

    async fn checkpoint_complete(&mut self, _: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics")]
    fn metrics(&self) -> Vec<(String, f64)> {
        let finished = self
            .files
            .values()
            .filter(|position| position.finished)
            .count();
        let open = usize::from(self.current.is_some());
        vec![
            ("filesFinished".to_owned(), finished as f64),
            (
                "filesWaiting".to_owned(),
                (self.waiting.len() + open) as f64,
            ),
        ]
    }
}
