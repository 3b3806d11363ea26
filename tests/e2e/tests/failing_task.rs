//! Tasks that fail, workers that go, come back or stand still: the job restarts from its last
//! checkpoint as its strategy says, and counts stay exact.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tidemill_e2e::{ClickRun, Cluster, ClusterBuilder, module};
use tidemill_testkit::{Kafka, wait_until};

const WINDOWS: u64 = 10;
const RATE: u64 = 12_000;
const LIMIT: Duration = Duration::from_secs(90);
/// What must happen at once, on a busy machine.
const SOON: Duration = Duration::from_secs(15);

fn fixed_delay(delay: &str, attempts: u32) -> Value {
    json!({
        "execution.checkpointing.interval": "100 ms",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.delay": delay,
        "restart-strategy.fixed-delay.attempts": attempts.to_string(),
    })
}

fn strings<const N: usize>(args: [&str; N]) -> [String; N] {
    args.map(ToOwned::to_owned)
}

/// Starts the main job beside a generator and waits for its first windows and checkpoint.
async fn start_clicks(cluster: &Cluster, name: &str) -> anyhow::Result<(String, ClickRun)> {
    let kafka = Kafka::start().await?;
    let module = cluster.rest.upload(&module("click-event-count")).await?;
    let mut clicks = ClickRun::start(kafka.bootstrap(), name, WINDOWS, RATE).await?;
    let job = cluster
        .rest
        .run(&module, &clicks.args, 2, fixed_delay("100 ms", 1000))
        .await?;
    clicks.until_windows(2, LIMIT).await?;
    wait_until(LIMIT, "a checkpoint", || async {
        cluster
            .rest
            .completed_checkpoints(&job)
            .await
            .is_ok_and(|completed| completed > 0)
    })
    .await?;
    Ok((job, clicks))
}

/// Reads the rest of the results, which must all be right, and cancels the job.
async fn finish_clicks(cluster: &Cluster, job: &str, clicks: ClickRun) -> anyhow::Result<()> {
    let verdict = clicks.finish(LIMIT).await?;
    assert!(verdict.is_right(), "{verdict:?}");
    assert!(
        cluster.rest.restored_checkpoint(job).await? > 0,
        "it did not restart"
    );
    cluster.rest.cancel(job).await?;
    cluster.rest.wait_for(job, "CANCELED", SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_is_restarted_until_attempts_are_used_up() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new().start().await?;
    let module = cluster.rest.upload(&module("hostile")).await?;
    // Each attempt lives for about a second, ten checkpoints long.
    let args = strings(["--mode", "panic", "--after", "1000", "--rate", "1000"]);
    let job = cluster
        .rest
        .run(&module, &args, 1, fixed_delay("100 ms", 2))
        .await?;
    cluster.rest.wait_for(&job, "FAILED", LIMIT).await?;

    let body = cluster.rest.get(&format!("/jobs/{job}/exceptions")).await?;
    let entries = body["exceptionHistory"]["entries"]
        .as_array()
        .context("entries")?;
    assert_eq!(entries.len(), 3, "two restarts are three failures: {body}");
    let cause = |entry: &Value| entry["stacktrace"].as_str().unwrap_or_default().to_owned();
    // Later attempts begin where the last checkpoint was, not at the first number.
    let numbers: Vec<u64> = entries
        .iter()
        .filter_map(|entry| bad_number(&cause(entry)))
        .collect();
    assert_eq!(numbers.len(), 3, "{body}");
    assert!(
        numbers[0] > numbers[1] && numbers[1] > numbers[2],
        "newest first: {numbers:?}"
    );
    assert!(
        numbers[1] > 1_200,
        "the second attempt began from nothing: {numbers:?}"
    );
    assert!(
        cluster.rest.restored_checkpoint(&job).await? > 0,
        "no checkpoint was restored"
    );
    Ok(())
}

/// The number at which the hostile job panicked, by its words.
fn bad_number(cause: &str) -> Option<u64> {
    let rest = cause.split("the number ").nth(1)?;
    rest.split(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_checkpoints_a_task_that_fails_ends_its_job() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new().start().await?;
    let module = cluster.rest.upload(&module("hostile")).await?;
    let args = strings(["--mode", "panic", "--after", "3", "--rate", "1000"]);
    let job = cluster.rest.run(&module, &args, 1, json!({})).await?;
    cluster.rest.wait_for(&job, "FAILED", SOON).await?;
    let body = cluster.rest.get(&format!("/jobs/{job}/exceptions")).await?;
    assert_eq!(
        body["exceptionHistory"]["entries"].as_array().map(Vec::len),
        Some(1),
        "{body}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_workers_goes_on_when_one_comes() -> anyhow::Result<()> {
    let mut cluster = ClusterBuilder::new().workers(2).start().await?;
    let (job, clicks) = start_clicks(&cluster, "no-workers").await?;
    cluster.kill_worker(1)?;
    cluster.kill_worker(0)?;
    cluster.wait_for_workers(0).await?;
    cluster.start_worker()?;
    cluster.wait_for_workers(1).await?;
    cluster.start_worker()?;
    finish_clicks(&cluster, &job, clicks).await
}

/// The frozen worker's connections stay open: only its silence gives it away. When it wakes, it
/// still has tasks of an attempt that is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stood_still_does_no_harm_when_it_wakes() -> anyhow::Result<()> {
    let builder = ClusterBuilder::new().workers(3);
    let builder = builder
        .set("heartbeat.interval", "200 ms")
        .set("heartbeat.timeout", "2 s");
    let cluster = builder.start().await?;
    let (job, mut clicks) = start_clicks(&cluster, "frozen").await?;
    let frozen = worker_with_tasks(&cluster, &job).await?;
    cluster.freeze_worker(frozen)?;
    cluster.wait_for_workers(2).await?;
    cluster.rest.wait_running(&job, LIMIT).await?;
    clicks.until_windows(6, LIMIT).await?;
    cluster.thaw_worker(frozen)?;
    cluster.wait_for_workers(3).await?;
    finish_clicks(&cluster, &job, clicks).await?;
    assert_eq!(cluster.pids().len(), 4, "a process has ended");
    Ok(())
}

/// The position of a worker that runs tasks of the job.
async fn worker_with_tasks(cluster: &Cluster, job: &str) -> anyhow::Result<usize> {
    let body = cluster.rest.get(&format!("/jobs/{job}")).await?;
    let vertex = body["vertices"][0]["id"].as_str().context("a vertex")?;
    let vertex = cluster
        .rest
        .get(&format!("/jobs/{job}/vertices/{vertex}"))
        .await?;
    let busy = vertex["subtasks"][0]["taskmanager-id"]
        .as_str()
        .context("a worker")?
        .to_owned();
    let log = |index: usize| cluster.workers[index].log();
    (0..cluster.workers.len())
        .find(|index| log(*index).contains(&busy))
        .with_context(|| format!("no worker is {busy}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_restart_can_be_cancelled() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new().start().await?;
    let module = cluster.rest.upload(&module("hostile")).await?;
    let args = strings(["--mode", "panic", "--after", "3", "--rate", "1000"]);
    let job = cluster
        .rest
        .run(&module, &args, 1, fixed_delay("1 h", 5))
        .await?;
    cluster.rest.wait_for(&job, "RESTARTING", SOON).await?;
    cluster.rest.cancel(&job).await?;
    cluster.rest.wait_for(&job, "CANCELED", SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_lacks_slots_waits_for_a_worker() -> anyhow::Result<()> {
    let mut cluster = ClusterBuilder::new().start().await?;
    let module = cluster.rest.upload(&module("hostile")).await?;
    let args = strings(["--mode", "none", "--records", "1000"]);
    let job = cluster.rest.run(&module, &args, 2, json!({})).await?;
    let overview = cluster.rest.get("/overview").await?;
    assert_eq!(overview["jobs-finished"], 0, "{overview}");
    cluster.start_worker()?;
    cluster.rest.wait_for(&job, "FINISHED", SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gets_no_slots_fails_and_says_how_many_it_needs() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new()
        .set("slot.request.timeout", "1 s")
        .start()
        .await?;
    let module = cluster.rest.upload(&module("hostile")).await?;
    let job = cluster
        .rest
        .run(&module, &strings(["--mode", "none"]), 3, json!({}))
        .await?;
    cluster.rest.wait_for(&job, "FAILED", SOON).await?;
    let cause = cluster.rest.cause(&job).await?;
    assert!(cause.contains("slots") && cause.contains('3'), "{cause}");
    Ok(())
}
