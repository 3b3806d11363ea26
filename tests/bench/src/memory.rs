//! Memory and threads.

use std::time::Duration;

use serde_json::json;

use crate::{
    cluster::{Cluster, click_args},
    figures::{head, row},
};

/// Until figures no longer change.
const SETTLE: Duration = Duration::from_secs(3);

/// Looks at an idle cluster, and at one with a job.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!("## Memory\n");
    head(&["state", "process", "RSS MB", "PSS MB", "threads"]);
    let dir = tempfile::tempdir()?;
    let (cluster, _) = Cluster::start(dir.path()).await?;
    tokio::time::sleep(SETTLE).await;
    show("idle, new", &cluster)?;
    let module = cluster.upload().await?;
    for (name, rate) in [
        ("10,000 records/s, parallelism 2", Some("10000")),
        ("full speed, parallelism 2", None),
    ] {
        let mut args = click_args(&["--checkpointing"]);
        args.extend(
            rate.iter()
                .flat_map(|rate| ["--rate".to_owned(), (*rate).to_owned()]),
        );
        let job = cluster.run(&module, &args, 2, &json!({})).await?;
        cluster.wait_running(&job).await?;
        tokio::time::sleep(SETTLE).await;
        show(name, &cluster)?;
        cluster.cancel(&job).await?;
    }
    tokio::time::sleep(SETTLE).await;
    show("idle, after them", &cluster)?;
    println!("\nRSS counts the pages of the shared binary twice, PSS divides them.");
    cluster.stop().await
}

fn show(state: &str, cluster: &Cluster) -> anyhow::Result<()> {
    let coordinator = cluster.coordinator.footprint()?;
    let worker = cluster.worker.footprint()?;
    for (name, print) in [("coordinator", coordinator), ("worker", worker)] {
        row(&[
            state.to_owned(),
            name.to_owned(),
            format!("{:.1}", print.rss_mb),
            format!("{:.1}", print.pss_mb),
            print.threads.to_string(),
        ]);
    }
    row(&[
        state.to_owned(),
        "both".to_owned(),
        format!("{:.1}", coordinator.rss_mb + worker.rss_mb),
        format!("{:.1}", coordinator.pss_mb + worker.pss_mb),
        (coordinator.threads + worker.threads).to_string(),
    ]);
    Ok(())
}
