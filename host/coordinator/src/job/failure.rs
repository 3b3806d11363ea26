//! What went wrong with a job, and the history of it that the API shows.

use std::collections::VecDeque;

use tidemill_types::WorkerId;

/// What kind of thing failed. The API shows it where Flink shows the class of an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// A task reported that it failed.
    Task,
    /// A worker went away.
    WorkerLost,
    /// There were not enough slots in time.
    NoSlots,
    /// Too many checkpoints failed.
    Checkpoint,
    /// The job's state could not be restored.
    Restore,
    /// The coordinator is at fault.
    Bug,
}

impl FailureKind {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "TaskFailed",
            Self::WorkerLost => "WorkerLost",
            Self::NoSlots => "NoResourceAvailable",
            Self::Checkpoint => "CheckpointFailed",
            Self::Restore => "RestoreFailed",
            Self::Bug => "InternalError",
        }
    }
}

/// A failure of a job.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What kind.
    pub(crate) kind: FailureKind,
    /// What, where, and what to do about it.
    pub(crate) cause: String,
    /// When.
    pub(crate) at_ms: i64,
    /// `<vertex> (<n>/<of>)`, if one task is at fault.
    pub(crate) task: Option<String>,
    /// The worker concerned, with its address.
    pub(crate) worker: Option<(WorkerId, String)>,
    /// What failed in its wake.
    pub(crate) concurrent: Vec<Self>,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, cause: impl Into<String>, at_ms: i64) -> Self {
        Self {
            kind,
            cause: cause.into(),
            at_ms,
            task: None,
            worker: None,
            concurrent: Vec::new(),
        }
    }

    /// In one line, with the task.
    pub(crate) fn summary(&self) -> String {
        match &self.task {
            Some(task) => format!("{task}: {}", self.cause),
            None => self.cause.clone(),
        }
    }
}

/// The most failures remembered in the wake of another.
const CONCURRENT_MAX: usize = 32;

/// The latest failures, newest first.
#[derive(Debug, Clone)]
pub(crate) struct FailureHistory {
    capacity: usize,
    entries: VecDeque<Failure>,
    dropped: bool,
}

impl FailureHistory {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: VecDeque::new(),
            dropped: false,
        }
    }

    /// Adds a failure that ended an attempt.
    pub(crate) fn push(&mut self, failure: Failure) {
        self.entries.push_front(failure);
        if self.entries.len() > self.capacity {
            self.entries.pop_back();
            self.dropped = true;
        }
    }

    /// Adds what failed while the attempt was being stopped already.
    pub(crate) fn push_concurrent(&mut self, failure: Failure) {
        match self.entries.front_mut() {
            Some(root) if root.concurrent.len() < CONCURRENT_MAX => root.concurrent.push(failure),
            Some(_) => self.dropped = true,
            None => self.push(failure),
        }
    }

    /// Newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.entries.iter()
    }

    /// Whether something was forgotten.
    pub(crate) const fn truncated(&self) -> bool {
        self.dropped
    }
}
