//! The task that owns a job.
//!
//! It hears events, asks the pure parts what to do, and does it: slots, deployments, barriers,
//! metadata. It never waits for anything but the next event; whatever takes time runs beside it and
//! reports back as an event.

mod checkpointing;

use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use tidemill_checkpoint::SubtaskState;
use tidemill_protocol::control::{CancelTasks, coordinator_message::Kind};
use tidemill_types::{SubtaskIndex, TaskId, config::keys};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{
    JobEvent, JobHandle, JobState, TaskReport, TaskStatus,
    checkpoint_stats::Restored,
    deploy,
    failure::{Failure, FailureKind},
    machine::Action,
};
use crate::{
    blobs::BlobLease,
    clock::{Clock, millis},
    workers::Workers,
};

/// How long workers may take to stop the tasks of an attempt before it is fenced off. A guest that
/// is interrupted stops within a call's time limit, whose default this is.
const CANCEL_TIMEOUT_MS: i64 = 30_000;

/// What a master works with.
pub(crate) struct Surroundings {
    pub(crate) workers: Arc<Workers>,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// The owner of a job.
pub(crate) struct JobMaster {
    handle: JobHandle,
    inbox: mpsc::Receiver<JobEvent>,
    around: Surroundings,
    changes: watch::Receiver<u64>,
    /// Keeps the module's copy while the job lives.
    _module: BlobLease,
    /// Slots that are being waited for, and until when.
    wanted: Option<(u32, i64)>,
    restart_at_ms: Option<i64>,
    cancel_deadline_ms: Option<i64>,
}

impl JobMaster {
    /// Starts a job.
    pub(crate) fn spawn(
        handle: JobHandle,
        inbox: mpsc::Receiver<JobEvent>,
        module: BlobLease,
        around: Surroundings,
        ended: impl FnOnce() + Send + 'static,
    ) {
        let changes = around.workers.changes();
        let tasks = around.tasks.clone();
        let now_ms = around.clock.now_ms();
        let span = tracing::info_span!("job", id = %handle.info().id);
        let master = Self {
            handle,
            inbox,
            around,
            changes,
            _module: module,
            wanted: None,
            restart_at_ms: None,
            cancel_deadline_ms: None,
        };
        tasks.spawn(
            async move {
                let (handle, workers) = (master.handle.clone(), Arc::clone(&master.around.workers));
                if AssertUnwindSafe(master.run()).catch_unwind().await.is_err() {
                    tracing::error!("the job's master panicked: this is a bug; the job is failed");
                    handle.with(|state| state.machine.give_up(now_ms));
                    workers.release(handle.info().id);
                }
                ended();
            }
            .instrument(span),
        );
    }

    async fn run(mut self) {
        let now_ms = self.around.clock.now_ms();
        tracing::info!(name = self.handle.info().name, "job starts");
        let actions = self.handle.with(|state| state.machine.start(now_ms));
        self.act(actions);
        while !self.is_over() {
            let wakeup = self.around.clock.instant_of(self.next_wakeup_ms());
            tokio::select! {
                () = self.around.shutdown.cancelled() => return self.leave(),
                event = self.inbox.recv() => match event {
                    Some(event) => self.handle_event(event),
                    None => return self.leave(),
                },
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return self.leave();
                    }
                    self.look_at_workers();
                }
                () = tokio::time::sleep_until(wakeup) => {}
            }
            self.on_time();
        }
        self.clean_up().await;
    }

    fn is_over(&self) -> bool {
        self.handle.status().is_terminal()
    }

    /// The coordinator goes away: tasks are stopped, checkpoints stay.
    fn leave(&self) {
        self.send_to_all(|job, attempt| Kind::CancelTasks(CancelTasks { job, attempt }));
        self.around.workers.release(self.handle.info().id);
    }

    fn now_ms(&self) -> i64 {
        self.around.clock.now_ms()
    }

    fn next_wakeup_ms(&self) -> i64 {
        let checkpoint = self.handle.with(|state| {
            state
                .may_checkpoint()
                .then(|| state.checkpoints.coordinator.next_wakeup())
                .flatten()
        });
        let checkpoint = checkpoint.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let slots = self.wanted.map(|(_, deadline)| deadline);
        [
            checkpoint,
            slots,
            self.restart_at_ms,
            self.cancel_deadline_ms,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(i64::MAX)
    }

    fn on_time(&mut self) {
        let now_ms = self.now_ms();
        if self.restart_at_ms.is_some_and(|at| at <= now_ms) {
            self.restart_at_ms = None;
            let actions = self.handle.with(|state| state.machine.restart_due(now_ms));
            self.act(actions);
        }
        if self.cancel_deadline_ms.is_some_and(|at| at <= now_ms) {
            self.cancel_deadline_ms = None;
            tracing::warn!("some tasks did not stop in time, their attempt is fenced off");
            let actions = self
                .handle
                .with(|state| state.machine.cancel_overdue(now_ms));
            self.act(actions);
        }
        if let Some((count, deadline_ms)) = self.wanted
            && deadline_ms <= now_ms
        {
            self.slots_missing(count, now_ms);
        }
        let decisions = self.handle.with(|state| match state.may_checkpoint() {
            true => state.checkpoints.coordinator.tick(unsigned(now_ms)),
            false => Vec::new(),
        });
        self.decide(decisions);
    }

    fn slots_missing(&mut self, count: u32, now_ms: i64) {
        self.wanted = None;
        let (total, free) = self.around.workers.slots();
        let cause = format!(
            "the job needs {count} slots, and within slot.request.timeout there were not enough \
             ({free} of {total} are free): start more workers or lower the parallelism"
        );
        let actions = self
            .handle
            .with(|state| state.machine.slots_missing(cause, now_ms));
        self.act(actions);
    }

    /// Workers came or went, or slots became free.
    fn look_at_workers(&mut self) {
        let now_ms = self.now_ms();
        for (worker, session) in self.targets(|_, status| status.is_on_worker()) {
            if !self.around.workers.is_current(&worker, session) {
                tracing::warn!(%worker, "a worker of this job is lost");
                let lost =
                    |state: &mut JobState| state.machine.worker_lost(&worker, session, now_ms);
                let actions = self.handle.with(lost);
                self.act(actions);
            }
        }
        self.try_slots();
    }

    fn try_slots(&mut self) {
        let Some((count, _)) = self.wanted else {
            return;
        };
        if let Some(slots) = self.around.workers.allocate(self.handle.info().id, count) {
            self.wanted = None;
            let now_ms = self.now_ms();
            let actions = self
                .handle
                .with(|state| state.machine.slots_granted(&slots, now_ms));
            self.act(actions);
        }
    }

    fn handle_event(&mut self, event: JobEvent) {
        let now_ms = self.now_ms();
        match event {
            JobEvent::Task {
                session,
                report,
                final_state,
            } => self.on_report(session, report, final_state),
            JobEvent::Ack { session, task, .. } | JobEvent::Decline { session, task, .. }
                if !self.handle.with(|state| state.runs_in(task, session)) =>
            {
                tracing::warn!(%task, "a word on a checkpoint from elsewhere is dropped");
            }
            JobEvent::Ack {
                task,
                checkpoint,
                state,
                figures,
                ..
            } => {
                self.on_ack(task, checkpoint, *state, figures);
            }
            JobEvent::Decline {
                task,
                checkpoint,
                reason,
                ..
            } => {
                let decisions = self.handle.with(|state| {
                    let now = unsigned(now_ms);
                    state
                        .checkpoints
                        .coordinator
                        .decline(task, checkpoint, &reason, now)
                });
                self.decide(decisions);
            }
            JobEvent::Stored { checkpoint, result } => self.on_stored(checkpoint, result),
            JobEvent::Cancel => {
                tracing::info!("job is cancelled on request");
                let actions = self.handle.with(|state| state.machine.cancel(now_ms));
                self.act(actions);
            }
            JobEvent::Checkpoint { kind, reply } => self.on_request(kind, reply),
        }
    }

    fn on_report(&mut self, session: u64, report: TaskReport, final_state: Option<SubtaskState>) {
        let now_ms = self.now_ms();
        let id = self.task_id(report.vertex, report.subtask);
        let (actions, decisions) = self.handle.with(|state| {
            let reported = TaskId {
                attempt: report.attempt,
                ..id
            };
            if !state.runs_in(reported, session) {
                return (Vec::new(), Vec::new());
            }
            let decisions = match report.status {
                TaskStatus::Running => {
                    state.checkpoints.coordinator.task_running(id);
                    Vec::new()
                }
                TaskStatus::Finished => {
                    let graph = &self.handle.info().graph;
                    let last = final_state.unwrap_or_else(|| {
                        state
                            .checkpoints
                            .last_state(graph, report.vertex, report.subtask)
                    });
                    state.checkpoints.coordinator.task_finished(id, &last)
                }
                _ => Vec::new(),
            };
            if report.status == TaskStatus::Failed {
                tracing::warn!(task = %id, cause = report.cause, "task failed");
            }
            let mut actions = state.note_storing(now_ms);
            actions.extend(state.machine.task_reported(report, now_ms));
            (actions, decisions)
        });
        self.decide(decisions);
        self.act(actions);
    }

    /// Carries out what the machine asks for.
    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::RequestSlots(count) => {
                    let timeout =
                        millis(self.handle.info().config.get(&keys::SLOT_REQUEST_TIMEOUT));
                    self.cancel_deadline_ms = None;
                    self.wanted = Some((count, self.now_ms().saturating_add(timeout)));
                    self.try_slots();
                }
                Action::WithdrawRequest => self.wanted = None,
                Action::Deploy => self.deploy(),
                Action::AllRunning => tracing::info!("all tasks run"),
                Action::StopCheckpoints => {
                    let decisions = self.handle.with(|state| {
                        state
                            .checkpoints
                            .coordinator
                            .abort_all("the attempt is over")
                    });
                    self.decide(decisions);
                }
                Action::CancelTasks => {
                    self.cancel_deadline_ms = Some(self.now_ms().saturating_add(CANCEL_TIMEOUT_MS));
                    self.send_to_all(|job, attempt| {
                        Kind::CancelTasks(CancelTasks { job, attempt })
                    });
                }
                Action::ScheduleRestart(delay_ms) => {
                    tracing::info!(delay_ms, "job will be restarted");
                    self.restart_at_ms = Some(self.now_ms().saturating_add(delay_ms));
                }
                Action::ReleaseSlots => self.around.workers.release(self.handle.info().id),
                Action::End(status) => {
                    self.restart_at_ms = None;
                    self.cancel_deadline_ms = None;
                    tracing::info!(status = status.as_str(), "job is over");
                }
            }
        }
    }

    fn deploy(&mut self) {
        let now_ms = self.now_ms();
        let info = self.handle.info();
        let deployments = self.handle.with(|state| {
            let attempt = state.machine.attempt();
            let tasks: Vec<TaskId> = state
                .machine
                .tasks()
                .indexed()
                .map(|(vertex, subtask, _)| TaskId {
                    job: info.id,
                    attempt,
                    vertex,
                    subtask: SubtaskIndex(subtask),
                })
                .collect();
            state
                .checkpoints
                .coordinator
                .restart(tasks, unsigned(now_ms))
                .expect("no attempt begins while metadata is being stored");
            if let Some(newest) = &state.checkpoints.newest {
                state.checkpoints.stats.restored(Restored {
                    id: newest.manifest.checkpoint,
                    at_ms: now_ms,
                    savepoint: newest.manifest.savepoint,
                    path: newest.base.clone(),
                });
            }
            deploy::deployments(info, state)
        });
        match deployments {
            Ok(messages) => {
                for ((worker, session), message) in messages {
                    // A worker that is gone meanwhile is noticed as lost.
                    self.around
                        .workers
                        .send(&worker, session, Kind::Deploy(message));
                }
                self.look_at_workers();
            }
            Err(error) => {
                let failure = Failure::new(FailureKind::Restore, error.to_string(), now_ms);
                let actions = self
                    .handle
                    .with(|state| state.machine.fail(failure, true, now_ms));
                self.act(actions);
            }
        }
    }

    fn task_id(&self, vertex: u32, subtask: u32) -> TaskId {
        let attempt = self.handle.with(|state| state.machine.attempt());
        TaskId {
            job: self.handle.info().id,
            attempt,
            vertex,
            subtask: SubtaskIndex(subtask),
        }
    }

    /// The sessions that have tasks for which `pick` holds.
    fn targets(&self, pick: impl Fn(u32, TaskStatus) -> bool) -> BTreeSet<deploy::Target> {
        self.handle.with(|state| {
            let tasks = state.machine.tasks().indexed();
            tasks
                .filter(|(vertex, _, task)| pick(*vertex, task.status))
                .filter_map(|(_, _, task)| task.place.as_ref())
                .map(|place| (place.worker.clone(), place.session))
                .collect()
        })
    }

    /// Sends a message about the attempt to every worker that has, or had, tasks of it.
    fn send_to_all(&self, message: impl Fn(String, u32) -> Kind) {
        let job = self.handle.info().id.to_string();
        let attempt = self.handle.with(|state| state.machine.attempt().0);
        for (worker, session) in self.targets(|_, _| true) {
            self.around
                .workers
                .send(&worker, session, message(job.clone(), attempt));
        }
    }
}

/// The checkpoint protocol counts time without a sign.
fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
