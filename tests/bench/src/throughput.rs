//! Records per second, and CPU per record.

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, click_args},
    figures::{head, median, row},
};

/// Records of one run, for each parallel task: some seconds of work.
const RECORDS: u32 = 20_000_000;
const RUNS: usize = 3;

/// What one run took.
struct Cost {
    seconds: f64,
    worker_cpu: f64,
    coordinator_cpu: f64,
}

/// Runs all combinations; rounds go over all of them, so that a busy moment of the machine does
/// not fall on one alone.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!(
        "## Throughput: click-event-count from datagen to blackhole, JSON read in the guest\n"
    );
    let dir = tempfile::tempdir()?;
    let (cluster, _) = Cluster::start(dir.path()).await?;
    let module = cluster.upload().await?;
    let mut cases = Vec::new();
    for parallelism in [1, 2] {
        for combine in [true, false] {
            for checkpoints in [false, true] {
                cases.push(((parallelism, combine, checkpoints), Vec::new()));
            }
        }
    }
    for _ in 0..RUNS {
        for ((parallelism, combine, checkpoints), costs) in &mut cases {
            let cost = run(&cluster, &module, *parallelism, *combine, *checkpoints).await?;
            costs.push(cost);
        }
    }
    head(&[
        "parallelism",
        "combining",
        "checkpoints",
        "records/s",
        "CPU ns/record",
        "worker CPU s",
        "coordinator CPU s",
        "records per CPU second",
    ]);
    for ((parallelism, combine, checkpoints), costs) in &cases {
        let of = |figure: fn(&Cost) -> f64| median(&costs.iter().map(figure).collect::<Vec<_>>());
        let records = f64::from(RECORDS * parallelism);
        let cpu = of(|cost| cost.worker_cpu + cost.coordinator_cpu);
        row(&[
            parallelism.to_string(),
            if *combine { "on" } else { "off" }.to_owned(),
            if *checkpoints { "every second" } else { "none" }.to_owned(),
            format!("{:.2} M", records / of(|cost| cost.seconds) / 1e6),
            format!("{:.0}", cpu * 1e9 / records),
            format!("{:.2}", of(|cost| cost.worker_cpu)),
            format!("{:.2}", of(|cost| cost.coordinator_cpu)),
            format!("{:.1} M", records / cpu / 1e6),
        ]);
    }
    println!(
        "\nMedians of {RUNS} runs of {} M records per task.",
        RECORDS / 1_000_000
    );
    cluster.stop().await
}

async fn run(
    cluster: &Cluster,
    module: &str,
    parallelism: u32,
    combine: bool,
    checkpoints: bool,
) -> anyhow::Result<Cost> {
    let records = (RECORDS * parallelism).to_string();
    let mut args = click_args(&["--records", &records]);
    if checkpoints {
        args.push("--checkpointing".to_owned());
    }
    let config = json!({ "tidemill.pipeline.combine": combine.to_string() });
    let worker = cluster.worker.cpu_seconds()?;
    let coordinator = cluster.coordinator.cpu_seconds()?;
    let job = cluster.run(module, &args, parallelism, &config).await?;
    let body = cluster.wait_finished(&job).await?;
    Ok(Cost {
        seconds: seconds(&body).context("the times of a finished job")?,
        worker_cpu: cluster.worker.cpu_seconds()? - worker,
        coordinator_cpu: cluster.coordinator.cpu_seconds()? - coordinator,
    })
}

/// From RUNNING to FINISHED.
#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
fn seconds(body: &Value) -> Option<f64> {
    let at = |state: &str| body["timestamps"][state].as_i64();
    Some((at("FINISHED")? - at("RUNNING")?) as f64 / 1e3)
}
