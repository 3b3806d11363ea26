//! The command line: the demo, the commands that operate a cluster, and processes that end when
//! they are told to.

use std::{path::Path, time::Duration};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::Value;
use tidemill_e2e::{ClusterBuilder, Ended, Program, Rest, module};
use tidemill_testkit::Kafka;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a process may take to end that was told to.
const END_LIMIT: Duration = Duration::from_secs(8);

/// Settings that let many clusters run side by side.
fn settings(dir: &Path) -> Vec<String> {
    vec![
        format!("-Dio.tmp.dirs={}", dir.join("tmp").display()),
        "-Drest.port=0".to_owned(),
        "-Djobmanager.rpc.port=0".to_owned(),
    ]
}

/// Runs the binary in a cluster of its own to its end.
async fn run(dir: &Path, args: &[&str], limit: Duration) -> anyhow::Result<Ended> {
    let settings = settings(dir);
    let mut all: Vec<&str> = settings.iter().map(String::as_str).collect();
    all.splice(0..0, args.iter().copied());
    Program::run(&all, dir, limit).await
}

fn path(name: &str) -> anyhow::Result<String> {
    Ok(module(name).to_str().context("a path in UTF-8")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well_after_its_windows() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let args = ["playground", "--windows", "3", "--rate", "30000"];
    let ended = run(dir.path(), &args, LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for said in [
        "window 3 of 3",
        "6 pages × 1000",
        "all 3 windows of all 6 pages say 1000",
        "REST",
    ] {
        assert!(ended.out.contains(said), "\"{said}\" is missing: {ended:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_on_a_real_kafka() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    let dir = tempfile::tempdir()?;
    let args = [
        "playground",
        "--windows",
        "3",
        "--rate",
        "30000",
        "--bootstrap-servers",
        kafka.bootstrap(),
    ];
    let ended = run(dir.path(), &args, LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("all 3 windows"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_without_a_kafka_says_so() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let args = [
        "playground",
        "--windows",
        "1",
        "--bootstrap-servers",
        "127.0.0.1:1",
    ];
    let ended = run(dir.path(), &args, LIMIT).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.log.contains("127.0.0.1:1"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_operated_by_run_list_and_cancel() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new().slots(2).start().await?;
    let (dir, rest) = (cluster.dir(), cluster.rest.url.as_str());
    let at = rest.trim_start_matches("http://");
    let hostile = path("hostile")?;
    let args = [
        "run", "-d", "-m", at, "-p", "2", &hostile, "--", "--mode", "none", "--rate", "10",
    ];
    let ended = Program::run(&args, dir, LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = ended
        .out
        .trim()
        .strip_prefix("Job has been submitted with JobID ");
    let job = said.with_context(|| format!("{ended:?}"))?.to_owned();
    cluster.rest.wait_running(&job, LIMIT).await?;

    let listed = Program::run(&["list", "-m", at], dir, LIMIT).await?;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(
        listed.out.contains(&format!("{job} : hostile (RUNNING)")),
        "{listed:?}"
    );
    assert!(listed.out.contains("No scheduled jobs."), "{listed:?}");

    let cancelled = Program::run(&["cancel", "-m", at, &job], dir, LIMIT).await?;
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    assert!(
        cancelled.out.contains(&format!("Cancelled job {job}.")),
        "{cancelled:?}"
    );
    cluster.rest.wait_for(&job, "CANCELED", LIMIT).await?;
    let listed = Program::run(&["list", "-a", "-m", at], dir, LIMIT).await?;
    assert!(listed.out.contains("No running jobs."), "{listed:?}");
    assert!(
        listed.out.contains(&format!("{job} : hostile (CANCELED)")),
        "{listed:?}"
    );
    let nobody = ["cancel", "-m", at, "0123456789abcdef0123456789abcdef"];
    let again = Program::run(&nobody, dir, LIMIT).await?;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.log.contains("not found"), "{again:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn run_waits_for_the_end_and_tells_how_it_was() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new().start().await?;
    let (dir, at) = (cluster.dir(), cluster.rest.url.as_str());
    let hostile = path("hostile")?;
    let run = |mode: &'static str| {
        let args = [
            "run",
            "-m",
            at,
            &hostile,
            "--",
            "--mode",
            mode,
            "--records",
            "100",
        ];
        let args = args.map(ToOwned::to_owned);
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Program::run(&args, dir, LIMIT).await
        }
    };
    let good = run("none").await?;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.out.contains("is FINISHED"), "{good:?}");
    let bad = run("panic").await?;
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(
        bad.out.contains("is FAILED") && bad.out.contains("is bad luck"),
        "{bad:?}"
    );
    let refused = run("fail-in-plan").await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.log.contains("this job does not want to be planned"),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn info_shows_the_plan_without_a_cluster() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = path("word-count")?;
    let tmp = format!("-Dio.tmp.dirs={}", dir.path().join("tmp").display());
    let args = ["info", &tmp, "-p", "3", &file, "--", "--rolling"];
    let ended = Program::run(&args, dir.path(), LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let graph: Value = serde_json::from_str(&ended.out)?;
    assert_eq!(graph["name"], "WordCount", "{graph}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_cluster_tells_by_its_exit_code_how_its_job_ended() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let hostile = path("hostile")?;
    for (mode, code) in [("none", 0), ("panic", 1), ("fail-in-plan", 1)] {
        let mut args: Vec<String> = vec!["local".to_owned()];
        args.extend(settings(dir.path()));
        let rest = [
            "--job",
            hostile.as_str(),
            "--",
            "--mode",
            mode,
            "--records",
            "100",
        ];
        args.extend(rest.map(ToOwned::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ended = Program::run(&args, dir.path(), LIMIT).await?;
        assert_eq!(ended.code, Some(code), "{mode}: {ended:?}");
    }
    Ok(())
}

/// A coordinator or a whole cluster, told to stop while a job runs in it.
async fn ends_when_told(command: &[&str], signal: Signal) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
    args.extend(settings(dir.path()));
    let mut program = Program::start(&args, &dir.path().join("it"))?;
    let rest = Rest::new(program.wait_for_line("REST on ", LIMIT).await?);
    if command == ["local"] {
        let module = rest.upload(&module("hostile")).await?;
        let job = rest
            .run(
                &module,
                &["--mode".to_owned(), "none".to_owned()],
                1,
                Value::Null,
            )
            .await;
        rest.wait_running(&job?, LIMIT).await?;
    }
    program.signal(signal)?;
    let ended = program.ended(END_LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{signal:?}: {ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_end_cleanly_on_sigint_and_sigterm() -> anyhow::Result<()> {
    for signal in [Signal::INT, Signal::TERM] {
        ends_when_told(&["coordinator"], signal).await?;
        ends_when_told(&["local"], signal).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_cleanly_with_or_without_its_coordinator() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut args = vec!["worker".to_owned()];
    args.extend(settings(dir.path()));
    // Nobody listens there.
    *args.last_mut().context("settings")? = "-Djobmanager.rpc.port=1".to_owned();
    let mut alone = Program::start(&args, &dir.path().join("alone"))?;
    tidemill_testkit::wait_until(LIMIT, "its first attempt", || async {
        alone.log().contains("trying again")
    })
    .await?;
    alone.signal(Signal::TERM)?;
    assert_eq!(alone.ended(END_LIMIT).await?.code, Some(0));

    let mut cluster = ClusterBuilder::new().start().await?;
    assert_eq!(cluster.stop_worker(0, END_LIMIT).await?.code, Some(0));
    cluster.wait_for_workers(0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_without_end_stops_on_ctrl_c() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut args = vec![
        "playground".to_owned(),
        "--rate".to_owned(),
        "30000".to_owned(),
    ];
    args.extend(settings(dir.path()));
    let mut demo = Program::start(&args, &dir.path().join("demo"))?;
    demo.wait_for_line("window 2", LIMIT).await?;
    demo.signal(Signal::INT)?;
    let ended = demo.ended(END_LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(())
}
