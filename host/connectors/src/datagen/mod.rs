//! `datagen`: a source that makes its records up. The same options give the same records, at any
//! parallelism and across restarts.
//!
//! | option | meaning |
//! |---|---|
//! | `format` | `click-event` (default), `sequence` (decimal numbers) or `random-text` |
//! | `records` | how many over all subtasks; unset: without end |
//! | `rate` | records per second over all subtasks; unset: as fast as possible |
//! | `splits` | in how many parts they are made; unset: the parallelism of the first start |
//! | `seed` | for `random-text`; default 0 |
//! | `words` | words per line of `random-text`; default 8 |
//! | `start-timestamp` | event time of the first click, milliseconds since the epoch; default 0 |
//! | `events-per-window` | clicks per page and window; default 1000 |
//! | `window-ms` | length of that window; default 15000 |
//! | `us-per-record` | instead of the two above: event time goes on by so much with each click |
//!
//! # The split scheme
//!
//! All records have numbers from 0. Click number `n` is on page `n % 6`, and its round `n / 6`
//! belongs to split `round % splits`; other records belong to split `n % splits`. A split's
//! position is how many records it has given, so that the records of all splits together are the
//! same however many there are. The number of splits is part of the state: a job restored at a
//! parallelism above it leaves the subtasks in excess idle.

mod click;
mod pace;
mod text;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_types::{Batch, CheckpointId, ConnectorConfig};
use tokio::time::Instant;

use self::{
    click::{ClickTime, Clicks},
    pace::Pace,
    text::{RandomText, Sequence},
};
use crate::{
    BatchBudget, ConnectorError, Source, SourceContext, SourceEvent, SplitState,
    options::OptionReader,
    source::{deal_by_index, decode_state, encode_state},
};

/// The most splits; more would only cost.
const SPLITS_MAX: u64 = 1024;
/// The most words in a line of `random-text`.
const WORDS_MAX: u64 = 1000;

/// What records look like.
#[derive(Debug, Clone)]
enum Format {
    Clicks { start: u64, time: ClickTime },
    Sequence,
    RandomText { seed: u64, words: u64 },
}

/// The checked options.
#[derive(Debug, Clone)]
struct Options {
    format: Format,
    records: Option<u64>,
    rate: Option<u64>,
    splits: Option<u64>,
}

fn read(config: &ConnectorConfig) -> Result<Options, ConnectorError> {
    #[derive(Clone, Copy)]
    enum Word {
        Click,
        Sequence,
        Text,
    }
    let mut reader = OptionReader::new("datagen", &config.options);
    let word = reader.choice(
        "format",
        &[
            ("click-event", Word::Click),
            ("sequence", Word::Sequence),
            ("random-text", Word::Text),
        ],
    )?;
    let start = reader.number("start-timestamp")?.unwrap_or(0);
    let events = reader.positive("events-per-window")?;
    let window_ms = reader.positive("window-ms")?;
    let us_per_record = reader.positive("us-per-record")?;
    let seed = reader.number("seed")?.unwrap_or(0);
    let words = reader.positive("words")?.unwrap_or(8);
    let time = match us_per_record {
        Some(_) if events.is_some() || window_ms.is_some() => {
            return Err(reader.invalid(
                "`us-per-record` excludes `events-per-window` and `window-ms`; remove one of them",
            ));
        }
        Some(us) => ClickTime::PerRecord { us },
        None => ClickTime::PerWindow {
            events: events.unwrap_or(1_000),
            window_ms: window_ms.unwrap_or(15_000),
        },
    };
    if start > 1 << 60 {
        return Err(reader.invalid("`start-timestamp` is more than 36 million years away"));
    }
    if words > WORDS_MAX {
        return Err(reader.invalid(&format!("`words` is {words}, more than {WORDS_MAX}")));
    }
    let options = Options {
        format: match word.unwrap_or(Word::Click) {
            Word::Click => Format::Clicks { start, time },
            Word::Sequence => Format::Sequence,
            Word::Text => Format::RandomText { seed, words },
        },
        records: reader.number("records")?,
        rate: reader.positive("rate")?,
        splits: reader.positive("splits")?,
    };
    if options.splits.is_some_and(|splits| splits > SPLITS_MAX) {
        return Err(reader.invalid(&format!("`splits` may be at most {SPLITS_MAX}")));
    }
    reader.finish()?;
    Ok(options)
}

/// Checks the options.
///
/// # Errors
///
/// [`ConnectorError::Invalid`] names what is wrong.
pub fn validate(config: &ConnectorConfig) -> Result<(), ConnectorError> {
    read(config).map(drop)
}

/// Where in one split a record lies: made by the split scheme, used by the formats.
#[derive(Debug, Clone, Copy)]
struct Range {
    split: u64,
    splits: u64,
    position: u64,
    count: usize,
}

/// Makes the records of a range.
trait Generate: Send {
    /// Appends `range.count` records.
    fn fill(&mut self, range: Range, batch: &mut Batch);
    /// About how many bytes a record takes.
    fn record_bytes(&self) -> usize;
    /// How many of the first `records` records belong to `split`.
    fn len_of(&self, split: u64, splits: u64, records: u64) -> u64 {
        records.saturating_sub(split).div_ceil(splits)
    }
}

/// What a checkpoint keeps of a split.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    splits: u64,
    position: u64,
}

#[derive(Debug)]
struct Split {
    number: u64,
    position: u64,
    /// How many records it has in all; `u64::MAX` without end.
    end: u64,
    started: bool,
    finished: bool,
}

/// The source.
pub struct Datagen {
    generate: Box<dyn Generate>,
    splits_total: u64,
    splits: Vec<Split>,
    turn: usize,
    pace: Option<Pace>,
    bounded: bool,
    ended: bool,
}

impl std::fmt::Debug for Datagen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagen")
            .field("splits", &self.splits)
            .finish_non_exhaustive()
    }
}

impl Datagen {
    /// Opens the source, at its start or where it was.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] for wrong options, [`ConnectorError::Lost`] for state that is
    /// not this source's.
    pub fn new(
        config: &ConnectorConfig,
        cx: &SourceContext,
        restored: Option<Vec<SplitState>>,
    ) -> Result<Self, ConnectorError> {
        let options = read(config)?;
        let generate: Box<dyn Generate> = match &options.format {
            Format::Clicks { start, time } => Box::new(Clicks::new(*start, *time)),
            Format::Sequence => Box::new(Sequence),
            Format::RandomText { seed, words } => Box::new(RandomText::new(*seed, *words)),
        };
        let restored = restore(&restored.unwrap_or_default())?;
        let splits_total = restored
            .first()
            .map(|(_, position)| position.splits)
            .or(options.splits)
            .unwrap_or_else(|| u64::from(cx.parallelism).min(SPLITS_MAX));
        let splits = (0..splits_total)
            .filter(|number| usize::try_from(*number).is_ok_and(|index| deal_by_index(index, cx)))
            .map(|number| Split {
                number,
                position: restored
                    .iter()
                    .find(|(restored, _)| *restored == number)
                    .map_or(0, |(_, position)| position.position),
                end: options.records.map_or(u64::MAX, |records| {
                    generate.len_of(number, splits_total, records)
                }),
                started: false,
                finished: false,
            })
            .collect::<Vec<_>>();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let pace = options
            .rate
            .map(|rate| Pace::new(rate as f64 * splits.len() as f64 / splits_total as f64));
        Ok(Self {
            generate,
            splits_total,
            splits,
            turn: 0,
            pace,
            bounded: options.records.is_some(),
            ended: false,
        })
    }

    /// A split that begins or ends, if there is one to report.
    fn lifecycle(&mut self) -> Option<SourceEvent> {
        for (index, split) in (0u32..).zip(&mut self.splits) {
            if !split.started {
                split.started = true;
                return Some(SourceEvent::SplitStarted {
                    split: index,
                    name: name(split.number),
                });
            }
            if split.position >= split.end && !split.finished {
                split.finished = true;
                return Some(SourceEvent::SplitFinished { split: index });
            }
        }
        None
    }

    /// The next records of the split whose turn it is.
    fn batch(&mut self, records: usize) -> Option<SourceEvent> {
        let open = self.splits.len();
        let index = (0..open)
            .map(|step| (self.turn + step) % open)
            .find(|index| !self.splits[*index].finished)?;
        self.turn = index + 1;
        let split = &mut self.splits[index];
        let left = usize::try_from(split.end - split.position).unwrap_or(usize::MAX);
        let count = records.min(left);
        let range = Range {
            split: split.number,
            splits: self.splits_total,
            position: split.position,
            count,
        };
        let mut batch = Batch::default();
        batch.timestamps.reserve(count);
        batch.values.ends.reserve(count);
        batch
            .values
            .data
            .reserve(count * self.generate.record_bytes());
        self.generate.fill(range, &mut batch);
        split.position += count as u64;
        let split = u32::try_from(index).expect("at most SPLITS_MAX splits");
        Some(SourceEvent::Batch { split, batch })
    }
}

fn name(number: u64) -> String {
    format!("datagen-{number}")
}

/// The positions of all splits, checked to be of one source.
fn restore(states: &[SplitState]) -> Result<Vec<(u64, Position)>, ConnectorError> {
    let mut positions = Vec::with_capacity(states.len());
    for state in states {
        let position: Position = decode_state("datagen", state)?;
        let number = state
            .split
            .strip_prefix("datagen-")
            .and_then(|n| n.parse::<u64>().ok());
        match number {
            Some(number) if number < position.splits && position.splits <= SPLITS_MAX => {
                positions.push((number, position));
            }
            _ => {
                return Err(ConnectorError::lost(format!(
                    "datagen: the checkpoint's split \"{}\" is not one of this source",
                    state.split
                )));
            }
        }
    }
    Ok(positions)
}

#[async_trait]
impl Source for Datagen {
    async fn next(&mut self, budget: BatchBudget) -> Result<SourceEvent, ConnectorError> {
        if self.ended {
            return std::future::pending().await;
        }
        if let Some(event) = self.lifecycle() {
            return Ok(event);
        }
        if self.splits.iter().all(|split| split.finished) {
            self.ended = true;
            return Ok(if self.bounded {
                SourceEvent::Finished
            } else {
                SourceEvent::CaughtUp
            });
        }
        let by_bytes = budget.bytes / self.generate.record_bytes();
        let mut records = budget.records.min(by_bytes).max(1);
        if let Some(pace) = &mut self.pace {
            records = records.min(pace.allowed().await);
        } else {
            tokio::task::consume_budget().await;
        }
        let event = self.batch(records).expect("a split that has not finished");
        if let (Some(pace), SourceEvent::Batch { batch, .. }) = (&mut self.pace, &event) {
            pace.spend(batch.len(), Instant::now());
        }
        Ok(event)
    }

    fn snapshot(&mut self, _: CheckpointId) -> Result<Vec<SplitState>, ConnectorError> {
        let state = |split: &Split| SplitState {
            split: name(split.number),
            state: encode_state(&Position {
                splits: self.splits_total,
                position: split.position,
            }),
        };
        Ok(self.splits.iter().map(state).collect())
    }

    async fn checkpoint_complete(&mut self, _: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    fn metrics(&self) -> Vec<(String, f64)> {
        if !self.bounded {
            return Vec::new();
        }
        let pending: u64 = self
            .splits
            .iter()
            .map(|split| split.end.saturating_sub(split.position))
            .sum();
        vec![("pendingRecords".to_owned(), pending as f64)]
    }
}

#[cfg(test)]
mod tests;
