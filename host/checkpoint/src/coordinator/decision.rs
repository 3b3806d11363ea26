//! What the coordinator is told in advance, and what it decides.

use tidemill_types::{CheckpointId, TaskId};

use crate::subtask::SubtaskState;

/// When to take checkpoints, and what to make of failed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// From one periodic checkpoint to the next, in milliseconds; `None` switches them off.
    pub interval_ms: Option<u64>,
    /// After how many milliseconds an unfinished one is given up.
    pub timeout_ms: u64,
    /// The least time between the end of one and the start of the next, in milliseconds.
    pub min_pause_ms: u64,
    /// How many may be under way at once. A minimum pause allows only one.
    pub max_concurrent: u32,
    /// How many may fail in a row before the job does; `None`: any number.
    pub tolerable_failures: Option<u32>,
    /// How many completed ones are kept.
    pub retained: u32,
}

impl Default for CheckpointSettings {
    /// Flink's defaults.
    fn default() -> Self {
        Self {
            interval_ms: None,
            timeout_ms: 600_000,
            min_pause_ms: 0,
            max_concurrent: 1,
            tolerable_failures: Some(0),
            retained: 1,
        }
    }
}

/// What is being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointKind {
    /// For recovery; replaced by the next.
    Checkpoint,
    /// For the user, who owns it.
    Savepoint {
        /// Sources stop after its barrier.
        stop: bool,
        /// Sources send the last watermark first.
        drain: bool,
    },
}

impl CheckpointKind {
    /// Whether it is a savepoint.
    #[must_use]
    pub const fn is_savepoint(self) -> bool {
        matches!(self, Self::Savepoint { .. })
    }

    /// Whether the job recovers from it, and so whether sinks may commit by it. A savepoint counts
    /// only if it stops the job: any other may be deleted by its owner at any time, and what was
    /// committed by it would be committed again after a recovery from the checkpoint before it.
    #[must_use]
    pub const fn is_recovery_point(self) -> bool {
        matches!(self, Self::Checkpoint) || self.stops()
    }

    /// Whether sources stop after its barrier.
    #[must_use]
    pub const fn stops(self) -> bool {
        matches!(self, Self::Savepoint { stop: true, .. })
    }
}

/// What the driver is to do, in the order given.
#[derive(Debug)]
pub enum Decision {
    /// Tell the tasks that have no inputs to put a barrier into their streams.
    Trigger {
        /// Its number.
        checkpoint: CheckpointId,
        /// What it is.
        kind: CheckpointKind,
    },
    /// Store the manifest, then answer by [`super::CheckpointCoordinator::stored`] or
    /// [`super::CheckpointCoordinator::store_failed`].
    Publish(PublishPermit),
    /// Tell all tasks that it is durable and that sinks may commit. Not said of a savepoint that
    /// leaves the job running: its sinks commit with the next checkpoint.
    NotifyComplete {
        /// Its number.
        checkpoint: CheckpointId,
    },
    /// Tell all tasks that it will never be, and delete what they stored for it.
    NotifyAborted {
        /// Its number.
        checkpoint: CheckpointId,
        /// Why, for people.
        reason: String,
    },
    /// Delete a completed checkpoint that newer ones have replaced.
    Discard {
        /// Its number.
        checkpoint: CheckpointId,
    },
    /// Too many have failed: fail the job (its restart strategy decides what follows).
    FailJob {
        /// Why, for people.
        reason: String,
    },
}

/// Everything that a checkpoint consists of. Only the coordinator makes one, when all tasks have
/// acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub struct PublishPermit {
    checkpoint: CheckpointId,
    kind: CheckpointKind,
    states: Vec<(TaskId, SubtaskState)>,
}

impl PublishPermit {
    pub(super) const fn new(
        checkpoint: CheckpointId,
        kind: CheckpointKind,
        states: Vec<(TaskId, SubtaskState)>,
    ) -> Self {
        Self {
            checkpoint,
            kind,
            states,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> CheckpointKind {
        self.kind
    }

    /// What each task acknowledged, ordered by vertex and subtask.
    #[must_use]
    pub fn states(&self) -> &[(TaskId, SubtaskState)] {
        &self.states
    }

    /// What each task acknowledged, ordered by vertex and subtask.
    #[must_use]
    pub fn into_states(self) -> Vec<(TaskId, SubtaskState)> {
        self.states
    }
}

/// Why a checkpoint that somebody asked for cannot be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TriggerRefused {
    /// Some tasks are not up.
    #[error("not all tasks of the job are running")]
    NotRunning,
    /// All tasks have finished.
    #[error("all tasks of the job have finished")]
    Finished,
    /// Another one must end first.
    #[error("as many checkpoints as are allowed are under way")]
    Busy,
}

/// A permit was given whose fate is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint {0} is being stored; wait for the outcome")]
pub struct StillPublishing(pub CheckpointId);
