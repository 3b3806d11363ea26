//! How long it takes until something runs.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    cluster::{Cluster, click_args},
    figures::{head, row, spread},
};

const CLUSTERS: usize = 5;
/// Jobs on each cluster after its first.
const JOBS: usize = 6;

/// Starts clusters on empty directories, and jobs on them.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut times = [const { Vec::<f64>::new() }; 6];
    let [rest, slots, upload, first, later, cancel] = &mut times;
    for _ in 0..CLUSTERS {
        let dir = tempfile::tempdir()?;
        let (cluster, start) = Cluster::start(dir.path()).await?;
        rest.push(millis(start.rest));
        slots.push(millis(start.slots));
        let begin = Instant::now();
        let module = cluster.upload().await?;
        upload.push(millis(begin.elapsed()));
        for number in 0..=JOBS {
            let begin = Instant::now();
            let args = click_args(&["--rate", "10000"]);
            let job = cluster.run(&module, &args, 1, &json!({})).await?;
            cluster.wait_running(&job).await?;
            let to_running = millis(begin.elapsed());
            if number == 0 {
                &mut *first
            } else {
                &mut *later
            }
            .push(to_running);
            let begin = Instant::now();
            cluster.cancel(&job).await?;
            cancel.push(millis(begin.elapsed()));
        }
        cluster.stop().await?;
    }
    println!("## Start\n");
    head(&["from … to", "median (range)"]);
    let names = [
        "start of the coordinator's process to the first answer over REST",
        "the same to a registered worker, started after it",
        "upload of a new module, compiled meanwhile",
        "POST run to RUNNING, the first job of a worker",
        "POST run to RUNNING, later jobs (compiled code cached)",
        "PATCH cancel to CANCELED",
    ];
    for (name, times) in names.iter().zip(&times) {
        row(&[(*name).to_owned(), spread(times, "ms")]);
    }
    Ok(())
}
