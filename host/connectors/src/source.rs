//! What a task drives to get records in.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_types::{Attempt, Batch, CheckpointId, JobId, TenantId};

use crate::ConnectorError;

/// Who reads.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// The job.
    pub job: JobId,
    /// Its owner.
    pub tenant: TenantId,
    /// The vertex that the source feeds.
    pub vertex_uid: String,
    /// The source.
    pub source_uid: String,
    /// This parallel instance.
    pub subtask: u32,
    /// How many there are.
    pub parallelism: u32,
    /// How many there can be.
    pub max_parallelism: u32,
    /// Which deployment of the job this is.
    pub attempt: Attempt,
}

/// How much one call of [`Source::next`] may return. At least one record always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchBudget {
    /// At most so many records.
    pub records: usize,
    /// At most about so many bytes.
    pub bytes: usize,
}

impl BatchBudget {
    /// The number of records allowed, at least one.
    #[must_use]
    pub fn records_min_one(self) -> usize {
        self.records.max(1)
    }
}

/// The position of a source in one split, as it is kept in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// The split's name, unique within the source.
    pub split: String,
    /// A small JSON document that the source alone understands.
    pub state: Vec<u8>,
}

/// What comes out of a source.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records of one split.
    Batch {
        /// A dense number chosen by the source, stable while it runs.
        split: u32,
        /// The records, never empty.
        batch: Batch,
    },
    /// The source will read this split from now on.
    SplitStarted {
        /// Its number.
        split: u32,
        /// Its name.
        name: String,
    },
    /// Nothing will come from this split any more.
    SplitFinished {
        /// Its number.
        split: u32,
    },
    /// All splits are at their end for now; they may be counted as idle until the next batch.
    CaughtUp,
    /// A bounded source is done; nothing will come any more.
    Finished,
}

/// Reads splits. One subtask drives one source.
#[async_trait]
pub trait Source: Send {
    /// The next thing. Waits when there is nothing; safe to cancel at any time.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when the source cannot go on.
    async fn next(&mut self, budget: BatchBudget) -> Result<SourceEvent, ConnectorError>;

    /// Positions of exactly what `next` has returned so far, including those of splits that have
    /// finished where that must be remembered.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when a position cannot be written down.
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<SplitState>, ConnectorError>;

    /// A checkpoint is durable. Positions may be told to the outside, as information only.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when the source can no longer go on; what is only information is logged
    /// and counted instead.
    async fn checkpoint_complete(&mut self, checkpoint: CheckpointId)
    -> Result<(), ConnectorError>;

    /// Whether there may be records of this split that `next` has not returned yet, as far as the
    /// source knows. Such a split is late, not idle, however long it is silent.
    fn is_behind(&self, split: u32) -> bool {
        let _ = split;
        false
    }

    /// Metrics by name.
    fn metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// The splits of all former subtasks that fall to this one when a source is restored: split
/// number `i` of the sorted names goes to subtask `i % parallelism`.
pub(crate) fn deal_by_index(index: usize, cx: &SourceContext) -> bool {
    index % (cx.parallelism.max(1) as usize) == cx.subtask as usize
}

/// Writes a small state down.
pub(crate) fn encode_state<T: Serialize>(state: &T) -> Vec<u8> {
    serde_json::to_vec(state).expect("plain numbers and strings are always JSON")
}

/// Reads a small state.
pub(crate) fn decode_state<'a, T: Deserialize<'a>>(
    connector: &str,
    split: &'a SplitState,
) -> Result<T, ConnectorError> {
    serde_json::from_slice(&split.state).map_err(|e| {
        ConnectorError::lost(format!(
            "{connector}: the position of split \"{}\" in the checkpoint cannot be read: {e}",
            split.split
        ))
    })
}
