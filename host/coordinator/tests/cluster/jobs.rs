//! The life of a job over real gRPC.

use serde_json::json;
use tidemill_protocol::control::{Register, TaskState, TaskUpdate};

use crate::fake::{FakeWorker, TestCluster, until, update};

const FAST: [(&str, &str); 3] = [
    ("execution.checkpointing.interval", "20 ms"),
    ("restart-strategy.type", "fixed-delay"),
    ("restart-strategy.fixed-delay.delay", "10 ms"),
];

#[tokio::test]
async fn a_job_runs_on_both_workers_and_completes_checkpoints() {
    let cluster = TestCluster::start(&FAST).await;
    let a = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let b = FakeWorker::start(&cluster, "b:1-x", 1).await;
    let job = cluster.run(json!({ "parallelism": 2 })).await;
    cluster.until_running(&job).await;
    for worker in [&a, &b] {
        until("a completed checkpoint", || {
            worker
                .seen
                .lock()
                .completed
                .iter()
                .find(|n| **n >= 3)
                .copied()
        })
        .await;
        let seen = worker.seen.lock();
        let deploy = &seen.deployments[0];
        assert_eq!(deploy.tasks.len(), 2, "one subtask of each vertex");
        assert_eq!(deploy.locations.len(), 4);
        assert!(seen.epochs.iter().all(|epoch| *epoch == 1));
    }
    let stats = format!("/jobs/{job}/checkpoints");
    let body = cluster
        .until(&stats, |body| {
            body["latest"]["completed"]["id"].as_u64() >= Some(3)
        })
        .await;
    let path = body["latest"]["completed"]["external_path"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        path.starts_with("file:///") && path.contains(&job),
        "{path}"
    );
    // Only one is kept.
    let folder = cluster.dir.path().join("checkpoints").join(&job);
    until("old checkpoints are deleted", || {
        let chk1 = folder.join("chk-1/_metadata");
        (!chk1.exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_is_restarted_from_its_checkpoint_when_a_worker_dies() {
    let cluster = TestCluster::start(&FAST).await;
    let a = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let b = FakeWorker::start(&cluster, "b:1-x", 1).await;
    let job = cluster.run(json!({ "parallelism": 2 })).await;
    cluster.until_running(&job).await;
    until("a completed checkpoint", || {
        (!a.seen.lock().completed.is_empty()).then_some(())
    })
    .await;
    assert!(a.restore(0).is_none());
    b.kill();
    // One slot is left, two are needed: the job waits.
    cluster
        .until(&format!("/jobs/{job}"), |body| {
            body["state"] == "RUNNING" && body["vertices"][0]["tasks"]["SCHEDULED"] == 2
        })
        .await;
    let c = FakeWorker::start(&cluster, "c:1-x", 1).await;
    cluster.until_running(&job).await;
    for worker in [&a, &c] {
        let restore = worker
            .restore(0)
            .expect("the second attempt starts from a checkpoint");
        assert_eq!(
            restore.source.unwrap().len(),
            2,
            "every subtask is given all splits"
        );
        assert!(
            restore
                .base
                .ends_with(&format!("chk-{}", restore.checkpoint))
        );
    }
    assert_eq!(a.seen.lock().deployments.last().unwrap().attempt, 1);
    let body = cluster.ok(&format!("/jobs/{job}/exceptions")).await;
    let entry = &body["exceptionHistory"]["entries"][0];
    assert_eq!(entry["exceptionName"], "WorkerLost");
    assert_eq!(entry["taskManagerId"], "b:1-x");
    let restored = cluster.ok(&format!("/jobs/{job}/checkpoints")).await;
    assert_eq!(restored["counts"]["restored"], 1);
}

#[tokio::test]
async fn a_failed_task_restarts_the_whole_attempt() {
    let cluster = TestCluster::start(&FAST).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 2).await;
    let job = cluster.run(json!({ "parallelism": 2 })).await;
    cluster.until_running(&job).await;
    let failed = TaskUpdate {
        cause: "the guest panicked".into(),
        ..update(worker.task(1), TaskState::Failed)
    };
    worker.report(failed).await;
    until("the next attempt", || {
        (worker.seen.lock().deployments.len() == 2).then_some(())
    })
    .await;
    cluster.until_running(&job).await;
    assert!(worker.seen.lock().cancelled.contains(&0));
    let body = cluster.ok(&format!("/jobs/{job}/exceptions")).await;
    let entry = &body["exceptionHistory"]["entries"][0];
    assert_eq!(entry["stacktrace"], "the guest panicked");
    assert_eq!(entry["taskName"], "counter (1/2)");
    let metrics = cluster
        .ok(&format!("/jobs/{job}/metrics?get=numRestarts"))
        .await;
    assert_eq!(metrics, json!([{ "id": "numRestarts", "value": "1" }]));
}

#[tokio::test]
async fn a_job_without_restart_strategy_fails_with_the_cause() {
    let cluster = TestCluster::start(&[]).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let job = cluster.run(json!({})).await;
    cluster.until_running(&job).await;
    let failed = TaskUpdate {
        cause: "boom".into(),
        ..update(worker.task(0), TaskState::Failed)
    };
    worker.report(failed).await;
    cluster.until_state(&job, "FAILED").await;
    let result = cluster.ok(&format!("/jobs/{job}/execution-result")).await;
    assert_eq!(
        result["job-execution-result"]["application-status"],
        "FAILED"
    );
    let cause = result["job-execution-result"]["failure-cause"]["stack-trace"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(cause, "events (1/1): boom");
    assert_eq!(cluster.ok("/overview").await["slots-available"], 1);
}

#[tokio::test]
async fn cancelling_stops_the_tasks_and_keeps_the_checkpoints() {
    let cluster = TestCluster::start(&FAST).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let job = cluster.run(json!({})).await;
    cluster.until_running(&job).await;
    until("a completed checkpoint", || {
        (!worker.seen.lock().completed.is_empty()).then_some(())
    })
    .await;
    let url = cluster.url(&format!("/jobs/{job}?mode=cancel"));
    let response = cluster.http.patch(url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 202);
    assert_eq!(response.text().await.unwrap(), "{}");
    cluster.until_state(&job, "CANCELED").await;
    assert_eq!(worker.seen.lock().cancelled, [0]);
    let latest = cluster.ok(&format!("/jobs/{job}/checkpoints")).await;
    let path = latest["latest"]["completed"]["external_path"]
        .as_str()
        .unwrap()
        .to_owned();
    // And another job goes on from there, under numbers that follow.
    let next = cluster.run(json!({ "savepointPath": path })).await;
    cluster.until_running(&next).await;
    let restore = worker.restore(0).unwrap();
    assert_eq!(restore.base, path);
    let stats = format!("/jobs/{next}/checkpoints");
    let checkpoints = cluster
        .until(&stats, |body| {
            body["counts"]["completed"].as_u64() > Some(0)
        })
        .await;
    assert!(checkpoints["latest"]["completed"]["id"].as_u64() > Some(restore.checkpoint.0));
}

#[tokio::test]
async fn a_bounded_job_finishes_and_its_checkpoints_go() {
    let cluster = TestCluster::start(&FAST).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let job = cluster.run(json!({})).await;
    cluster.until_running(&job).await;
    worker
        .report(update(worker.task(0), TaskState::Finished))
        .await;
    // Checkpoints go on with the source's last state.
    let before = worker.seen.lock().completed.len();
    worker.seen.lock().deaf = true;
    worker
        .report(update(worker.task(1), TaskState::Finished))
        .await;
    let body = cluster.until_state(&job, "FINISHED").await;
    assert_eq!(body["vertices"][0]["status"], "FINISHED");
    assert!(worker.seen.lock().completed.len() >= before);
    let folder = cluster.dir.path().join("checkpoints").join(&job);
    until("the checkpoints are deleted", || {
        let left = std::fs::read_dir(&folder).map_or(0, Iterator::count);
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_waits_for_slots_and_starts_when_they_come() {
    let cluster = TestCluster::start(&[]).await;
    let job = cluster.run(json!({ "parallelism": 3 })).await;
    let waiting = cluster.until_state(&job, "RUNNING").await;
    assert_eq!(waiting["vertices"][0]["status"], "SCHEDULED");
    let _worker = FakeWorker::start(&cluster, "a:1-x", 3).await;
    cluster.until_running(&job).await;
}

#[tokio::test]
async fn a_job_fails_when_slots_do_not_come_in_time() {
    let cluster = TestCluster::start(&[("slot.request.timeout", "50 ms")]).await;
    let job = cluster.run(json!({})).await;
    cluster.until_state(&job, "FAILED").await;
    let body = cluster.ok(&format!("/jobs/{job}/exceptions")).await;
    let text = body["exceptionHistory"]["entries"][0]["stacktrace"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(text.contains("needs 1 slots"), "{text}");
}

#[tokio::test]
async fn a_worker_of_another_version_is_refused() {
    let cluster = TestCluster::start(&[]).await;
    let register = Register {
        worker_id: "a:1-x".into(),
        data_address: "127.0.0.1:1".into(),
        slots: 1,
        version: "0.0.1".into(),
        ..Register::default()
    };
    let worker = FakeWorker::start_as(&cluster, register).await;
    let reason = until("the refusal", || worker.seen.lock().refused.clone()).await;
    assert!(reason.contains("0.0.1"), "{reason}");
    assert_eq!(cluster.ok("/overview").await["taskmanagers"], 0);
}

#[tokio::test]
async fn a_silent_worker_is_given_up() {
    let cluster = TestCluster::start(&[
        ("heartbeat.interval", "20 ms"),
        ("heartbeat.timeout", "100 ms"),
    ])
    .await;
    let _silent = FakeWorker::start(&cluster, "a:1-x", 1).await;
    cluster
        .until("/overview", |body| body["taskmanagers"] == 1)
        .await;
    cluster
        .until("/overview", |body| body["taskmanagers"] == 0)
        .await;
}

#[tokio::test]
async fn tasks_of_an_unknown_job_are_stopped() {
    let cluster = TestCluster::start(&[]).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let task = tidemill_protocol::control::TaskId {
        job: "0".repeat(32),
        attempt: 7,
        vertex: 0,
        subtask: 0,
    };
    worker.report(update(task, TaskState::Running)).await;
    until("the order to stop", || {
        worker.seen.lock().cancelled.contains(&7).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_that_nobody_answers_fails_and_takes_the_job_along() {
    let mut settings = FAST.to_vec();
    settings.push(("execution.checkpointing.timeout", "50 ms"));
    let cluster = TestCluster::start(&settings).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    worker.seen.lock().deaf = true;
    let job = cluster.run(json!({})).await;
    let body = cluster
        .until(&format!("/jobs/{job}/exceptions"), |body| {
            body["exceptionHistory"]["entries"][0].is_object()
        })
        .await;
    assert_eq!(
        body["exceptionHistory"]["entries"][0]["exceptionName"],
        "CheckpointFailed"
    );
    let stats = cluster.ok(&format!("/jobs/{job}/checkpoints")).await;
    assert!(stats["latest"]["failed"]["failure_message"].is_string());
}

#[tokio::test]
async fn nothing_is_triggered_while_an_attempt_is_being_stopped() {
    let mut settings = FAST.to_vec();
    settings[2] = ("restart-strategy.fixed-delay.delay", "200 ms");
    let cluster = TestCluster::start(&settings).await;
    let worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let job = cluster.run(json!({})).await;
    cluster.until_running(&job).await;
    until("a completed checkpoint", || {
        (!worker.seen.lock().completed.is_empty()).then_some(())
    })
    .await;
    worker
        .report(update(worker.task(0), TaskState::Failed))
        .await;
    // The delay is ten intervals long.
    until("the next attempt", || {
        (worker.seen.lock().deployments.len() == 2).then_some(())
    })
    .await;
    cluster.until_running(&job).await;
}

#[tokio::test]
async fn a_checkpoint_can_be_asked_for() {
    let cluster = TestCluster::start(&[]).await;
    let _worker = FakeWorker::start(&cluster, "a:1-x", 1).await;
    let job = cluster.run(json!({})).await;
    cluster.until_running(&job).await;
    let trigger = "0123456789abcdef0123456789abcdef";
    let base = format!("/jobs/{job}/checkpoints");
    for _ in 0..2 {
        let (status, body) = cluster
            .post(
                &base,
                json!({ "checkpointType": "FULL", "triggerId": trigger }),
            )
            .await;
        assert_eq!((status, body), (202, json!({ "request-id": trigger })));
    }
    let done = cluster
        .until(&format!("{base}/{trigger}"), |body| {
            body["status"]["id"] == "COMPLETED"
        })
        .await;
    assert_eq!(done["operation"], json!({ "checkpointId": 1 }));
    assert_eq!(cluster.ok(&base).await["counts"]["total"], 1);
    let unknown = format!("{base}/{}", "0".repeat(32));
    assert_eq!(cluster.get(&unknown).await.0, 404);
}
