//! The shapes of the API: the fields that Flink's own clients and dashboard rely on.

use serde_json::{Value, json};
use tidemill_protocol::control::TaskState;

use crate::fake::{FakeWorker, TestCluster, until};

/// Checks that an object has these fields, each of its kind: `s`tring, `i`nteger, `f`loat or
/// integer, `b`oolean, `a`rray, `o`bject, `?` anything.
fn has(value: &Value, fields: &[(&str, char)]) {
    for (name, kind) in fields {
        let field = value
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing in {value:#}"));
        let fits = match kind {
            's' => field.is_string(),
            'i' => field.is_i64() || field.is_u64(),
            'f' => field.is_number(),
            'b' => field.is_boolean(),
            'a' => field.is_array(),
            'o' => field.is_object(),
            _ => true,
        };
        assert!(fits, "{name} is {field}, expected kind {kind}");
    }
}

const IO: [(&str, char); 11] = [
    ("read-bytes", 'i'),
    ("read-bytes-complete", 'b'),
    ("write-bytes", 'i'),
    ("write-bytes-complete", 'b'),
    ("read-records", 'i'),
    ("read-records-complete", 'b'),
    ("write-records", 'i'),
    ("write-records-complete", 'b'),
    ("accumulated-backpressured-time", 'i'),
    ("accumulated-idle-time", 'i'),
    ("accumulated-busy-time", 'f'),
];

const TASK_STATES: [&str; 10] = [
    "CREATED",
    "SCHEDULED",
    "DEPLOYING",
    "INITIALIZING",
    "RUNNING",
    "FINISHED",
    "CANCELING",
    "CANCELED",
    "FAILED",
    "RECONCILING",
];

fn has_all_states(counts: &Value) {
    has(counts, &TASK_STATES.map(|state| (state, 'i')));
}

async fn running() -> (TestCluster, FakeWorker, String) {
    let cluster = TestCluster::start(&[("execution.checkpointing.interval", "20 ms")]).await;
    let worker = FakeWorker::start(&cluster, "localhost:1-abcdef", 2).await;
    let job = cluster
        .run(json!({ "programArgs": "--a b", "parallelism": 2 }))
        .await;
    cluster.until_running(&job).await;
    until("a completed checkpoint", || {
        (!worker.seen.lock().completed.is_empty()).then_some(())
    })
    .await;
    (cluster, worker, job)
}

#[tokio::test]
async fn cluster_pages_have_their_fields() {
    let (cluster, _worker, _job) = running().await;
    for prefix in ["", "/v1"] {
        let overview = cluster.ok(&format!("{prefix}/overview")).await;
        has(
            &overview,
            &[
                ("taskmanagers", 'i'),
                ("slots-total", 'i'),
                ("slots-available", 'i'),
                ("jobs-running", 'i'),
                ("jobs-finished", 'i'),
                ("jobs-cancelled", 'i'),
                ("jobs-failed", 'i'),
                ("flink-version", 's'),
                ("flink-commit", 's'),
            ],
        );
        assert_eq!(
            (&overview["jobs-running"], &overview["slots-total"]),
            (&json!(1), &json!(2))
        );
    }
    let config = cluster.ok("/config").await;
    has(
        &config,
        &[
            ("refresh-interval", 'i'),
            ("timezone-name", 's'),
            ("timezone-offset", 'i'),
            ("features", 'o'),
        ],
    );
    has(
        &cluster.ok("/jobmanager/config").await[0],
        &[("key", 's'), ("value", 's')],
    );
    has(
        &cluster.ok("/jobmanager/environment").await,
        &[("jvm", 'o'), ("classpath", 'a')],
    );
    let slots = cluster.ok("/jobmanager/metrics?get=taskSlotsTotal").await;
    assert_eq!(slots, json!([{ "id": "taskSlotsTotal", "value": "2" }]));
}

#[tokio::test]
async fn job_pages_have_their_fields() {
    let (cluster, worker, job) = running().await;
    assert_eq!(
        cluster.ok("/jobs").await,
        json!({ "jobs": [{ "id": job, "status": "RUNNING" }] })
    );
    let overview = cluster.ok("/jobs/overview").await["jobs"][0].clone();
    has(
        &overview,
        &[
            ("jid", 's'),
            ("name", 's'),
            ("start-time", 'i'),
            ("end-time", 'i'),
            ("duration", 'i'),
            ("state", 's'),
            ("last-modification", 'i'),
            ("tasks", 'o'),
            ("pending-operators", 'i'),
        ],
    );
    assert_eq!(
        (&overview["tasks"]["total"], &overview["tasks"]["running"]),
        (&json!(4), &json!(4))
    );
    let detail = cluster.ok(&format!("/jobs/{job}")).await;
    has(
        &detail,
        &[
            ("jid", 's'),
            ("name", 's'),
            ("isStoppable", 'b'),
            ("state", 's'),
            ("job-type", 's'),
            ("start-time", 'i'),
            ("end-time", 'i'),
            ("duration", 'i'),
            ("maxParallelism", 'i'),
            ("now", 'i'),
            ("timestamps", 'o'),
            ("vertices", 'a'),
            ("status-counts", 'o'),
            ("plan", 'o'),
        ],
    );
    has(
        &detail["timestamps"],
        &["RUNNING", "SUSPENDED", "RECONCILING", "FAILED"].map(|s| (s, 'i')),
    );
    has_all_states(&detail["status-counts"]);
    let vertex = &detail["vertices"][0];
    has(
        vertex,
        &[
            ("id", 's'),
            ("name", 's'),
            ("maxParallelism", 'i'),
            ("parallelism", 'i'),
            ("status", 's'),
        ],
    );
    has(
        vertex,
        &[
            ("start-time", 'i'),
            ("end-time", 'i'),
            ("duration", 'i'),
            ("slotSharingGroupId", 's'),
        ],
    );
    has_all_states(&vertex["tasks"]);
    has(&vertex["metrics"], &IO);
    let node = &detail["plan"]["nodes"][1];
    has(
        node,
        &[
            ("id", 's'),
            ("operator", 's'),
            ("parallelism", 'i'),
            ("description", 's'),
            ("inputs", 'a'),
        ],
    );
    assert_eq!(node["inputs"][0]["ship_strategy"], "HASH");
    assert!(
        detail["plan"]["nodes"][0].get("inputs").is_none(),
        "a source has no inputs"
    );
    assert!(
        !node["description"].as_str().unwrap().contains("<op>"),
        "names are escaped"
    );
    has(
        &cluster.ok(&format!("/jobs/{job}/config")).await,
        &[("jid", 's'), ("execution-config", 'o')],
    );
    assert_eq!(
        cluster.ok(&format!("/jobs/{job}/status")).await,
        json!({ "status": "RUNNING" })
    );
    let result = cluster.ok(&format!("/jobs/{job}/execution-result")).await;
    assert_eq!(result, json!({ "status": { "id": "IN_PROGRESS" } }));
    let args = worker.seen.lock().deployments[0]
        .job
        .as_ref()
        .unwrap()
        .args
        .clone();
    assert_eq!(args, ["--a", "b"]);
}

#[tokio::test]
async fn vertex_pages_have_their_fields() {
    let (cluster, _worker, job) = running().await;
    let vertex = cluster.ok(&format!("/jobs/{job}")).await["vertices"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let base = format!("/jobs/{job}/vertices/{vertex}");
    let detail = cluster.ok(&base).await;
    has(
        &detail,
        &[
            ("id", 's'),
            ("name", 's'),
            ("parallelism", 'i'),
            ("maxParallelism", 'i'),
            ("now", 'i'),
        ],
    );
    has(&detail, &[("subtasks", 'a'), ("aggregated", 'o')]);
    for subtask in [
        detail["subtasks"][0].clone(),
        cluster.ok(&format!("{base}/subtasks/0")).await,
    ] {
        has(
            &subtask,
            &[
                ("subtask", 'i'),
                ("status", 's'),
                ("attempt", 'i'),
                ("endpoint", 's'),
            ],
        );
        has(
            &subtask,
            &[
                ("start-time", 'i'),
                ("end-time", 'i'),
                ("duration", 'i'),
                ("status-duration", 'o'),
            ],
        );
        has(&subtask, &[("taskmanager-id", 's'), ("start_time", 'i')]);
        has(&subtask["metrics"], &IO);
    }
    has(
        &detail["aggregated"]["metrics"]["read-records"],
        &[("min", 'i'), ("median", 'i'), ("p95", 'i')],
    );
    let times = cluster.ok(&format!("{base}/subtasktimes")).await;
    has_all_states(&times["subtasks"][0]["timestamps"]);
    let workers = cluster.ok(&format!("{base}/taskmanagers")).await;
    has(
        &workers["taskmanagers"][0],
        &[
            ("endpoint", 's'),
            ("status-counts", 'o'),
            ("aggregated", 'o'),
        ],
    );
    let pressure = cluster.ok(&format!("{base}/backpressure")).await;
    has(
        &pressure,
        &[
            ("status", 's'),
            ("backpressureLevel", 's'),
            ("backpressure-level", 's'),
        ],
    );
    has(
        &pressure["subtasks"][0],
        &[("ratio", 'f'), ("idleRatio", 'f'), ("busyRatio", 'f')],
    );
    assert!(cluster.ok(&format!("{base}/watermarks")).await.is_array());
    assert!(
        cluster
            .ok(&format!("{base}/subtasks/metrics"))
            .await
            .is_array()
    );
    assert!(
        cluster
            .ok(&format!("{base}/metrics?get=0.numRecordsIn"))
            .await
            .is_array()
    );
}

#[tokio::test]
async fn checkpoint_pages_have_their_fields() {
    let (cluster, _worker, job) = running().await;
    let base = format!("/jobs/{job}/checkpoints");
    let stats = cluster
        .until(&base, |body| body["latest"]["completed"].is_object())
        .await;
    has(
        &stats["counts"],
        &["restored", "total", "in_progress", "completed", "failed"].map(|n| (n, 'i')),
    );
    let summaries = [
        "checkpointed_size",
        "state_size",
        "end_to_end_duration",
        "alignment_buffered",
        "processed_data",
        "persisted_data",
    ];
    has(&stats["summary"], &summaries.map(|n| (n, 'o')));
    has(
        &stats["summary"]["state_size"],
        &["min", "max", "avg", "p50", "p90", "p95", "p99", "p999"].map(|n| (n, 'f')),
    );
    let completed = &stats["latest"]["completed"];
    let figures = [
        ("id", 'i'),
        ("status", 's'),
        ("latest_ack_timestamp", 'i'),
        ("checkpointed_size", 'i'),
        ("state_size", 'i'),
        ("end_to_end_duration", 'i'),
        ("alignment_buffered", 'i'),
        ("processed_data", 'i'),
        ("persisted_data", 'i'),
        ("num_subtasks", 'i'),
        ("num_acknowledged_subtasks", 'i'),
    ];
    has(completed, &figures);
    has(
        completed,
        &[
            ("className", 's'),
            ("is_savepoint", 'b'),
            ("savepointFormat", '?'),
        ],
    );
    has(
        completed,
        &[
            ("trigger_timestamp", 'i'),
            ("checkpoint_type", 's'),
            ("tasks", 'o'),
        ],
    );
    has(completed, &[("external_path", 's'), ("discarded", 'b')]);
    assert_eq!(
        (&completed["num_subtasks"], &completed["state_size"]),
        (&json!(4), &json!(400))
    );
    let id = &completed["id"];
    let details = cluster.ok(&format!("{base}/details/{id}")).await;
    let (vertex, of_vertex) = details["tasks"].as_object().unwrap().iter().next().unwrap();
    has(of_vertex, &figures);
    let subtasks = cluster
        .ok(&format!("{base}/details/{id}/subtasks/{vertex}"))
        .await;
    has(
        &subtasks["subtasks"][0],
        &[
            ("index", 'i'),
            ("className", 's'),
            ("checkpoint", 'o'),
            ("alignment", 'o'),
        ],
    );
    assert_eq!(subtasks["subtasks"][0]["checkpoint"]["sync"], 1);
    has(
        &subtasks["summary"],
        &[
            ("start_delay", 'o'),
            ("alignment", 'o'),
            ("checkpoint_duration", 'o'),
        ],
    );
    let config = cluster.ok(&format!("{base}/config")).await;
    assert_eq!(
        (&config["mode"], &config["interval"]),
        (&json!("exactly_once"), &json!(20))
    );
    let metrics = cluster
        .ok(&format!(
            "/jobs/{job}/metrics?get=lastCheckpointSize,numRestarts"
        ))
        .await;
    assert_eq!(
        metrics[0],
        json!({ "id": "lastCheckpointSize", "value": "400" })
    );
}

#[tokio::test]
async fn worker_pages_have_their_fields() {
    let (cluster, _worker, _job) = running().await;
    let listed = cluster.ok("/taskmanagers").await["taskmanagers"][0].clone();
    let id = listed["id"].as_str().unwrap().to_owned();
    for worker in [listed, cluster.ok(&format!("/taskmanagers/{id}")).await] {
        has(
            &worker,
            &[
                ("id", 's'),
                ("path", 's'),
                ("dataPort", 'i'),
                ("jmxPort", 'i'),
            ],
        );
        has(
            &worker,
            &[
                ("timeSinceLastHeartbeat", 'i'),
                ("slotsNumber", 'i'),
                ("freeSlots", 'i'),
            ],
        );
        has(
            &worker,
            &[
                ("totalResource", 'o'),
                ("freeResource", 'o'),
                ("hardware", 'o'),
            ],
        );
        has(&worker, &[("memoryConfiguration", 'o')]);
    }
    let detail = cluster.ok(&format!("/taskmanagers/{id}")).await;
    has(&detail, &[("allocatedSlots", 'a'), ("metrics", 'o')]);
    assert_eq!(detail["allocatedSlots"].as_array().unwrap().len(), 2);
    assert_eq!(cluster.get("/taskmanagers/nobody").await.0, 404);
}

#[tokio::test]
async fn modules_are_uploaded_listed_planned_and_deleted() {
    let cluster = TestCluster::start(&[]).await;
    let (status, body) = cluster.upload("job.wasm", b"bad module").await;
    assert_eq!(
        (status, body),
        (400, json!({ "errors": ["this is not a component"] }))
    );
    assert_eq!(cluster.upload("job.txt", b"module").await.0, 400);
    assert_eq!(cluster.upload("job.wasm", b"").await.0, 400);
    let id = cluster.module().await;
    let jars = cluster.ok("/jars").await;
    assert_eq!(jars["files"].as_array().unwrap().len(), 1);
    has(
        &jars["files"][0],
        &[
            ("id", 's'),
            ("name", 's'),
            ("uploaded", 'i'),
            ("entry", 'a'),
        ],
    );
    assert_eq!(jars["files"][0]["name"], "job.wasm");
    let got = cluster.ok(&format!("/jars/{id}/plan?parallelism=3")).await;
    let (_, posted) = cluster
        .post(&format!("/v1/jars/{id}/plan"), json!({ "parallelism": 3 }))
        .await;
    for plan in [got, posted] {
        assert_eq!(plan["plan"]["nodes"][0]["parallelism"], 3);
        assert_eq!(plan["plan"]["name"], "fake job");
    }
    assert_eq!(
        cluster.ok("/jobs").await,
        json!({ "jobs": [] }),
        "planning runs nothing"
    );
    let deleted = cluster
        .http
        .delete(cluster.url(&format!("/jars/{id}")))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            deleted.status().as_u16(),
            deleted.text().await.unwrap().as_str()
        ),
        (200, "{}")
    );
    assert_eq!(
        cluster.post(&format!("/jars/{id}/run"), json!({})).await.0,
        404
    );
}

#[tokio::test]
async fn wrong_submissions_are_refused_at_once() {
    let cluster = TestCluster::start(&[]).await;
    let id = cluster.module().await;
    let run = format!("/jars/{id}/run");
    let cases = [
        (
            json!({ "programArgsList": ["--fail"] }),
            "argument --input-topic is missing",
        ),
        (
            json!({ "flinkConfiguration": { "parallelism.defualt": "1" } }),
            "did you mean \"parallelism.default\"",
        ),
        (
            json!({ "flinkConfiguration": { "rest.port": "1" } }),
            "a setting of the cluster",
        ),
        (json!({ "parallelism": 129 }), "pipeline.max-parallelism"),
        (
            json!({ "savepointPath": "/nowhere/chk-1" }),
            "does not exist",
        ),
        (
            json!({ "flinkConfiguration": {
                "execution.checkpointing.interval": "1 s",
                "execution.checkpointing.dir": "/proc/tidemill",
            } }),
            "checkpoints cannot be written",
        ),
    ];
    for (body, expected) in cases {
        let (status, answer) = cluster.post(&run, body.clone()).await;
        let text = answer["errors"][0].as_str().unwrap_or_default().to_owned();
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(text.contains(expected), "{body}: {text}");
    }
    assert_eq!(cluster.ok("/jobs").await, json!({ "jobs": [] }));
}

#[tokio::test]
async fn errors_have_one_shape() {
    let cluster = TestCluster::start(&[]).await;
    let zeros = "0".repeat(32);
    let cases = [
        ("/nosuch".to_owned(), 404, "Not found: /nosuch".to_owned()),
        ("/v2/overview".to_owned(), 404, "Not found: /v2/overview".to_owned()),
        (format!("/jobs/{zeros}"), 404, format!("Job {zeros} not found")),
        (
            "/jobs/xyz".to_owned(),
            400,
            "Bad request, could not parse parameters: Cannot resolve path parameter (jobid) from value \"xyz\"."
                .to_owned(),
        ),
    ];
    for (path, status, message) in cases {
        assert_eq!(
            cluster.get(&path).await,
            (status, json!({ "errors": [message] }))
        );
    }
    let (status, body) = cluster.post("/overview", json!({})).await;
    assert_eq!(status, 405);
    assert!(body["errors"].is_array());
    let (status, _) = cluster.post("/jars/x/run", json!([])).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let cluster = TestCluster::start(&[]).await;
    let request = cluster
        .http
        .get(cluster.url("/overview"))
        .header("origin", "https://evil.example");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 403);
    let request = cluster
        .http
        .get(cluster.url("/overview"))
        .header("host", "evil.example");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 403);
}

#[tokio::test]
async fn uploads_are_limited() {
    let cluster = TestCluster::start(&[("rest.server.max-content-length", "4 b")]).await;
    let (status, body) = cluster.upload("job.wasm", b"more than four").await;
    assert_eq!(status, 413, "{body}");
}

#[tokio::test]
async fn wider_addresses_are_refused_at_start() {
    let mut config = tidemill_types::config::Config::default();
    config.set("rest.bind-address", "0.0.0.0").unwrap();
    let planner = std::sync::Arc::new(crate::fake::FakePlanner);
    let error = tidemill_coordinator::Coordinator::start(&config, planner, Default::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("rest.bind-address"), "{error}");
}

#[tokio::test]
async fn modules_outlive_a_restart_and_deleting_them_leaves_jobs_alone() {
    let (cluster, worker, job) = running().await;
    let id = cluster.ok("/jars").await["files"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    cluster
        .http
        .delete(cluster.url(&format!("/jars/{id}")))
        .send()
        .await
        .unwrap();
    let failed = crate::fake::update(worker.task(0), TaskState::Failed);
    worker.report(failed).await;
    until("the next attempt", || {
        (worker.seen.lock().deployments.len() == 2).then_some(())
    })
    .await;
    cluster.until_running(&job).await;
    let hash = worker.seen.lock().deployments[1]
        .job
        .as_ref()
        .unwrap()
        .module_hash
        .clone();
    let url = format!("http://{}", cluster.coordinator.rpc_addr());
    let mut client =
        tidemill_protocol::control::coordinator_client::CoordinatorClient::connect(url)
            .await
            .unwrap();
    let request = tidemill_protocol::control::ModuleRequest {
        module_hash: hash,
        worker_id: "x".into(),
    };
    let mut chunks = client.fetch_module(request).await.unwrap().into_inner();
    assert_eq!(
        &chunks.message().await.unwrap().unwrap().data[..],
        b"module"
    );
}
