//! The coordinator's half: facts in, decisions out.
//!
//! One [`CheckpointCoordinator`] lives as long as its job; [`CheckpointCoordinator::restart`] gives
//! it the tasks of the next attempt. Its driver reports what happened, carries out the decisions in
//! order, and calls [`CheckpointCoordinator::tick`] at [`CheckpointCoordinator::next_wakeup`].
//! Time is milliseconds of any clock that never goes back.
//!
//! The driver sees to it that the reports of one task arrive in the order in which they were made,
//! and that a task of which one may have been lost counts as failed. Otherwise a task that has
//! finished could stand with its last state for a checkpoint whose barrier it had sent before.
//!
//! # Invariants
//!
//! 1. A checkpoint is triggered only while every task is running or finished.
//! 2. A [`PublishPermit`] exists only when every task has acknowledged, once each; a task that has
//!    finished acknowledges with its final state.
//! 3. Once a permit was given, only the answer of the store decides: no time-out, no decline and no
//!    failed task aborts what may already be durable.
//! 4. Numbers of checkpoints ascend, across attempts too, and completed ones complete in order.
//! 5. Every triggered checkpoint ends in exactly one of: complete, aborted.
//! 6. What is to be discarded was subsumed by a newer completed checkpoint; the newest completed one
//!    is never discarded, and savepoints never are (they belong to the user).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use tidemill_types::{CheckpointId, TaskId};

use crate::subtask::SubtaskState;

mod decision;

pub use decision::{
    CheckpointKind, CheckpointSettings, Decision, PublishPermit, StillPublishing, TriggerRefused,
};

#[derive(Debug)]
enum TaskStatus {
    Starting,
    Running,
    Finished(SubtaskState),
}

#[derive(Debug)]
struct Pending {
    kind: CheckpointKind,
    deadline: u64,
    acked: HashMap<TaskId, SubtaskState>,
}

/// Decides about the checkpoints of one job.
#[derive(Debug)]
pub struct CheckpointCoordinator {
    settings: CheckpointSettings,
    tasks: BTreeMap<TaskId, TaskStatus>,
    starting: usize,
    next_id: CheckpointId,
    pending: BTreeMap<CheckpointId, Pending>,
    /// Permits whose fate is open.
    publishing: BTreeMap<CheckpointId, CheckpointKind>,
    /// Completed checkpoints that are kept, oldest first.
    completed: VecDeque<CheckpointId>,
    newest_completed: Option<CheckpointId>,
    failures_in_row: u32,
    next_periodic: Option<u64>,
    /// When the last one ended, for the minimum pause.
    last_end: Option<u64>,
}

impl CheckpointCoordinator {
    /// A coordinator for a job that starts now with these tasks; checkpoints are numbered from
    /// `first`.
    #[must_use]
    pub fn new(
        settings: CheckpointSettings,
        tasks: impl IntoIterator<Item = TaskId>,
        first: CheckpointId,
        now: u64,
    ) -> Self {
        let mut coordinator = Self {
            settings,
            tasks: BTreeMap::new(),
            starting: 0,
            next_id: first,
            pending: BTreeMap::new(),
            publishing: BTreeMap::new(),
            completed: VecDeque::new(),
            newest_completed: None,
            failures_in_row: 0,
            next_periodic: None,
            last_end: None,
        };
        coordinator.adopt(tasks, now);
        coordinator
    }

    /// Makes known completed checkpoints of earlier lives, oldest first, so that they are discarded
    /// in their turn. Numbers go on after them.
    #[must_use]
    pub fn with_completed(mut self, completed: impl IntoIterator<Item = CheckpointId>) -> Self {
        for id in completed {
            if self.newest_completed.is_none_or(|newest| newest < id) {
                self.completed.push_back(id);
                self.newest_completed = Some(id);
                self.next_id = self.next_id.max(id.next());
            }
        }
        self
    }

    /// Starts over with the tasks of the next attempt. Call [`CheckpointCoordinator::abort_all`]
    /// first, and wait until nothing is being stored: the next attempt must know what it starts
    /// from.
    ///
    /// # Errors
    ///
    /// [`StillPublishing`] when the store has not answered yet.
    ///
    /// # Panics
    ///
    /// If checkpoints are still pending.
    pub fn restart(
        &mut self,
        tasks: impl IntoIterator<Item = TaskId>,
        now: u64,
    ) -> Result<(), StillPublishing> {
        assert!(
            self.pending.is_empty(),
            "pending checkpoints are aborted before a restart"
        );
        if let Some(&checkpoint) = self.publishing.keys().next() {
            return Err(StillPublishing(checkpoint));
        }
        self.adopt(tasks, now);
        Ok(())
    }

    fn adopt(&mut self, tasks: impl IntoIterator<Item = TaskId>, now: u64) {
        self.tasks = tasks
            .into_iter()
            .map(|task| (task, TaskStatus::Starting))
            .collect();
        self.starting = self.tasks.len();
        self.failures_in_row = 0;
        self.next_periodic = self
            .settings
            .interval_ms
            .map(|interval| now.saturating_add(interval));
    }

    /// The newest completed checkpoint: what to recover from.
    #[must_use]
    pub const fn newest_completed(&self) -> Option<CheckpointId> {
        self.newest_completed
    }

    /// The checkpoint whose fate the store decides at the moment, if any.
    #[must_use]
    pub fn publishing(&self) -> Option<CheckpointId> {
        self.publishing.keys().next().copied()
    }

    /// The checkpoints that wait for tasks, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = CheckpointId> {
        self.pending.keys().copied()
    }

    /// When [`CheckpointCoordinator::tick`] is to be called next.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<u64> {
        let deadline = self.pending.values().map(|p| p.deadline).min();
        let periodic = if self.may_trigger().is_ok() {
            self.periodic_due()
        } else {
            None
        };
        [deadline, periodic].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: u64) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let late: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, p)| p.deadline <= now)
            .map(|(&id, _)| id)
            .collect();
        for checkpoint in late {
            let reason = self.expiry_reason(checkpoint);
            self.fail(checkpoint, reason, now, &mut decisions);
        }
        if self.may_trigger().is_ok() && self.periodic_due().is_some_and(|due| due <= now) {
            self.trigger(CheckpointKind::Checkpoint, now, &mut decisions);
        }
        decisions
    }

    /// Somebody asks for a checkpoint or a savepoint now, whatever the interval.
    ///
    /// # Errors
    ///
    /// [`TriggerRefused`] when it cannot be taken.
    pub fn request(
        &mut self,
        kind: CheckpointKind,
        now: u64,
    ) -> Result<(CheckpointId, Vec<Decision>), TriggerRefused> {
        match self.may_trigger() {
            // A savepoint may overtake: it does not take the place of a periodic checkpoint.
            Err(TriggerRefused::Busy) if kind.is_savepoint() && !self.is_stopping() => {}
            other => other?,
        }
        let mut decisions = Vec::new();
        let checkpoint = self.trigger(kind, now, &mut decisions);
        Ok((checkpoint, decisions))
    }

    /// A task is up.
    pub fn task_running(&mut self, task: TaskId) {
        if let Some(status @ TaskStatus::Starting) = self.tasks.get_mut(&task) {
            *status = TaskStatus::Running;
            self.starting -= 1;
        }
    }

    /// A task has finished with this state. It stands for the task in pending checkpoints that it
    /// has not acknowledged, and in all later ones.
    pub fn task_finished(&mut self, task: TaskId, last: &SubtaskState) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let Some(status) = self.tasks.get_mut(&task) else {
            return decisions;
        };
        match status {
            TaskStatus::Finished(_) => return decisions,
            TaskStatus::Starting => self.starting -= 1,
            TaskStatus::Running => {}
        }
        *status = TaskStatus::Finished(last.clone());
        for pending in self.pending.values_mut() {
            pending.acked.entry(task).or_insert_with(|| last.clone());
        }
        self.publish_what_is_complete(&mut decisions);
        decisions
    }

    /// A task has taken its snapshot. Late, repeated and foreign acknowledgements change nothing.
    pub fn ack(
        &mut self,
        task: TaskId,
        checkpoint: CheckpointId,
        state: SubtaskState,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if !self.tasks.contains_key(&task) {
            return decisions;
        }
        if let Some(pending) = self.pending.get_mut(&checkpoint) {
            pending.acked.entry(task).or_insert(state);
            self.publish_what_is_complete(&mut decisions);
        }
        decisions
    }

    /// A task cannot take part.
    pub fn decline(
        &mut self,
        task: TaskId,
        checkpoint: CheckpointId,
        reason: &str,
        now: u64,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if self.tasks.contains_key(&task) && self.pending.contains_key(&checkpoint) {
            let reason = format!("task {task} declined: {reason}");
            self.fail(checkpoint, reason, now, &mut decisions);
        }
        decisions
    }

    /// The manifest is durable.
    pub fn stored(&mut self, checkpoint: CheckpointId, now: u64) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let Some(kind) = self.publishing.remove(&checkpoint) else {
            return decisions;
        };
        self.failures_in_row = 0;
        self.last_end = Some(now);
        if kind.is_recovery_point() {
            assert!(
                self.newest_completed
                    .is_none_or(|newest| newest < checkpoint),
                "checkpoint {checkpoint} completes after {:?}",
                self.newest_completed
            );
            self.newest_completed = Some(checkpoint);
            decisions.push(Decision::NotifyComplete { checkpoint });
            self.abort_older(checkpoint, &mut decisions);
        }
        if !kind.is_savepoint() {
            self.completed.push_back(checkpoint);
            while self.completed.len() > self.settings.retained.max(1) as usize {
                let checkpoint = self.completed.pop_front().expect("more than one is kept");
                decisions.push(Decision::Discard { checkpoint });
            }
        }
        self.publish_what_is_complete(&mut decisions);
        decisions
    }

    /// The manifest could not be stored, **and never will be**: the store has refused it, or the
    /// driver has made sure that it is not there.
    pub fn store_failed(
        &mut self,
        checkpoint: CheckpointId,
        reason: &str,
        now: u64,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if let Some(kind) = self.publishing.remove(&checkpoint) {
            let reason = format!("its metadata could not be stored: {reason}");
            self.aborted((checkpoint, kind), reason, now, &mut decisions);
            self.publish_what_is_complete(&mut decisions);
        }
        decisions
    }

    /// Gives up what waits for tasks, since they are gone: the job fails, restarts or is cancelled.
    /// That is no failure of the checkpoints. What is being stored goes on.
    pub fn abort_all(&mut self, reason: &str) -> Vec<Decision> {
        std::mem::take(&mut self.pending)
            .into_keys()
            .map(|checkpoint| Decision::NotifyAborted {
                checkpoint,
                reason: reason.to_owned(),
            })
            .collect()
    }

    fn periodic_due(&self) -> Option<u64> {
        let earliest = self
            .last_end
            .map_or(0, |end| end.saturating_add(self.settings.min_pause_ms));
        self.next_periodic.map(|due| due.max(earliest))
    }

    fn may_trigger(&self) -> Result<(), TriggerRefused> {
        if self.starting > 0 {
            return Err(TriggerRefused::NotRunning);
        }
        if !self
            .tasks
            .values()
            .any(|status| matches!(status, TaskStatus::Running))
        {
            return Err(TriggerRefused::Finished);
        }
        if self.is_stopping() {
            return Err(TriggerRefused::Busy);
        }
        let allowed = if self.settings.min_pause_ms > 0 {
            1
        } else {
            self.settings.max_concurrent.max(1)
        };
        if self.pending.len() + self.publishing.len() >= allowed as usize {
            return Err(TriggerRefused::Busy);
        }
        Ok(())
    }

    /// Whether a savepoint is under way after which there will be nothing more to take.
    fn is_stopping(&self) -> bool {
        let pending = self.pending.values().map(|p| p.kind);
        pending
            .chain(self.publishing.values().copied())
            .any(CheckpointKind::stops)
    }

    fn trigger(
        &mut self,
        kind: CheckpointKind,
        now: u64,
        decisions: &mut Vec<Decision>,
    ) -> CheckpointId {
        debug_assert_eq!(self.starting, 0, "invariant 1");
        let checkpoint = self.next_id;
        self.next_id = checkpoint.next();
        if !kind.is_savepoint() {
            self.next_periodic = self
                .settings
                .interval_ms
                .map(|interval| now.saturating_add(interval));
        }
        let acked = self
            .tasks
            .iter()
            .filter_map(|(&task, status)| match status {
                TaskStatus::Finished(state) => Some((task, state.clone())),
                TaskStatus::Starting | TaskStatus::Running => None,
            });
        let deadline = now.saturating_add(self.settings.timeout_ms);
        let pending = Pending {
            kind,
            deadline,
            acked: acked.collect(),
        };
        self.pending.insert(checkpoint, pending);
        decisions.push(Decision::Trigger { checkpoint, kind });
        checkpoint
    }

    /// Gives permits to complete checkpoints, one at a time and in order.
    fn publish_what_is_complete(&mut self, decisions: &mut Vec<Decision>) {
        if !self.publishing.is_empty() {
            return;
        }
        let complete = self
            .pending
            .iter()
            .find(|(_, p)| p.acked.len() == self.tasks.len());
        let Some(checkpoint) = complete.map(|(&id, _)| id) else {
            return;
        };
        let pending = self.pending.remove(&checkpoint).expect("it was just found");
        let acked: HashSet<&TaskId> = pending.acked.keys().collect();
        assert!(
            self.tasks.keys().all(|task| acked.contains(task)),
            "invariant 2"
        );
        let mut states: Vec<_> = pending.acked.into_iter().collect();
        states.sort_by_key(|(task, _)| (task.vertex, task.subtask));
        self.publishing.insert(checkpoint, pending.kind);
        let permit = PublishPermit::new(checkpoint, pending.kind, states);
        decisions.push(Decision::Publish(permit));
    }

    /// A newer checkpoint is complete: older ones that are not are of no use any more. Savepoints
    /// are the user's and go on.
    fn abort_older(&mut self, completed: CheckpointId, decisions: &mut Vec<Decision>) {
        let older: BTreeSet<_> = self
            .pending
            .range(..completed)
            .filter(|(_, p)| !p.kind.is_savepoint())
            .map(|(&id, _)| id)
            .collect();
        for checkpoint in older {
            self.pending.remove(&checkpoint);
            let reason = format!("checkpoint {completed} has completed before it");
            decisions.push(Decision::NotifyAborted { checkpoint, reason });
        }
    }

    fn expiry_reason(&self, checkpoint: CheckpointId) -> String {
        let acked = &self.pending[&checkpoint].acked;
        let mut missing = self.tasks.keys().filter(|task| !acked.contains_key(task));
        let first = missing.next().map(ToString::to_string).unwrap_or_default();
        format!(
            "it was not complete after {} ms: {} of {} tasks had acknowledged; missing were {first} and {} more",
            self.settings.timeout_ms,
            acked.len(),
            self.tasks.len(),
            missing.count(),
        )
    }

    fn fail(
        &mut self,
        checkpoint: CheckpointId,
        reason: String,
        now: u64,
        decisions: &mut Vec<Decision>,
    ) {
        if let Some(pending) = self.pending.remove(&checkpoint) {
            self.aborted((checkpoint, pending.kind), reason, now, decisions);
        }
    }

    fn aborted(
        &mut self,
        (checkpoint, kind): (CheckpointId, CheckpointKind),
        reason: String,
        now: u64,
        decisions: &mut Vec<Decision>,
    ) {
        self.last_end = Some(now);
        let fail_job = self.consequence(checkpoint, kind, &reason);
        decisions.push(Decision::NotifyAborted { checkpoint, reason });
        if let Some(reason) = fail_job {
            self.failures_in_row = 0;
            decisions.push(Decision::FailJob { reason });
        }
    }

    /// Why the job has to fail now that a checkpoint has, if it has to.
    fn consequence(
        &mut self,
        checkpoint: CheckpointId,
        kind: CheckpointKind,
        reason: &str,
    ) -> Option<String> {
        if kind.stops() {
            return Some(format!(
                "savepoint {checkpoint} failed after the sources had been stopped: {reason}"
            ));
        }
        if kind.is_savepoint() {
            return None;
        }
        self.failures_in_row += 1;
        let tolerable = self.settings.tolerable_failures?;
        (self.failures_in_row > tolerable).then(|| {
            format!(
                "checkpoint {checkpoint} failed: {reason} (failures in a row: {}, tolerable: \
                 {tolerable}; see execution.checkpointing.tolerable-failed-checkpoints)",
                self.failures_in_row
            )
        })
    }
}

#[cfg(test)]
mod tests;
