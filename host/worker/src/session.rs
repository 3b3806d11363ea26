//! The session with the coordinator: one stream, kept open, opened again when it breaks.
//!
//! While there is no session tasks go on; after `tidemill.worker.coordinator-loss-timeout` they
//! are stopped. What they report meanwhile waits in a bounded queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidemill_protocol::{
    VERSION,
    control::{
        CoordinatorMessage, Deploy, Heartbeat, MetricsReport, Register, TaskState, TaskUpdate,
        TriggerCheckpoint, WorkerMessage, coordinator_client::CoordinatorClient,
        coordinator_message, worker_message::Kind,
    },
};
use tidemill_types::{Attempt, CheckpointId, CoordinatorEpoch, JobId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::{
    exchange::Barrier,
    task::{Control, JobSpec, now_ms},
    tasks::Tasks,
};

/// Messages to the coordinator that may wait.
const EVENTS_QUEUE: usize = 1_024;
/// How often figures are reported.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// How long an attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause between two attempts to connect; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// The largest message: the graph and the state handles of a large job. The coordinator fails a job
/// whose deployment would be larger: a session that breaks takes all other jobs with it.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) worker_id: Arc<str>,
    pub(crate) data_address: String,
    pub(crate) slots: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_cores: u32,
}

/// Why a worker gives up.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The coordinator's address is none.
    #[error("\"{address}\" is not an address of a coordinator (host:port): {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The coordinator does not want this worker.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
}

/// How one session ended.
enum Ended {
    Lost(String),
    Shutdown,
    Refused(String),
}

/// Keeps the session.
pub(crate) struct Session {
    identity: Identity,
    endpoint: Endpoint,
    tasks: Arc<Tasks>,
    loss_timeout: Duration,
    events: mpsc::Sender<WorkerMessage>,
    outbox: mpsc::Receiver<WorkerMessage>,
    epoch: CoordinatorEpoch,
    /// Whether the coordinator has accepted the latest session.
    registered: bool,
}

impl Session {
    /// A session that is not open yet.
    ///
    /// # Errors
    ///
    /// [`SessionError::Address`].
    pub(crate) fn new(
        identity: Identity,
        coordinator: &str,
        tasks: Arc<Tasks>,
        loss_timeout: Duration,
    ) -> Result<Self, SessionError> {
        let invalid = |e: tonic::transport::Error| SessionError::Address {
            address: coordinator.to_owned(),
            reason: e.to_string(),
        };
        let endpoint = Endpoint::from_shared(format!("http://{coordinator}"))
            .map_err(invalid)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let (events, outbox) = mpsc::channel(EVENTS_QUEUE);
        let epoch = CoordinatorEpoch::default();
        Ok(Self {
            identity,
            endpoint,
            tasks,
            loss_timeout,
            events,
            outbox,
            epoch,
            registered: false,
        })
    }

    /// Keeps a session open until `shutdown`.
    ///
    /// # Errors
    ///
    /// [`SessionError::Refused`] when trying again makes no sense.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), SessionError> {
        let mut absence = Absence::default();
        loop {
            self.registered = false;
            match self.open(&shutdown).await {
                Ended::Shutdown => return Ok(()),
                Ended::Refused(reason) => return Err(SessionError::Refused(reason)),
                Ended::Lost(reason) => {
                    tracing::warn!(reason, "no session with the coordinator, trying again");
                }
            }
            let (absent, pause) = absence.attempt_ended(self.registered, Instant::now());
            if absent > self.loss_timeout {
                self.tasks.cancel_all();
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn open(&mut self, shutdown: &CancellationToken) -> Ended {
        let connected = tokio::select! {
            () = shutdown.cancelled() => return Ended::Shutdown,
            connected = self.endpoint.connect() => connected,
        };
        let channel = match connected {
            Ok(channel) => channel,
            Err(error) => return Ended::Lost(root_cause(&error)),
        };
        let mut client =
            CoordinatorClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (outgoing, stream) = mpsc::channel(EVENTS_QUEUE);
        let registered = outgoing.try_send(self.register());
        debug_assert!(registered.is_ok(), "the queue is empty");
        let mut incoming = match client.open_session(ReceiverStream::new(stream)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ended::Lost(status.message().to_owned()),
        };
        let mut heartbeat = tokio::time::interval(Duration::from_secs(2));
        let mut metrics = tokio::time::interval(METRICS_INTERVAL);
        let mut sequence = 0;
        loop {
            let message = tokio::select! {
                () = shutdown.cancelled() => return Ended::Shutdown,
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(ended) = self.handle(message, &client, &mut heartbeat) {
                            return ended;
                        }
                        continue;
                    }
                    Ok(None) => return Ended::Lost("the coordinator closed the session".to_owned()),
                    Err(status) => return Ended::Lost(status.message().to_owned()),
                },
                event = self.outbox.recv() => match event {
                    Some(event) => event,
                    None => return Ended::Shutdown,
                },
                _ = heartbeat.tick() => {
                    sequence += 1;
                    message(Kind::Heartbeat(Heartbeat { sequence }))
                }
                _ = metrics.tick() => message(Kind::Metrics(MetricsReport {
                    tasks: self.tasks.metrics(),
                    worker: crate::worker::process_metrics(),
                })),
            };
            if outgoing.send(message).await.is_err() {
                return Ended::Lost("the stream to the coordinator has ended".to_owned());
            }
        }
    }

    fn register(&self) -> WorkerMessage {
        let identity = &self.identity;
        message(Kind::Register(Register {
            worker_id: identity.worker_id.to_string(),
            data_address: identity.data_address.clone(),
            slots: identity.slots,
            version: VERSION.to_owned(),
            memory_bytes: identity.memory_bytes,
            cpu_cores: identity.cpu_cores,
            pid: std::process::id(),
            running: self.tasks.ids().into_iter().map(Into::into).collect(),
        }))
    }

    fn handle(
        &mut self,
        message: CoordinatorMessage,
        client: &CoordinatorClient<Channel>,
        heartbeat: &mut tokio::time::Interval,
    ) -> Option<Ended> {
        use coordinator_message::Kind;
        let epoch = CoordinatorEpoch(message.epoch);
        if epoch < self.epoch {
            return Some(Ended::Lost(format!(
                "a message of an older coordinator (epoch {epoch})"
            )));
        }
        self.epoch = epoch;
        match message.kind? {
            Kind::Refused(refused) => return Some(Ended::Refused(refused.reason)),
            Kind::Registered(settings) => {
                tracing::info!(worker = %self.identity.worker_id, "registered");
                self.registered = true;
                let interval = Duration::from_millis(settings.heartbeat_interval_ms.max(10));
                *heartbeat = tokio::time::interval(interval);
            }
            Kind::Heartbeat(_) => {}
            Kind::Deploy(deploy) => return self.deploy(deploy, client),
            Kind::CancelTasks(cancel) => {
                if let Ok(job) = cancel.job.parse() {
                    self.tasks.cancel(job, Attempt(cancel.attempt));
                }
            }
            Kind::TriggerCheckpoint(trigger) => self.trigger(trigger),
            Kind::CheckpointComplete(m) => {
                let control = Control::Complete(CheckpointId(m.checkpoint));
                self.control(&m.job, m.attempt, false, &control);
            }
            Kind::CheckpointAborted(m) => {
                let control = Control::Aborted(CheckpointId(m.checkpoint));
                self.control(&m.job, m.attempt, false, &control);
            }
        }
        None
    }

    fn deploy(&self, deploy: Deploy, client: &CoordinatorClient<Channel>) -> Option<Ended> {
        let job = deploy
            .job
            .as_ref()
            .map(|job| job.job.clone())
            .unwrap_or_default();
        let attempt = deploy.attempt;
        let ids: Vec<_> = deploy
            .tasks
            .iter()
            .map(|task| (task.vertex, task.subtask))
            .collect();
        match JobSpec::read(deploy) {
            Ok(specs) => self.tasks.start(specs, client, &self.events),
            Err(error) => {
                tracing::error!(%error, "refused a deployment");
                for (vertex, subtask) in ids {
                    let task = tidemill_protocol::control::TaskId {
                        job: job.clone(),
                        attempt,
                        vertex,
                        subtask,
                    };
                    let failed = message(Kind::TaskUpdate(TaskUpdate {
                        task: Some(task),
                        state: TaskState::Failed.into(),
                        timestamp_ms: now_ms(),
                        cause: error.to_string(),
                        unrecoverable: true,
                        ..TaskUpdate::default()
                    }));
                    if self.events.try_send(failed).is_err() {
                        let reason = "too many events wait for the coordinator".to_owned();
                        return Some(Ended::Lost(reason));
                    }
                }
            }
        }
        None
    }

    fn trigger(&self, trigger: TriggerCheckpoint) {
        let barrier = Barrier {
            checkpoint: CheckpointId(trigger.checkpoint),
            timestamp_ms: trigger.timestamp_ms,
            savepoint: trigger.savepoint,
            stop: trigger.stop,
            drain: trigger.drain,
            location: trigger.location.into(),
        };
        self.control(
            &trigger.job,
            trigger.attempt,
            true,
            &Control::Trigger(barrier),
        );
    }

    fn control(&self, job: &str, attempt: u32, sources: bool, control: &Control) {
        if let Ok(job) = job.parse::<JobId>() {
            self.tasks.control(job, Attempt(attempt), sources, control);
        }
    }
}

/// How long there has been no session. An attempt to connect is none, however long it takes.
#[derive(Debug, Default)]
struct Absence {
    since: Option<Instant>,
    pause: Option<Duration>,
}

impl Absence {
    /// A session, or an attempt at one, has ended: says how long there has been none, and how long
    /// to wait before the next attempt.
    fn attempt_ended(&mut self, registered: bool, now: Instant) -> (Duration, Duration) {
        if registered {
            *self = Self::default();
        }
        let since = *self.since.get_or_insert(now);
        let next = |pause: Duration| (pause * 2).min(RETRY_MAX);
        let pause = self.pause.map_or(RETRY_MIN, next);
        self.pause = Some(pause);
        (now.saturating_duration_since(since), pause)
    }
}

fn message(kind: Kind) -> WorkerMessage {
    WorkerMessage { kind: Some(kind) }
}

/// The innermost source of an error: transport errors hide it behind "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_attempts_to_connect_do_not_hide_that_the_coordinator_is_lost() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut absence = Absence::default();
        let (absent, _) = absence.attempt_ended(true, at(100));
        assert_eq!(absent, Duration::ZERO, "it has just been lost");
        let mut last = RETRY_MIN;
        for attempt in 1..10 {
            let ended = at(100) + CONNECT_TIMEOUT * attempt;
            let (absent, pause) = absence.attempt_ended(false, ended);
            assert_eq!(absent, CONNECT_TIMEOUT * attempt);
            assert!(pause >= last && pause <= RETRY_MAX);
            last = pause;
        }
        let (absent, pause) = absence.attempt_ended(true, at(500));
        assert_eq!((absent, pause), (Duration::ZERO, RETRY_MIN));
    }
}
