//! A module that misbehaves fails its own job, with a cause that says what and where, and nobody
//! else's: a job beside it on the same worker keeps exact counts.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tidemill_e2e::{ClickRun, Cluster, ClusterBuilder, module};
use tidemill_testkit::Kafka;

const WINDOWS: u64 = 20;
const RATE: u64 = 12_000;
const LIMIT: Duration = Duration::from_secs(120);

/// Misdeeds while running, and what the cause must say beside the operator's name.
const MISDEEDS: &[(&str, &str)] = &[
    ("loop", "interrupted after 1."),
    ("spin", "interrupted after 1."),
    ("sleep", "the limit is 1.0 s"),
    ("memory", "exceeded 128 MiB of memory"),
    ("timer-flood", "of memory"),
    ("recurse", "exceeded its stack"),
    ("panic", "panicked: the number 3 is bad luck"),
    ("huge-panic", "xxxx"),
    ("fail", "this operator gives up"),
    ("reject", "the number 3 is not wanted"),
    ("huge-error", "xxxx"),
    ("emit-flood", "interrupted"),
    ("stdout-flood", "interrupted"),
    ("log-flood", "interrupted"),
    ("metric-flood", "more than 1000 metrics"),
    ("huge-key", "too much data"),
    ("bad-port", "port 77"),
    ("bad-ends", "the entries end at byte 1000"),
    ("decreasing-ends", "lies before the end"),
    ("short-column", "values has 1 entries for 2 records"),
    ("bad-null", "position 9 in nulls"),
    ("bad-header", "position 9 in headers"),
    ("bad-state", "state 77 does not exist"),
    ("bad-operator", "operator 77 does not exist"),
];

/// Misdeeds while planning, and what the refusal must say.
const PLANS: &[(&str, &str)] = &[
    ("loop-in-plan", "interrupted after 2.0 s"),
    ("memory-in-plan", "of memory"),
    ("recurse-in-plan", "exceeded its stack"),
    ("panic-in-plan", "no plan today"),
    ("fail-in-plan", "this job does not want to be planned"),
    ("huge-name", "a vertex name of"),
    ("control-characters", "control characters"),
    ("many-operators", "more than 500 vertices"),
    ("duplicate-uids", "have the same uid"),
];

/// One worker with a place for the honest job and places for two others.
async fn cluster() -> anyhow::Result<Cluster> {
    ClusterBuilder::new()
        .slots(4)
        .set("tidemill.plan.timeout", "2 s")
        .start()
        .await
}

fn args(mode: &str) -> Vec<String> {
    ["--mode", mode, "--after", "3", "--rate", "1000"]
        .map(ToOwned::to_owned)
        .to_vec()
}

/// Runs a misdeed and says what is wrong with the way it ended.
async fn misbehave(cluster: &Cluster, module: &str, mode: &str, says: &str) -> anyhow::Result<()> {
    let settings = json!({ "tidemill.guest.call-timeout": "1 s" });
    let job = cluster.rest.run(module, &args(mode), 1, settings).await?;
    cluster.rest.wait_for(&job, "FAILED", LIMIT).await?;
    let cause = cluster.rest.cause(&job).await?;
    let names_operator = cause.contains(&format!("operator \"{mode}"));
    anyhow::ensure!(
        names_operator,
        "{mode}: the cause does not name the operator: {cause}"
    );
    anyhow::ensure!(
        cause.contains(says),
        "{mode}: the cause does not say \"{says}\": {cause}"
    );
    anyhow::ensure!(
        cause.len() < 100_000,
        "{mode}: a cause of {} bytes",
        cause.len()
    );
    Ok(())
}

async fn worker_ids(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let workers = cluster.rest.get("/taskmanagers").await?;
    let workers = workers["taskmanagers"].as_array().context("a list")?;
    Ok(workers.iter().map(|worker| worker["id"].clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_jobs_fail_with_a_cause_and_alone() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    let cluster = cluster().await?;
    let (pids, workers) = (cluster.pids(), worker_ids(&cluster).await?);
    let clicks = cluster.rest.upload(&module("click-event-count")).await?;
    let hostile = cluster.rest.upload(&module("hostile")).await?;
    let mut run = ClickRun::start(kafka.bootstrap(), "beside", WINDOWS, RATE).await?;
    let honest = cluster.rest.run(&clicks, &run.args, 2, json!({})).await?;
    run.until_windows(1, LIMIT).await?;

    // Two at a time: the free slots.
    let mut wrong = Vec::new();
    for pair in MISDEEDS.chunks(2) {
        let ends = pair
            .iter()
            .map(|(mode, says)| misbehave(&cluster, &hostile, mode, says));
        let ends = futures::future::join_all(ends).await;
        wrong.extend(
            ends.into_iter()
                .filter_map(Result::err)
                .map(|error| error.to_string()),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let verdict = run.finish(LIMIT).await?;
    assert!(verdict.is_right(), "{verdict:?}");
    assert_eq!(verdict.repeated, 0, "the honest job was restarted");
    assert_eq!(cluster.rest.state(&honest).await?, "RUNNING");
    assert_eq!(cluster.rest.cause(&honest).await?, "");
    assert_eq!(
        (cluster.pids(), worker_ids(&cluster).await?),
        (pids, workers)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_plans_are_refused_with_a_cause() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let hostile = cluster.rest.upload(&module("hostile")).await?;
    for (mode, says) in PLANS {
        let body = json!({ "programArgsList": args(mode) });
        let error = cluster.rest.refused(&hostile, &body).await?;
        assert!(
            error.contains(says),
            "{mode}: the refusal does not say \"{says}\": {error}"
        );
    }
    assert_eq!(cluster.pids().len(), 2, "a process has ended");
    Ok(())
}

/// Nothing is at fault here: the clock of planning stands still, so the plan is the same twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_asks_the_clock_is_the_same_twice() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let hostile = cluster.rest.upload(&module("hostile")).await?;
    let args = ["--mode", "unstable-plan", "--records", "10"].map(ToOwned::to_owned);
    let job = cluster.rest.run(&hostile, &args, 1, json!({})).await?;
    cluster.rest.wait_for(&job, "FINISHED", LIMIT).await
}

/// A timer that re-arms itself in the past keeps its job busy, and can be cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_never_rests_can_be_cancelled() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let hostile = cluster.rest.upload(&module("hostile")).await?;
    let job = cluster
        .rest
        .run(&hostile, &args("timer-in-the-past"), 1, json!({}))
        .await?;
    cluster.rest.wait_running(&job, LIMIT).await?;
    cluster.rest.cancel(&job).await?;
    cluster
        .rest
        .wait_for(&job, "CANCELED", Duration::from_secs(10))
        .await
}
