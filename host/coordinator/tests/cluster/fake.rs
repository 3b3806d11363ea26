//! A planner and workers without a runtime behind them, and a coordinator to use them with.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tidemill_checkpoint::{SplitState, SubtaskState, TaskRestore};
use tidemill_coordinator::{Coordinator, Listeners, Plan, PlanFailure};
use tidemill_planner::PlanJob;
use tidemill_protocol::control::{
    self, CheckpointAck, CheckpointFigures, Deploy, Register, TaskState, TaskUpdate, WorkerMessage,
    coordinator_client::CoordinatorClient, coordinator_message, worker_message,
};
use tidemill_types::{
    ConnectorConfig, Edge, JobGraph, Operator, ShipStrategy, SinkBinding, SourceBinding, Vertex,
    config::Config,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Plans the same graph for every module whose bytes do not say "bad".
pub(crate) struct FakePlanner;

#[async_trait]
impl Plan for FakePlanner {
    async fn compile(&self, module: &Path) -> Result<(), PlanFailure> {
        let bytes = std::fs::read(module).unwrap();
        if bytes.starts_with(b"bad") {
            return Err(PlanFailure {
                message: "this is not a component".into(),
                callers_fault: true,
            });
        }
        Ok(())
    }

    async fn plan(&self, _: &Path, job: PlanJob) -> Result<JobGraph, PlanFailure> {
        if job.args.iter().any(|arg| arg == "--fail") {
            let message = "argument --input-topic is missing".into();
            return Err(PlanFailure {
                message,
                callers_fault: true,
            });
        }
        Ok(graph())
    }
}

fn connector(kind: &str) -> ConnectorConfig {
    ConnectorConfig {
        kind: kind.into(),
        options: BTreeMap::new(),
    }
}

fn vertex(uid: &str) -> Vertex {
    Vertex {
        uid: uid.into(),
        name: uid.into(),
        parallelism: None,
        max_parallelism: None,
        source: None,
        operators: vec![Operator {
            uid: format!("{uid}-op"),
            name: format!("{uid} <op>"),
            description: String::new(),
        }],
        sinks: vec![],
        states: vec![],
        wants_watermarks: true,
        makes_watermarks: false,
    }
}

/// `events` → `counter`.
pub(crate) fn graph() -> JobGraph {
    let mut events = vertex("events");
    events.source = Some(SourceBinding {
        uid: "source".into(),
        name: "source".into(),
        connector: connector("datagen"),
        idle_timeout_ms: None,
    });
    let mut counter = vertex("counter");
    counter.sinks = vec![SinkBinding {
        uid: "sink".into(),
        name: "sink".into(),
        port: 0,
        connector: connector("print"),
    }];
    JobGraph {
        name: "fake job".into(),
        vertices: vec![events, counter],
        edges: vec![Edge {
            from: 0,
            port: 0,
            to: 1,
            input: 0,
            strategy: ShipStrategy::Hash,
        }],
        config: BTreeMap::new(),
    }
}

/// A coordinator in a directory of its own.
pub(crate) struct TestCluster {
    pub(crate) coordinator: Coordinator,
    pub(crate) http: reqwest::Client,
    pub(crate) dir: tempfile::TempDir,
}

impl TestCluster {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.set("rest.port", "0").unwrap();
        config.set("jobmanager.rpc.port", "0").unwrap();
        config
            .set(
                "tidemill.storage.dir",
                dir.path().join("storage").to_str().unwrap(),
            )
            .unwrap();
        config
            .set(
                "execution.checkpointing.dir",
                dir.path().join("checkpoints").to_str().unwrap(),
            )
            .unwrap();
        for (key, value) in settings {
            config.set(key, value).unwrap();
        }
        let coordinator = Coordinator::start(&config, Arc::new(FakePlanner), Listeners::default())
            .await
            .unwrap();
        Self {
            coordinator,
            http: reqwest::Client::new(),
            dir,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.coordinator.rest_addr())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.url(path))).await
    }

    pub(crate) async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.http.post(self.url(path)).body(body.to_string())).await
    }

    pub(crate) async fn upload(&self, name: &str, bytes: &'static [u8]) -> (u16, Value) {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new().part("jarfile", part);
        answer(self.http.post(self.url("/jars/upload")).multipart(form)).await
    }

    /// Uploads a module and returns its id.
    pub(crate) async fn module(&self) -> String {
        let (status, body) = self.upload("job.wasm", b"module").await;
        assert_eq!(status, 200, "{body}");
        body["filename"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }

    /// Runs a job and returns its id.
    pub(crate) async fn run(&self, body: Value) -> String {
        let module = self.module().await;
        let (status, answer) = self.post(&format!("/jars/{module}/run"), body).await;
        assert_eq!(status, 200, "{answer}");
        answer["jobid"].as_str().unwrap().to_owned()
    }

    /// Waits until what a path answers is as it should be.
    pub(crate) async fn until(&self, path: &str, what: impl Fn(&Value) -> bool) -> Value {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let started = tokio::time::Instant::now();
        loop {
            tick.tick().await;
            let (_, body) = self.get(path).await;
            if what(&body) {
                return body;
            }
            assert!(started.elapsed() < DEADLINE, "{path} stayed {body:#}");
        }
    }

    pub(crate) async fn until_state(&self, job: &str, state: &str) -> Value {
        self.until(&format!("/jobs/{job}"), |body| body["state"] == state)
            .await
    }

    /// Until all tasks run.
    pub(crate) async fn until_running(&self, job: &str) {
        self.until(&format!("/jobs/{job}"), |body| {
            let vertices = body["vertices"].as_array().cloned().unwrap_or_default();
            body["state"] == "RUNNING"
                && vertices
                    .iter()
                    .all(|v| v["tasks"]["RUNNING"] == v["parallelism"])
        })
        .await;
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// What a fake worker has been asked, and how it behaves.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) deployments: Vec<Deploy>,
    pub(crate) completed: Vec<u64>,
    pub(crate) cancelled: Vec<u32>,
    pub(crate) refused: Option<String>,
    pub(crate) epochs: Vec<u64>,
    /// Does not answer to barriers.
    pub(crate) deaf: bool,
}

/// A worker that says what workers say and runs nothing.
pub(crate) struct FakeWorker {
    pub(crate) seen: Arc<Mutex<Seen>>,
    outbox: mpsc::Sender<WorkerMessage>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeWorker {
    pub(crate) async fn start(cluster: &TestCluster, name: &str, slots: u32) -> Self {
        let register = Register {
            worker_id: name.into(),
            data_address: format!("127.0.0.1:{}", 10_000 + name.len()),
            slots,
            version: tidemill_protocol::VERSION.into(),
            memory_bytes: 1 << 30,
            cpu_cores: 2,
            pid: 1,
            running: vec![],
        };
        Self::start_as(cluster, register).await
    }

    pub(crate) async fn start_as(cluster: &TestCluster, register: Register) -> Self {
        let url = format!("http://{}", cluster.coordinator.rpc_addr());
        let mut client = CoordinatorClient::connect(url).await.unwrap();
        let (outbox, outgoing) = mpsc::channel(1024);
        send(&outbox, worker_message::Kind::Register(register)).await;
        let mut incoming = client
            .open_session(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let worker = Behaviour {
            seen: Arc::clone(&seen),
            outbox: outbox.clone(),
        };
        let task = tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                worker.seen.lock().epochs.push(message.epoch);
                if let Some(kind) = message.kind {
                    worker.handle(kind).await;
                }
            }
        });
        Self { seen, outbox, task }
    }

    /// Dies as a killed process does.
    pub(crate) fn kill(self) {}

    pub(crate) async fn report(&self, update: TaskUpdate) {
        send(&self.outbox, worker_message::Kind::TaskUpdate(update)).await;
    }

    /// The id of a task of the latest deployment.
    pub(crate) fn task(&self, vertex: u32) -> control::TaskId {
        let seen = self.seen.lock();
        let deploy = seen.deployments.last().unwrap();
        let task = deploy
            .tasks
            .iter()
            .find(|task| task.vertex == vertex)
            .unwrap();
        id(deploy, task.vertex, task.subtask)
    }

    /// The state that the latest deployment starts from, of the first task of a vertex.
    pub(crate) fn restore(&self, vertex: u32) -> Option<TaskRestore> {
        let seen = self.seen.lock();
        let task = seen
            .deployments
            .last()?
            .tasks
            .iter()
            .find(|task| task.vertex == vertex)?;
        serde_json::from_slice(&task.restore).ok()
    }
}

struct Behaviour {
    seen: Arc<Mutex<Seen>>,
    outbox: mpsc::Sender<WorkerMessage>,
}

fn id(deploy: &Deploy, vertex: u32, subtask: u32) -> control::TaskId {
    let job = deploy.job.as_ref().unwrap().job.clone();
    control::TaskId {
        job,
        attempt: deploy.attempt,
        vertex,
        subtask,
    }
}

async fn send(outbox: &mpsc::Sender<WorkerMessage>, kind: worker_message::Kind) {
    drop(outbox.send(WorkerMessage { kind: Some(kind) }).await);
}

pub(crate) fn update(task: control::TaskId, state: TaskState) -> TaskUpdate {
    TaskUpdate {
        task: Some(task),
        state: state.into(),
        ..TaskUpdate::default()
    }
}

impl Behaviour {
    async fn handle(&self, kind: coordinator_message::Kind) {
        use coordinator_message::Kind;
        match kind {
            Kind::Deploy(deploy) => {
                self.seen.lock().deployments.push(deploy.clone());
                for state in [TaskState::Initializing, TaskState::Running] {
                    self.all(&deploy, state).await;
                }
            }
            Kind::CancelTasks(cancel) => {
                self.seen.lock().cancelled.push(cancel.attempt);
                let latest = self.seen.lock().deployments.last().cloned();
                if let Some(deploy) = latest.filter(|deploy| deploy.attempt == cancel.attempt) {
                    self.all(&deploy, TaskState::Canceled).await;
                }
            }
            Kind::TriggerCheckpoint(trigger) if !self.seen.lock().deaf => {
                let latest = self.seen.lock().deployments.last().cloned().unwrap();
                for task in &latest.tasks {
                    let source = SplitState {
                        split: format!("split-{}", task.subtask),
                        state: trigger.checkpoint.to_be_bytes().to_vec(),
                    };
                    let source = if task.vertex == 0 {
                        vec![source]
                    } else {
                        vec![]
                    };
                    let state = SubtaskState {
                        source,
                        ..SubtaskState::default()
                    };
                    let ack = CheckpointAck {
                        task: Some(id(&latest, task.vertex, task.subtask)),
                        checkpoint: trigger.checkpoint,
                        state: serde_json::to_vec(&state).unwrap().into(),
                        figures: Some(CheckpointFigures {
                            state_bytes: 100,
                            sync_us: 1500,
                            ..Default::default()
                        }),
                    };
                    send(&self.outbox, worker_message::Kind::CheckpointAck(ack)).await;
                }
            }
            Kind::CheckpointComplete(complete) => {
                self.seen.lock().completed.push(complete.checkpoint);
            }
            Kind::Refused(refused) => self.seen.lock().refused = Some(refused.reason),
            _ => {}
        }
    }

    async fn all(&self, deploy: &Deploy, state: TaskState) {
        for task in &deploy.tasks {
            let report = update(id(deploy, task.vertex, task.subtask), state);
            send(&self.outbox, worker_message::Kind::TaskUpdate(report)).await;
        }
    }
}

/// Waits for something about a worker.
pub(crate) async fn until<T>(what: &str, condition: impl Fn() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let started = tokio::time::Instant::now();
    loop {
        tick.tick().await;
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{what} did not happen");
    }
}
