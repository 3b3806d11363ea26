//! The session of one worker: from its registration to the end of its stream.
//!
//! # Invariants
//!
//! 1. Nothing is accepted before the worker has registered.
//! 2. However the session ends, the worker is forgotten at once, and the jobs learn of it.

use std::{sync::Arc, time::Duration};

use tidemill_protocol::control::{
    CancelTasks, CheckpointAck, CoordinatorMessage, Heartbeat, MetricsReport, Refused, Register,
    Registered, TaskUpdate, WorkerMessage, coordinator_message::Kind, worker_message,
};
use tidemill_types::{CheckpointId, TaskId, WorkerId, config::keys};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::convert;
use crate::{
    clock::{millis, unsigned_millis},
    cluster::Cluster,
    job::{JobEvent, JobHandle},
    workers::Outbox,
};

/// How long a connection may take to say who it is.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// A registered worker's session.
struct Session {
    cluster: Arc<Cluster>,
    worker: WorkerId,
    number: u64,
    stop: CancellationToken,
}

/// Runs a session to its end.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    mut incoming: Streaming<WorkerMessage>,
    outbox: Outbox,
) {
    let first = tokio::time::timeout(REGISTER_TIMEOUT, incoming.message()).await;
    let Ok(Ok(Some(WorkerMessage {
        kind: Some(worker_message::Kind::Register(register)),
    }))) = first
    else {
        refuse(
            &cluster,
            &outbox,
            "the first message of a worker must be its registration".into(),
        )
        .await;
        return;
    };
    match Session::register(&cluster, &register, &outbox).await {
        Ok(session) => {
            session.fence(&register);
            let reason = session.serve(incoming, outbox).await;
            session
                .cluster
                .workers
                .remove(&session.worker, session.number);
            tracing::info!(worker = %session.worker, reason, "worker is gone");
        }
        Err(reason) => {
            tracing::warn!(worker = register.worker_id, reason, "worker is refused");
            refuse(&cluster, &outbox, reason).await;
        }
    }
}

async fn refuse(cluster: &Cluster, outbox: &Outbox, reason: String) {
    let message = CoordinatorMessage {
        epoch: cluster.workers.epoch().0,
        kind: Some(Kind::Refused(Refused { reason })),
    };
    if outbox.send(Ok(message)).await.is_err() {
        tracing::debug!("a refused worker did not wait for the reason");
    }
}

impl Session {
    async fn register(
        cluster: &Arc<Cluster>,
        register: &Register,
        outbox: &Outbox,
    ) -> Result<Self, String> {
        let info = convert::worker_info(register)?;
        let worker = info.id.clone();
        tracing::info!(%worker, slots = info.slots, data = info.data_address, "worker registers");
        // Before anybody can send to it, so that this is the first message it gets.
        let welcome = CoordinatorMessage {
            epoch: cluster.workers.epoch().0,
            kind: Some(Kind::Registered(Registered {
                heartbeat_interval_ms: unsigned_millis(
                    cluster.config.get(&keys::HEARTBEAT_INTERVAL),
                ),
                heartbeat_timeout_ms: unsigned_millis(cluster.config.get(&keys::HEARTBEAT_TIMEOUT)),
            })),
        };
        outbox
            .send(Ok(welcome))
            .await
            .map_err(|_closed| "the worker hung up".to_owned())?;
        let stop = cluster.shutdown.child_token();
        let now_ms = cluster.clock.now_ms();
        let number = cluster
            .workers
            .register(info, outbox.clone(), stop.clone(), now_ms)?;
        Ok(Self {
            cluster: Arc::clone(cluster),
            worker,
            number,
            stop,
        })
    }

    /// Stops what a worker that comes back still runs: its jobs have gone on without it.
    fn fence(&self, register: &Register) {
        let mut attempts: Vec<(String, u32)> = register
            .running
            .iter()
            .map(|task| (task.job.clone(), task.attempt))
            .collect();
        attempts.sort();
        attempts.dedup();
        for (job, attempt) in attempts {
            self.cancel(job, attempt);
        }
    }

    fn cancel(&self, job: String, attempt: u32) {
        let message = Kind::CancelTasks(CancelTasks { job, attempt });
        self.cluster
            .workers
            .send(&self.worker, self.number, message);
    }

    /// Passes messages on until one side ends the session; says why it ended.
    async fn serve(&self, mut incoming: Streaming<WorkerMessage>, outbox: Outbox) -> &'static str {
        let interval = self
            .cluster
            .config
            .get(&keys::HEARTBEAT_INTERVAL)
            .max(Duration::from_millis(10));
        let timeout_ms = millis(self.cluster.config.get(&keys::HEARTBEAT_TIMEOUT));
        // The registry's clone is the only one that counts.
        drop(outbox);
        let mut beat = tokio::time::interval(interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_heard_ms = self.cluster.clock.now_ms();
        let mut sequence = 0;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return "its session was ended",
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        last_heard_ms = self.cluster.clock.now_ms();
                        self.cluster.workers.heard_from(&self.worker, self.number, last_heard_ms);
                        self.handle(message).await;
                    }
                    Ok(None) => return "it closed its session",
                    Err(error) => {
                        tracing::debug!(worker = %self.worker, %error, "session broke");
                        return "its connection broke";
                    }
                },
                _ = beat.tick() => {
                    if self.cluster.clock.now_ms() - last_heard_ms > timeout_ms {
                        return "it was silent for longer than heartbeat.timeout";
                    }
                    sequence += 1;
                    let beat = Kind::Heartbeat(Heartbeat { sequence });
                    self.cluster.workers.send(&self.worker, self.number, beat);
                }
            }
        }
    }

    async fn handle(&self, message: WorkerMessage) {
        match message.kind {
            Some(worker_message::Kind::TaskUpdate(update)) => self.on_task_update(update).await,
            Some(worker_message::Kind::CheckpointAck(ack)) => self.on_ack(ack).await,
            Some(worker_message::Kind::CheckpointDecline(decline)) => {
                let Some(task) = self.task_id(decline.task) else {
                    return;
                };
                let checkpoint = CheckpointId(decline.checkpoint);
                let reason = decline.reason;
                let event = JobEvent::Decline {
                    session: self.number,
                    task,
                    checkpoint,
                    reason,
                };
                self.pass_on(task, event).await;
            }
            Some(worker_message::Kind::Metrics(report)) => self.on_metrics(report),
            Some(worker_message::Kind::Heartbeat(_)) => {}
            Some(worker_message::Kind::Register(_)) | None => {
                tracing::debug!(worker = %self.worker, "a message without meaning here is dropped");
            }
        }
    }

    async fn on_task_update(&self, update: TaskUpdate) {
        let Some(id) = self.task_id(update.task.clone()) else {
            return;
        };
        let Some(report) = convert::task_report(&update, id) else {
            return;
        };
        let final_state = match convert::subtask_state(&update.final_state) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(task = %id, error, "a finished task's state is dropped");
                None
            }
        };
        let session = self.number;
        let event = JobEvent::Task {
            session,
            report,
            final_state,
        };
        self.pass_on(id, event).await;
    }

    async fn on_ack(&self, ack: CheckpointAck) {
        let Some(task) = self.task_id(ack.task) else {
            return;
        };
        let checkpoint = CheckpointId(ack.checkpoint);
        let event = match convert::subtask_state(&ack.state) {
            Ok(state) => JobEvent::Ack {
                session: self.number,
                task,
                checkpoint,
                state: Box::new(state.unwrap_or_default()),
                figures: ack.figures.unwrap_or_default(),
            },
            Err(reason) => JobEvent::Decline {
                session: self.number,
                task,
                checkpoint,
                reason,
            },
        };
        self.pass_on(task, event).await;
    }

    fn on_metrics(&self, report: MetricsReport) {
        let figures = convert::metrics(report.worker);
        let workers = &self.cluster.workers;
        workers.set_metrics(&self.worker, self.number, figures);
        for task in report.tasks {
            let Some(id) = self.task_id(task.task) else {
                continue;
            };
            if let Some(job) = self.cluster.job_of_any_tenant(id.job) {
                job.report_metrics(id, convert::metrics(task.metrics));
            }
        }
    }

    fn task_id(&self, id: Option<tidemill_protocol::control::TaskId>) -> Option<TaskId> {
        let id = id.and_then(|id| TaskId::try_from(id).ok());
        if id.is_none() {
            tracing::warn!(worker = %self.worker, "a message about no task is dropped");
        }
        id
    }

    /// Gives an event to its job. A worker that runs tasks of a job (or an attempt) that is over
    /// is told to stop them.
    async fn pass_on(&self, id: TaskId, event: JobEvent) {
        let job: Option<JobHandle> = self.cluster.job_of_any_tenant(id.job);
        let ended = matches!(&event, JobEvent::Task { report, .. } if report.status.is_terminal());
        let stale = job.as_ref().is_none_or(|job| job.is_stale(id.attempt));
        if stale {
            if !ended {
                self.cancel(id.job.to_string(), id.attempt.0);
            }
            return;
        }
        if let Some(job) = job {
            job.send(event).await;
        }
    }
}
