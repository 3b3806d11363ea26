//! The tasks of a worker: started, found and stopped by the session.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tidemill_connectors::Registry;
use tidemill_protocol::control::{
    TaskMetrics as TaskMetricsMessage, TaskState, TaskUpdate, WorkerMessage, worker_message::Kind,
};
use tidemill_types::{Attempt, JobId, ModuleHash, TaskId};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;

use crate::{
    exchange::ExchangeService,
    metrics::TaskMetrics,
    modules::Modules,
    task::{self, Control, Outcome, TaskContext, TaskError, TaskSpec, now_ms},
};

/// Checkpoint messages that may wait for a task which is busy with a call.
const CONTROL_QUEUE: usize = 64;
/// How long a task that fails only because another one did waits for that to be known, so that
/// the cause is reported before its consequences.
const CONSEQUENCE_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

type Coordinator = tidemill_protocol::control::coordinator_client::CoordinatorClient<Channel>;

/// All tasks of a worker.
pub(crate) struct Tasks {
    worker_id: Arc<str>,
    modules: Arc<Modules>,
    exchange: Arc<ExchangeService>,
    registry: Arc<Registry>,
    data: Handle,
    tracker: TaskTracker,
    running: Mutex<HashMap<TaskId, Entry>>,
}

struct Entry {
    control: mpsc::Sender<Control>,
    cancel: CancellationToken,
    metrics: Arc<TaskMetrics>,
    reads_source: bool,
    module: ModuleHash,
}

impl Tasks {
    pub(crate) fn new(
        worker_id: Arc<str>,
        modules: Arc<Modules>,
        exchange: Arc<ExchangeService>,
        registry: Arc<Registry>,
        data: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            worker_id,
            modules,
            exchange,
            registry,
            data,
            tracker: TaskTracker::new(),
            running: Mutex::new(HashMap::new()),
        })
    }

    /// Starts the tasks of a deployment, after every task of an older attempt of their job has
    /// been told to stop. All are known before the first runs: the exchange is released when the
    /// last task of an attempt ends.
    pub(crate) fn start(
        self: &Arc<Self>,
        specs: Vec<TaskSpec>,
        coordinator: &Coordinator,
        events: &mpsc::Sender<WorkerMessage>,
    ) {
        let prepare = |spec| self.prepare(spec, coordinator.clone(), events.clone());
        let prepared: Vec<_> = specs.into_iter().map(prepare).collect();
        for (context, receiver) in prepared {
            let tasks = Arc::clone(self);
            let supervised = async move { tasks.supervise(context, receiver).await };
            self.tracker.spawn_on(supervised, &self.data);
        }
    }

    fn prepare(
        &self,
        spec: TaskSpec,
        coordinator: Coordinator,
        events: mpsc::Sender<WorkerMessage>,
    ) -> (TaskContext, mpsc::Receiver<Control>) {
        self.cancel_before(spec.id.job, spec.id.attempt);
        let (control, receiver) = mpsc::channel(CONTROL_QUEUE);
        let cancel = CancellationToken::new();
        let operators = spec
            .vertex()
            .operators
            .iter()
            .map(|operator| operator.name.clone());
        let metrics = Arc::new(TaskMetrics::new(operators));
        let entry = Entry {
            control,
            cancel: cancel.clone(),
            metrics: Arc::clone(&metrics),
            reads_source: spec.vertex().source.is_some(),
            module: spec.job.module.clone(),
        };
        let id = spec.id;
        if self.running.lock().insert(id, entry).is_some() {
            tracing::error!(task = %id, "a task was deployed twice");
        }
        let context = TaskContext {
            spec,
            worker_id: Arc::clone(&self.worker_id),
            modules: Arc::clone(&self.modules),
            coordinator,
            exchange: Arc::clone(&self.exchange),
            registry: Arc::clone(&self.registry),
            metrics,
            events,
            cancel,
        };
        (context, receiver)
    }

    /// Runs a task, reports its states, and forgets it. A panic in it is its failure only.
    async fn supervise(self: Arc<Self>, cx: TaskContext, control: mpsc::Receiver<Control>) {
        let (id, name) = (cx.spec.id, cx.spec.name());
        let (events, cancel) = (cx.events.clone(), cx.cancel.clone());
        report(&events, update(id, TaskState::Initializing)).await;
        let running_events = events.clone();
        let run = task::run(cx, control, async move || {
            report(&running_events, update(id, TaskState::Running)).await;
        });
        let outcome = self.data.spawn(run).await.unwrap_or_else(|panic| {
            Outcome::Failed(TaskError::Bug(format!("the task panicked: {panic}")))
        });
        if let Outcome::Failed(error) = &outcome
            && error.is_consequence()
        {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(CONSEQUENCE_DELAY) => {}
            }
        }
        self.forget(id);
        report(
            &events,
            final_update(id, &name, outcome, cancel.is_cancelled()),
        )
        .await;
    }

    fn forget(&self, id: TaskId) {
        let mut running = self.running.lock();
        running.remove(&id);
        let same_attempt = |other: &TaskId| other.job == id.job && other.attempt == id.attempt;
        if !running.keys().any(same_attempt) {
            self.exchange.release(id.job, id.attempt);
        }
        self.modules
            .retain(|hash| running.values().any(|entry| entry.module == *hash));
    }

    fn cancel_before(&self, job: JobId, attempt: Attempt) {
        for (id, entry) in self.running.lock().iter() {
            if id.job == job && id.attempt < attempt {
                entry.cancel.cancel();
            }
        }
    }

    /// Tells all tasks of an attempt to stop.
    pub(crate) fn cancel(&self, job: JobId, attempt: Attempt) {
        for (id, entry) in self.running.lock().iter() {
            if id.job == job && id.attempt == attempt {
                entry.cancel.cancel();
            }
        }
        self.exchange.release(job, attempt);
    }

    /// Tells every task to stop.
    pub(crate) fn cancel_all(&self) {
        for entry in self.running.lock().values() {
            entry.cancel.cancel();
        }
    }

    /// Waits until every task has ended.
    pub(crate) async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Passes a message to the tasks of an attempt, or to those that read sources.
    pub(crate) fn control(&self, job: JobId, attempt: Attempt, sources: bool, control: &Control) {
        for (id, entry) in self.running.lock().iter() {
            let meant = id.job == job && id.attempt == attempt && (entry.reads_source || !sources);
            if meant && entry.control.try_send(control.clone()).is_err() {
                // The checkpoint times out; the task has not looked up for a long time.
                tracing::warn!(task = %id, "a task does not take checkpoint messages");
            }
        }
    }

    /// The tasks there are.
    pub(crate) fn ids(&self) -> Vec<TaskId> {
        self.running.lock().keys().copied().collect()
    }

    /// Figures of every task.
    pub(crate) fn metrics(&self) -> Vec<TaskMetricsMessage> {
        let running = self.running.lock();
        let report = |(id, entry): (&TaskId, &Entry)| TaskMetricsMessage {
            task: Some((*id).into()),
            metrics: entry.metrics.report(),
        };
        running.iter().map(report).collect()
    }
}

fn update(id: TaskId, state: TaskState) -> TaskUpdate {
    TaskUpdate {
        task: Some(id.into()),
        state: state.into(),
        timestamp_ms: now_ms(),
        ..TaskUpdate::default()
    }
}

fn final_update(id: TaskId, name: &str, outcome: Outcome, cancelled: bool) -> TaskUpdate {
    match outcome {
        Outcome::Finished(state) => {
            tracing::info!(task = name, "task finished");
            let state = serde_json::to_vec(&*state).expect("plain data is always JSON");
            TaskUpdate {
                final_state: state.into(),
                ..update(id, TaskState::Finished)
            }
        }
        Outcome::Failed(error) if !cancelled => {
            tracing::warn!(task = name, %error, "task failed");
            TaskUpdate {
                cause: error.to_string(),
                unrecoverable: error.is_permanent(),
                ..update(id, TaskState::Failed)
            }
        }
        Outcome::Canceled | Outcome::Failed(_) => {
            tracing::info!(task = name, "task canceled");
            update(id, TaskState::Canceled)
        }
    }
}

async fn report(events: &mpsc::Sender<WorkerMessage>, update: TaskUpdate) {
    let message = WorkerMessage {
        kind: Some(Kind::TaskUpdate(update)),
    };
    if events.send(message).await.is_err() {
        tracing::debug!("the session has ended before a task could report");
    }
}
