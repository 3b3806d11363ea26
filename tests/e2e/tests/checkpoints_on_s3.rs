//! Checkpoints on an object store and on a disk: the main job recovers from both, exactly.

use std::time::Duration;

use serde_json::json;
use tidemill_e2e::{ClickRun, ClusterBuilder, module};
use tidemill_testkit::{Kafka, S3};

const WINDOWS: u64 = 10;
const RATE: u64 = 12_000;
const LIMIT: Duration = Duration::from_secs(90);

/// Runs the main job with one of two workers killed in the middle, and judges its results.
async fn recovers_exactly(
    builder: ClusterBuilder,
    name: &str,
    checkpoints: &str,
) -> anyhow::Result<String> {
    let kafka = Kafka::start().await?;
    let mut cluster = builder.workers(2).start().await?;
    let module = cluster.rest.upload(&module("click-event-count")).await?;
    let mut clicks = ClickRun::start(kafka.bootstrap(), name, WINDOWS, RATE).await?;
    let settings = json!({
        "state.checkpoints.dir": checkpoints,
        "execution.checkpointing.interval": "200 ms",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.delay": "100 ms",
    });
    let job = cluster.rest.run(&module, &clicks.args, 2, settings).await?;
    clicks.until_windows(4, LIMIT).await?;
    assert!(
        cluster.rest.completed_checkpoints(&job).await? > 0,
        "nothing to recover from"
    );
    cluster.kill_worker(0)?;
    cluster.start_worker()?;
    let verdict = clicks.finish(LIMIT).await?;
    assert!(verdict.is_right(), "{verdict:?}");
    assert!(
        cluster.rest.restored_checkpoint(&job).await? > 0,
        "it began again from nothing"
    );
    cluster.rest.cancel(&job).await?;
    cluster.rest.wait_for(&job, "CANCELED", LIMIT).await?;
    Ok(job)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_recovers_from_checkpoints_on_s3() -> anyhow::Result<()> {
    let s3 = S3::start().await?;
    let set = |builder: ClusterBuilder, (key, value): (String, String)| builder.set(&key, &value);
    let builder = s3.config().into_iter().fold(ClusterBuilder::new(), set);
    let location = format!("s3://{}/checkpoints", s3.bucket());
    let job = recovers_exactly(builder, "s3", &location).await?;
    let kept = s3.bucket_dir().join("checkpoints").join(job);
    assert!(
        std::fs::read_dir(&kept)?.count() > 0,
        "{} is empty",
        kept.display()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_recovers_from_checkpoints_on_disk() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let location = format!("file://{}/checkpoints", dir.path().display());
    let job = recovers_exactly(ClusterBuilder::new(), "disk", &location).await?;
    let kept = dir.path().join("checkpoints").join(job);
    assert!(
        std::fs::read_dir(&kept)?.count() > 0,
        "{} is empty",
        kept.display()
    );
    Ok(())
}
