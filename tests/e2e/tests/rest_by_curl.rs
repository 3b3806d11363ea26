//! The README's flow through `curl` alone: upload, plan, run, watch, cancel.

use std::{process::Command, time::Duration};

use anyhow::Context;
use tidemill_e2e::{ClickRun, ClusterBuilder, module};
use tidemill_testkit::{Kafka, project_root};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_operated_with_curl_alone() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    let cluster = ClusterBuilder::new().workers(2).start().await?;
    // More windows than the script will wait for: the job is running when it is cancelled.
    let clicks = ClickRun::start(kafka.bootstrap(), "curl", 1_000, 12_000).await?;
    let mut script = Command::new("timeout");
    script
        .arg(LIMIT.as_secs().to_string())
        .arg(project_root().join("tests/e2e/by_curl.sh"))
        .env("REST", &cluster.rest.url)
        .env("MODULE", module("click-event-count"))
        .env("KAFKA", kafka.bootstrap())
        .env("INPUT", "curl-in")
        .env("OUTPUT", "curl-out");
    let output = tokio::task::spawn_blocking(move || script.output()).await??;
    drop(clicks);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{}: {said}\n{errors}",
        output.status
    );

    let part = |step: &str| -> anyhow::Result<String> {
        let rest = said.split(&format!("# {step}\n")).nth(1);
        let rest = rest.with_context(|| format!("no step {step}: {said}"))?;
        Ok(rest.split("\n# ").next().unwrap_or_default().to_owned())
    };
    assert!(part("upload")?.contains("\"status\":\"success\""), "{said}");
    assert!(
        part("plan")?.contains("Window(TumblingEventTimeWindows(15 s), Count)"),
        "{said}"
    );
    let job = part("run")?.trim().to_owned();
    assert_eq!(job.len(), 32, "{said}");
    let watched = part("watch")?;
    assert!(watched.contains(r#""name": "ClickEvent Source""#), "{said}");
    assert!(watched.contains(r#""status": "RUNNING""#), "{said}");
    assert!(
        watched.contains("\n[]\n"),
        "no failures were expected: {said}"
    );
    assert!(
        watched.contains(&job) && watched.contains(r#""state": "RUNNING""#),
        "{said}"
    );
    assert!(part("cancel")?.contains("CANCELED"), "{said}");
    let jars = cluster.rest.get("/jars").await?;
    assert_eq!(jars["files"].as_array().map(Vec::len), Some(0), "{jars}");
    Ok(())
}
