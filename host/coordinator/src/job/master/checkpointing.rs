//! The master's half of the checkpoint protocol: it reports facts to the pure coordinator and
//! carries out its decisions.

use std::sync::Arc;

use tidemill_checkpoint::{CheckpointKind, Decision, PublishPermit, SubtaskState};
use tidemill_protocol::control::{
    CheckpointAborted, CheckpointComplete, CheckpointFigures, TriggerCheckpoint,
    coordinator_message::Kind,
};
use tidemill_types::{CheckpointId, TaskId};
use tracing::Instrument as _;

use super::{JobMaster, unsigned};
use crate::job::{
    JobEvent, JobStatus, RestorePoint, checkpoints,
    failure::{Failure, FailureKind},
};

impl JobMaster {
    pub(super) fn on_ack(
        &mut self,
        task: TaskId,
        checkpoint: CheckpointId,
        state_of_task: SubtaskState,
        figures: CheckpointFigures,
    ) {
        let now_ms = self.now_ms();
        let (actions, decisions) = self.handle.with(|state| {
            let subtask = (task.vertex, task.subtask.0);
            state
                .checkpoints
                .stats
                .acknowledged(checkpoint, subtask, figures, now_ms);
            let coordinator = &mut state.checkpoints.coordinator;
            let decisions = coordinator.ack(task, checkpoint, state_of_task);
            (state.note_storing(now_ms), decisions)
        });
        self.decide(decisions);
        self.act(actions);
    }

    pub(super) fn on_stored(
        &mut self,
        checkpoint: CheckpointId,
        result: Result<Box<RestorePoint>, String>,
    ) {
        let now_ms = self.now_ms();
        let decisions = self.handle.with(|state| match result {
            Ok(point) => {
                let checkpoints = &mut state.checkpoints;
                checkpoints
                    .stats
                    .completed(checkpoint, point.base.clone(), now_ms);
                if !point.manifest.savepoint {
                    checkpoints.newest = Some(*point);
                }
                checkpoints.coordinator.stored(checkpoint, unsigned(now_ms))
            }
            Err(reason) => {
                state
                    .checkpoints
                    .coordinator
                    .store_failed(checkpoint, &reason, unsigned(now_ms))
            }
        });
        self.decide(decisions);
        let actions = self.handle.with(|state| state.note_storing(now_ms));
        self.act(actions);
    }

    pub(super) fn on_request(&mut self, kind: CheckpointKind, reply: checkpoints::Waiter) {
        let now_ms = self.now_ms();
        let requested = self.handle.with(|state| {
            if !state.may_checkpoint() {
                return Err((reply, "not all tasks of the job are running".to_owned()));
            }
            match state
                .checkpoints
                .coordinator
                .request(kind, unsigned(now_ms))
            {
                Ok((checkpoint, decisions)) => {
                    state.checkpoints.waiters.insert(checkpoint, reply);
                    Ok(decisions)
                }
                Err(refused) => Err((reply, refused.to_string())),
            }
        });
        match requested {
            Ok(decisions) => self.decide(decisions),
            Err((reply, reason)) => {
                if reply.send(Err(reason)).is_err() {
                    tracing::debug!("nobody waits for the refused checkpoint");
                }
            }
        }
    }

    /// Carries out what the checkpoint coordinator asks for.
    pub(super) fn decide(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Trigger { checkpoint, kind } => self.trigger(checkpoint, kind),
                Decision::Publish(permit) => self.publish(permit),
                Decision::NotifyComplete { checkpoint } => {
                    tracing::debug!(%checkpoint, "checkpoint complete");
                    self.handle
                        .with(|state| state.checkpoints.answer(checkpoint, Ok(checkpoint)));
                    self.send_to_all(|job, attempt| {
                        Kind::CheckpointComplete(CheckpointComplete {
                            job,
                            attempt,
                            checkpoint: checkpoint.0,
                        })
                    });
                }
                Decision::NotifyAborted { checkpoint, reason } => self.aborted(checkpoint, reason),
                Decision::Discard { checkpoint } => {
                    let location = self.handle.with(|state| {
                        state.checkpoints.stats.discarded(checkpoint);
                        state.checkpoints.location.clone()
                    });
                    self.run_beside(checkpoints::discard(location, checkpoint));
                }
                Decision::FailJob { reason } => {
                    let now_ms = self.now_ms();
                    let failure = Failure::new(FailureKind::Checkpoint, reason, now_ms);
                    let actions = self
                        .handle
                        .with(|state| state.machine.fail(failure, false, now_ms));
                    self.act(actions);
                }
            }
        }
    }

    fn trigger(&self, checkpoint: CheckpointId, kind: CheckpointKind) {
        let now_ms = self.now_ms();
        let (location, attempt) = self.handle.with(|state| {
            let subtasks = state.machine.tasks().all().count();
            let subtasks = u32::try_from(subtasks).unwrap_or(u32::MAX);
            state
                .checkpoints
                .stats
                .triggered(checkpoint, kind, subtasks, now_ms);
            let folder = checkpoints::folder(checkpoint);
            (
                state.checkpoints.location.uri_of(&folder),
                state.machine.attempt(),
            )
        });
        let (stop, drain) = match kind {
            CheckpointKind::Checkpoint => (false, false),
            CheckpointKind::Savepoint { stop, drain } => (stop, drain),
        };
        let message = TriggerCheckpoint {
            job: self.handle.info().id.to_string(),
            attempt: attempt.0,
            checkpoint: checkpoint.0,
            timestamp_ms: now_ms,
            location,
            savepoint: kind.is_savepoint(),
            stop,
            drain,
        };
        let graph = Arc::clone(&self.handle.info().graph);
        let is_source = move |vertex: u32| {
            graph
                .vertices
                .get(vertex as usize)
                .is_some_and(|v| v.source.is_some())
        };
        for (worker, session) in
            self.targets(|vertex, status| status.is_on_worker() && is_source(vertex))
        {
            self.around
                .workers
                .send(&worker, session, Kind::TriggerCheckpoint(message.clone()));
        }
    }

    fn publish(&mut self, permit: PublishPermit) {
        let checkpoint = permit.checkpoint();
        let now_ms = self.now_ms();
        let (location, manifest) = self.handle.with(|state| {
            let tasks = state.machine.tasks();
            let triggered = state
                .checkpoints
                .stats
                .get(checkpoint)
                .map_or(now_ms, |r| r.trigger_ms);
            let figures = (
                tasks.parallelism.as_slice(),
                tasks.max_parallelism.as_slice(),
            );
            let manifest = checkpoints::manifest(self.handle.info(), figures, permit, triggered);
            (state.checkpoints.location.clone(), manifest)
        });
        let handle = self.handle.clone();
        self.run_beside(async move {
            let result = match manifest {
                Ok(manifest) => checkpoints::publish(location, manifest).await.map(Box::new),
                Err(error) => Err(error.to_string()),
            };
            handle.send(JobEvent::Stored { checkpoint, result }).await;
        });
    }

    fn aborted(&self, checkpoint: CheckpointId, reason: String) {
        tracing::warn!(%checkpoint, reason, "checkpoint failed");
        let now_ms = self.now_ms();
        let location = self.handle.with(|state| {
            state.checkpoints.stats.failed(checkpoint, &reason, now_ms);
            state.checkpoints.answer(checkpoint, Err(reason));
            state.checkpoints.location.clone()
        });
        self.send_to_all(|job, attempt| {
            Kind::CheckpointAborted(CheckpointAborted {
                job,
                attempt,
                checkpoint: checkpoint.0,
            })
        });
        self.run_beside(checkpoints::discard(location, checkpoint));
    }

    fn run_beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.around.tasks.spawn(work.in_current_span());
    }

    /// Deletes the checkpoints of a job that does not keep them.
    pub(super) async fn clean_up(&self) {
        let info = self.handle.info();
        let status = self.handle.status();
        if status == JobStatus::Failed
            && let Some(cause) = self
                .handle
                .with(|state| state.machine.cause().map(Failure::summary))
        {
            tracing::error!(cause, "job failed");
        }
        // State may be large, and an ended job is remembered for long.
        self.handle.with(|state| state.checkpoints.newest = None);
        if checkpoints::retained(&info.config, status) {
            return;
        }
        let (location, written) = self.handle.with(|state| {
            (
                state.checkpoints.location.clone(),
                state.checkpoints.stats.counts.total > 0,
            )
        });
        if !written {
            return;
        }
        let folders = match location.folders("").await {
            Ok(folders) => folders,
            Err(error) => {
                tracing::warn!(%error, "the checkpoints of an ended job are left behind");
                return;
            }
        };
        for folder in folders {
            if let Some(number) = folder.strip_prefix("chk-").and_then(|n| n.parse().ok()) {
                checkpoints::discard(location.clone(), CheckpointId(number)).await;
                self.handle
                    .with(|state| state.checkpoints.stats.discarded(CheckpointId(number)));
            }
        }
    }
}
