//! The life of a job as pure decisions: facts in, actions out; no I/O, no clock.
//!
//! # Invariants
//!
//! 1. A job in a terminal state never leaves it and asks for nothing more.
//! 2. A new attempt starts only when every task of the one before is over: ended, or on a worker
//!    that is gone, or silent for so long that its attempt is fenced.
//! 3. No attempt starts and no job ends while a checkpoint is being stored, so that it is known
//!    which one is the newest.
//! 4. Facts about another attempt than the current one change nothing.
//! 5. [`Action::End`] is issued exactly once.

use tidemill_types::{Attempt, WorkerId};

use super::{
    execution::{Execution, ExecutionGraph, Placement},
    failure::{Failure, FailureHistory, FailureKind},
    restart::{RestartDecision, RestartPolicy},
    status::{JobStatus, TaskStatus},
};

/// What the job master must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Get this many slots, and tell the machine with [`Machine::slots_granted`].
    RequestSlots(u32),
    /// Stop asking for slots.
    WithdrawRequest,
    /// Send the tasks to their workers.
    Deploy,
    /// Every task runs (or has ended already): checkpoints may begin.
    AllRunning,
    /// The attempt is over: no more checkpoints of it.
    StopCheckpoints,
    /// Ask the workers to stop the tasks of the attempt, and call
    /// [`Machine::cancel_overdue`] if they take too long.
    CancelTasks,
    /// Call [`Machine::restart_due`] after this many milliseconds.
    ScheduleRestart(i64),
    /// Give the slots back.
    ReleaseSlots,
    /// The job is over.
    End(JobStatus),
}

/// What a worker says about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskReport {
    pub(crate) attempt: Attempt,
    pub(crate) vertex: u32,
    pub(crate) subtask: u32,
    pub(crate) status: TaskStatus,
    /// For failures.
    pub(crate) cause: String,
    /// A restart cannot help.
    pub(crate) unrecoverable: bool,
}

/// The state of a job.
#[derive(Debug)]
pub(crate) struct Machine {
    status: JobStatus,
    entered: [i64; JobStatus::ALL.len()],
    attempt: Attempt,
    tasks: ExecutionGraph,
    policy: RestartPolicy,
    failures: FailureHistory,
    /// Why the job fails or failed for good.
    cause: Option<Failure>,
    restarts: u64,
    restart_due: bool,
    all_running: bool,
    /// The metadata of a checkpoint is on its way to the store.
    storing: bool,
}

impl Machine {
    /// A job that has been accepted.
    pub(crate) fn new(
        tasks: ExecutionGraph,
        policy: RestartPolicy,
        failures_max: usize,
        submitted_ms: i64,
        now_ms: i64,
    ) -> Self {
        let mut entered = [0; JobStatus::ALL.len()];
        entered[JobStatus::Initializing.index()] = submitted_ms;
        entered[JobStatus::Created.index()] = now_ms;
        Self {
            status: JobStatus::Created,
            entered,
            attempt: Attempt(0),
            tasks,
            policy,
            failures: FailureHistory::new(failures_max),
            cause: None,
            restarts: 0,
            restart_due: false,
            all_running: false,
            storing: false,
        }
    }

    pub(crate) const fn status(&self) -> JobStatus {
        self.status
    }

    /// When the job entered a state last; 0 if never.
    pub(crate) const fn entered_ms(&self, status: JobStatus) -> i64 {
        self.entered[status.index()]
    }

    pub(crate) const fn attempt(&self) -> Attempt {
        self.attempt
    }

    pub(crate) const fn tasks(&self) -> &ExecutionGraph {
        &self.tasks
    }

    pub(crate) const fn tasks_mut(&mut self) -> &mut ExecutionGraph {
        &mut self.tasks
    }

    pub(crate) const fn failures(&self) -> &FailureHistory {
        &self.failures
    }

    pub(crate) const fn cause(&self) -> Option<&Failure> {
        self.cause.as_ref()
    }

    pub(crate) const fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(crate) const fn policy(&self) -> &RestartPolicy {
        &self.policy
    }

    /// Whether the job runs, and every task of the attempt runs or has ended by itself.
    pub(crate) const fn all_running(&self) -> bool {
        self.all_running && matches!(self.status, JobStatus::Running)
    }

    /// The master is gone without having ended the job: nobody looks after it any more.
    pub(crate) fn give_up(&mut self, now_ms: i64) {
        if !self.status.is_terminal() {
            let cause = "the coordinator has a bug and lost this job; its log says more";
            self.cause = Some(Failure::new(FailureKind::Bug, cause, now_ms));
            self.enter(JobStatus::Failed, now_ms);
        }
    }

    /// Begins the first attempt.
    pub(crate) fn start(&mut self, now_ms: i64) -> Vec<Action> {
        assert_eq!(self.status, JobStatus::Created, "a job starts once");
        self.schedule(now_ms)
    }

    fn schedule(&mut self, now_ms: i64) -> Vec<Action> {
        self.all_running = false;
        self.enter(JobStatus::Running, now_ms);
        for task in self.tasks.all_mut() {
            task.enter(TaskStatus::Scheduled, now_ms);
        }
        vec![Action::RequestSlots(self.tasks.slots_needed())]
    }

    /// The requested slots are there.
    pub(crate) fn slots_granted(&mut self, slots: &[Placement], now_ms: i64) -> Vec<Action> {
        if self.status != JobStatus::Running {
            return vec![Action::ReleaseSlots];
        }
        self.tasks.place(slots, now_ms);
        vec![Action::Deploy]
    }

    /// The requested slots did not come in time.
    pub(crate) fn slots_missing(&mut self, cause: String, now_ms: i64) -> Vec<Action> {
        let mut actions = vec![Action::ReleaseSlots];
        actions.extend(self.fail(
            Failure::new(FailureKind::NoSlots, cause, now_ms),
            false,
            now_ms,
        ));
        actions
    }

    /// A worker reports about a task.
    pub(crate) fn task_reported(&mut self, report: TaskReport, now_ms: i64) -> Vec<Action> {
        if report.attempt != self.attempt || self.status.is_terminal() {
            return Vec::new();
        }
        let Some(task) = self.tasks.task_mut(report.vertex, report.subtask) else {
            return Vec::new();
        };
        if task.status.is_terminal() || !task.status.is_on_worker() {
            return Vec::new();
        }
        let stopping = task.status == TaskStatus::Canceling;
        if stopping && !report.status.is_terminal() {
            return Vec::new();
        }
        task.enter(report.status, now_ms);
        match report.status {
            TaskStatus::Failed => self.task_failed(report, now_ms),
            // Nobody asked it to stop: it takes the attempt with it.
            TaskStatus::Canceled if !stopping => {
                let report = TaskReport {
                    cause: "the worker stopped the task".into(),
                    ..report
                };
                self.task_failed(report, now_ms)
            }
            _ if self.status == JobStatus::Running => self.progress(now_ms),
            _ => self.after_stop(now_ms),
        }
    }

    fn task_failed(&mut self, report: TaskReport, now_ms: i64) -> Vec<Action> {
        let mut failure = Failure::new(FailureKind::Task, report.cause, now_ms);
        failure.task = Some(self.tasks.task_name(report.vertex, report.subtask));
        failure.worker = self
            .tasks
            .task(report.vertex, report.subtask)
            .and_then(|task| task.place.as_ref())
            .map(|place| (place.worker.clone(), place.data_address.clone()));
        self.fail(failure, report.unrecoverable, now_ms)
    }

    /// A worker's session ended: all of its tasks are gone.
    pub(crate) fn worker_lost(
        &mut self,
        worker: &WorkerId,
        session: u64,
        now_ms: i64,
    ) -> Vec<Action> {
        let mut address = None;
        for task in self
            .tasks
            .all_mut()
            .filter(|task| task.status.is_on_worker())
        {
            if let Some(place) = task.place.as_ref().filter(|place| place.session == session) {
                address = Some(place.data_address.clone());
                let stopping = task.status == TaskStatus::Canceling;
                task.enter(
                    if stopping {
                        TaskStatus::Canceled
                    } else {
                        TaskStatus::Failed
                    },
                    now_ms,
                );
            }
        }
        let Some(address) = address else {
            return Vec::new();
        };
        let cause =
            format!("worker {worker} is lost: its connection ended or it was silent for too long");
        let mut failure = Failure::new(FailureKind::WorkerLost, cause, now_ms);
        failure.worker = Some((worker.clone(), address));
        self.fail(failure, false, now_ms)
    }

    /// Something that concerns the whole job failed.
    pub(crate) fn fail(
        &mut self,
        failure: Failure,
        unrecoverable: bool,
        now_ms: i64,
    ) -> Vec<Action> {
        match self.status {
            JobStatus::Created | JobStatus::Running => {}
            JobStatus::Restarting if unrecoverable => {
                self.cause = Some(failure.clone());
                self.failures.push_concurrent(failure);
                self.enter(JobStatus::Failing, now_ms);
                return self.after_stop(now_ms);
            }
            JobStatus::Restarting | JobStatus::Failing => {
                self.failures.push_concurrent(failure);
                return self.after_stop(now_ms);
            }
            JobStatus::Cancelling => return self.after_stop(now_ms),
            _ => return Vec::new(),
        }
        let decision = if unrecoverable {
            RestartDecision::GiveUp("a restart cannot help".into())
        } else {
            self.policy.on_failure(now_ms)
        };
        self.failures.push(failure.clone());
        self.restart_due = false;
        let mut actions = Vec::new();
        match decision {
            RestartDecision::After(delay_ms) => {
                self.enter(JobStatus::Restarting, now_ms);
                actions.push(Action::ScheduleRestart(delay_ms));
            }
            RestartDecision::GiveUp(_) => {
                self.cause = Some(failure);
                self.enter(JobStatus::Failing, now_ms);
            }
        }
        actions.extend(self.stop_tasks(now_ms));
        actions
    }

    /// Somebody wants the job to stop.
    pub(crate) fn cancel(&mut self, now_ms: i64) -> Vec<Action> {
        match self.status {
            JobStatus::Created | JobStatus::Running | JobStatus::Restarting => {
                self.enter(JobStatus::Cancelling, now_ms);
                self.stop_tasks(now_ms)
            }
            _ => Vec::new(),
        }
    }

    /// The delay before the next attempt is over.
    pub(crate) fn restart_due(&mut self, now_ms: i64) -> Vec<Action> {
        if self.status != JobStatus::Restarting {
            return Vec::new();
        }
        self.restart_due = true;
        self.after_stop(now_ms)
    }

    /// Workers took too long to stop the tasks of the attempt: it counts as stopped. Whatever
    /// still runs belongs to an old attempt, from which nothing is accepted.
    pub(crate) fn cancel_overdue(&mut self, now_ms: i64) -> Vec<Action> {
        if self.status.is_terminal() || self.status == JobStatus::Running {
            return Vec::new();
        }
        for task in self
            .tasks
            .all_mut()
            .filter(|task| !task.status.is_terminal())
        {
            task.enter(TaskStatus::Canceled, now_ms);
        }
        self.after_stop(now_ms)
    }

    /// Whether the metadata of a checkpoint is being stored at the moment.
    pub(crate) fn set_storing(&mut self, storing: bool, now_ms: i64) -> Vec<Action> {
        self.storing = storing;
        match self.status {
            _ if storing => Vec::new(),
            JobStatus::Running => self.progress(now_ms),
            _ => self.after_stop(now_ms),
        }
    }

    fn stop_tasks(&mut self, now_ms: i64) -> Vec<Action> {
        let mut actions = vec![Action::WithdrawRequest, Action::StopCheckpoints];
        let mut running = false;
        for task in self
            .tasks
            .all_mut()
            .filter(|task| !task.status.is_terminal())
        {
            if task.status.is_on_worker() {
                task.enter(TaskStatus::Canceling, now_ms);
                running = true;
            } else {
                task.enter(TaskStatus::Canceled, now_ms);
            }
        }
        if running {
            actions.push(Action::CancelTasks);
        }
        actions.extend(self.after_stop(now_ms));
        actions
    }

    fn progress(&mut self, now_ms: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        let going = |status| matches!(status, TaskStatus::Running | TaskStatus::Finished);
        if !self.all_running && self.tasks.all().all(|task| going(task.status)) {
            self.all_running = true;
            actions.push(Action::AllRunning);
        }
        let finished = |task: &Execution| task.status == TaskStatus::Finished;
        if !self.storing && self.tasks.all().all(finished) {
            actions.push(Action::StopCheckpoints);
            actions.extend(self.end(JobStatus::Finished, now_ms));
        }
        actions
    }

    /// What comes when all tasks have stopped.
    fn after_stop(&mut self, now_ms: i64) -> Vec<Action> {
        if self.storing || !self.tasks.all().all(|task| task.status.is_terminal()) {
            return Vec::new();
        }
        match self.status {
            JobStatus::Cancelling => self.end(JobStatus::Canceled, now_ms),
            JobStatus::Failing => self.end(JobStatus::Failed, now_ms),
            JobStatus::Restarting if self.restart_due => {
                self.restart_due = false;
                self.attempt = self.attempt.next();
                self.restarts += 1;
                self.tasks.reset(now_ms);
                self.schedule(now_ms)
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self, status: JobStatus, now_ms: i64) -> Vec<Action> {
        assert!(
            status.is_terminal() && !self.status.is_terminal(),
            "a job ends once"
        );
        self.enter(status, now_ms);
        vec![Action::ReleaseSlots, Action::End(status)]
    }

    const fn enter(&mut self, status: JobStatus, now_ms: i64) {
        self.status = status;
        self.entered[status.index()] = now_ms;
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
