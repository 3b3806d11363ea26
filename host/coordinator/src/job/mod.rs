//! Jobs: from submission to the last state.
//!
//! | module | what it is |
//! |---|---|
//! | [`submit`] | a request becomes a checked job: plan, graph, settings, state to start from |
//! | [`machine`] | the life of a job as pure decisions |
//! | [`restart`] | restart strategies, pure |
//! | [`execution`] | the subtasks of the current attempt |
//! | [`master`] | the task that owns a job: carries out what the decisions ask for |
//! | [`checkpoints`] | drives the checkpoint protocol for a job |
//! | [`checkpoint_stats`] | what the API tells about checkpoints |
//!
//! The master alone changes a job; others send it [`JobEvent`]s and may read its state under a
//! lock that nobody holds for long.

pub(crate) mod checkpoint_stats;
pub(crate) mod checkpoints;
mod deploy;
pub(crate) mod execution;
pub(crate) mod failure;
mod machine;
pub(crate) mod master;
mod restart;
pub(crate) mod status;
pub(crate) mod submit;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tidemill_checkpoint::{CheckpointKind, Manifest, SubtaskState};
use tidemill_protocol::control::CheckpointFigures;
use tidemill_types::{Attempt, CheckpointId, JobGraph, JobId, TaskId, TenantId, config::Config};
use tokio::sync::{mpsc, oneshot};

pub(crate) use checkpoints::Checkpoints;
pub(crate) use execution::Placement;
pub use failure::FailureKind;
pub(crate) use machine::{Action, Machine, TaskReport};
pub use status::{JobStatus, TaskStatus};

/// Events that may wait for a job master. It never blocks, so they hardly ever do.
pub(crate) const EVENTS_MAX: usize = 4_096;

/// What a job was submitted with, and what was made of it. Never changes.
#[derive(Debug)]
pub(crate) struct JobInfo {
    pub(crate) id: JobId,
    pub(crate) tenant: TenantId,
    pub(crate) name: String,
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) module_id: String,
    pub(crate) module_hash: String,
    pub(crate) args: Vec<String>,
    /// What planning was given.
    pub(crate) plan_config: BTreeMap<String, String>,
    /// The settings in force.
    pub(crate) config: Config,
    pub(crate) submitted_ms: i64,
    pub(crate) allow_non_restored: bool,
}

/// A checkpoint to start an attempt from.
#[derive(Debug, Clone)]
pub(crate) struct RestorePoint {
    pub(crate) manifest: Arc<Manifest>,
    /// URI of its directory.
    pub(crate) base: String,
}

/// A job's changing state.
#[derive(Debug)]
pub(crate) struct JobState {
    pub(crate) machine: Machine,
    pub(crate) checkpoints: Checkpoints,
}

impl JobState {
    /// Whether this task of the current attempt was placed with this session: only its words on
    /// the task count.
    pub(crate) fn runs_in(&self, task: TaskId, session: u64) -> bool {
        let placed = self.machine.tasks().task(task.vertex, task.subtask.0);
        task.attempt == self.machine.attempt()
            && placed
                .and_then(|task| task.place.as_ref())
                .is_some_and(|place| place.session == session)
    }

    /// Whether checkpoints may be triggered now: not while tasks start or stop, and not when all
    /// sources have ended, since nobody is left to put a barrier into the streams. The tasks that
    /// remain end soon by themselves.
    pub(crate) fn may_checkpoint(&self) -> bool {
        let tasks = self.machine.tasks();
        let is_source = |vertex: u32| {
            tasks
                .graph
                .vertices
                .get(vertex as usize)
                .is_some_and(|v| v.source.is_some())
        };
        self.machine.all_running()
            && tasks
                .indexed()
                .any(|(vertex, _, task)| is_source(vertex) && !task.status.is_terminal())
    }

    /// Tells the machine whether a checkpoint is being stored. To be called whenever that may have
    /// changed.
    pub(crate) fn note_storing(&mut self, now_ms: i64) -> Vec<Action> {
        let storing = self.checkpoints.coordinator.publishing().is_some();
        self.machine.set_storing(storing, now_ms)
    }
}

/// A job, for whoever wants to read it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) info: JobInfo,
    state: Mutex<JobState>,
}

/// What a job master is told.
#[derive(Debug)]
pub(crate) enum JobEvent {
    /// A worker reports about a task.
    Task {
        /// The session that it came in.
        session: u64,
        report: TaskReport,
        /// Of a task that finished.
        final_state: Option<SubtaskState>,
    },
    /// A task has taken its snapshot.
    Ack {
        /// The session that it came in.
        session: u64,
        task: TaskId,
        checkpoint: CheckpointId,
        state: Box<SubtaskState>,
        figures: CheckpointFigures,
    },
    /// A task cannot take part in a checkpoint.
    Decline {
        /// The session that it came in.
        session: u64,
        task: TaskId,
        checkpoint: CheckpointId,
        reason: String,
    },
    /// The store has answered about the metadata of a checkpoint.
    Stored {
        checkpoint: CheckpointId,
        result: Result<Box<RestorePoint>, String>,
    },
    /// Somebody wants the job to stop.
    Cancel,
    /// Somebody wants a checkpoint now; the answer comes when it is complete or has failed.
    Checkpoint {
        kind: CheckpointKind,
        reply: oneshot::Sender<Result<CheckpointId, String>>,
    },
}

/// Where to reach a job. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct JobHandle {
    job: Arc<Job>,
    events: mpsc::Sender<JobEvent>,
}

impl JobHandle {
    pub(crate) fn new(info: JobInfo, state: JobState) -> (Self, mpsc::Receiver<JobEvent>) {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        (
            Self {
                job: Arc::new(Job {
                    info,
                    state: Mutex::new(state),
                }),
                events,
            },
            inbox,
        )
    }

    /// What never changes.
    pub(crate) fn info(&self) -> &JobInfo {
        &self.job.info
    }

    /// Reads (or, in the master, changes) the state.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut JobState) -> T) -> T {
        f(&mut self.job.state.lock())
    }

    /// The state of the job.
    pub(crate) fn status(&self) -> JobStatus {
        self.with(|state| state.machine.status())
    }

    /// Whether an attempt is over for good.
    pub(crate) fn is_stale(&self, attempt: Attempt) -> bool {
        self.with(|state| {
            state.machine.status().is_terminal() || attempt != state.machine.attempt()
        })
    }

    /// Tells the master something. Nothing happens if the job is over.
    pub(crate) async fn send(&self, event: JobEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!(job = %self.job.info.id, "the job is over; an event is dropped");
        }
    }

    /// Notes a task's latest figures.
    pub(crate) fn report_metrics(&self, task: TaskId, metrics: BTreeMap<String, f64>) {
        self.with(|state| {
            if state.machine.attempt() == task.attempt
                && let Some(execution) = state
                    .machine
                    .tasks_mut()
                    .task_mut(task.vertex, task.subtask.0)
            {
                execution.metrics = metrics;
            }
        });
    }
}
