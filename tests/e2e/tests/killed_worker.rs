//! A worker that is killed costs no count: real Kafka, two workers, SIGKILL.

use std::time::Duration;

use serde_json::json;
use tidemill_e2e::{ClickRun, ClusterBuilder, module};
use tidemill_testkit::Kafka;

const RUNS: usize = 5;
const WINDOWS: u64 = 20;
/// Two windows a second.
const RATE: u64 = 12_000;
const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn every_count_is_1000_when_a_worker_is_killed_in_the_middle() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    let mut cluster = ClusterBuilder::new().workers(2).slots(1).start().await?;
    let module = cluster.rest.upload(&module("click-event-count")).await?;
    for run in 0..RUNS {
        let name = format!("killed-{run}");
        let mut clicks = ClickRun::start(kafka.bootstrap(), &name, WINDOWS, RATE).await?;
        let job = cluster
            .rest
            .run(&module, &clicks.args, 2, json!({}))
            .await?;
        // A different moment of the checkpoint cycle in each run.
        clicks.until_windows(5 + 2 * run as u64, LIMIT).await?;
        assert!(
            cluster.rest.completed_checkpoints(&job).await? > 0,
            "nothing to recover from"
        );
        cluster.kill_worker(run % 2)?;
        cluster.wait_for_workers(1).await?;
        cluster.start_worker()?;
        let verdict = clicks
            .finish(LIMIT)
            .await
            .map_err(|e| e.context(cluster.logs()))?;
        assert!(
            verdict.is_right(),
            "run {run}: {verdict:?}\n{}",
            cluster.logs()
        );
        cluster.rest.cancel(&job).await?;
        cluster.rest.wait_for(&job, "CANCELED", LIMIT).await?;
        cluster.wait_for_workers(2).await?;
    }
    Ok(())
}
