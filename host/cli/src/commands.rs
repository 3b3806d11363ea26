//! Commands that talk to a cluster.

mod playground;

use std::{process::ExitCode, time::Duration};

use serde_json::Value;
use tidemill_types::config::Config;

pub(crate) use playground::playground;

use crate::{
    args::{Cancel, Info, List, Run},
    client::{Client, JobOverview, RunOptions},
    cluster,
};

/// How often the state of a job is asked for.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Prints a line to standard output.
#[expect(clippy::print_stdout, reason = "the one place where commands answer")]
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Uploads a module, runs it and, unless detached, waits for its end.
pub(crate) async fn run(config: &Config, run: Run) -> anyhow::Result<ExitCode> {
    let client = Client::new(run.target.jobmanager.as_deref(), config);
    let options = RunOptions {
        args: strip_separator(run.args),
        parallelism: run.parallelism,
        savepoint_path: run.from_savepoint,
        allow_non_restored_state: run.allow_non_restored_state,
        config: job_settings(config),
    };
    let job = client.submit(&run.file, options).await?;
    say(format_args!("Job has been submitted with JobID {job}"));
    if run.detached {
        return Ok(ExitCode::SUCCESS);
    }
    wait(&client, &job).await
}

/// Waits for the end of a job; the exit code says how it ended.
pub(crate) async fn wait(client: &Client, job: &str) -> anyhow::Result<ExitCode> {
    loop {
        let state = client.status(job).await?;
        if Client::is_final(&state) {
            say(format_args!("Job {job} is {state}"));
            if state == "FINISHED" {
                return Ok(ExitCode::SUCCESS);
            }
            if let Some(cause) = client.cause(job).await? {
                say(cause);
            }
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The settings that belong to a job, of those given to this command.
pub(crate) fn job_settings(config: &Config) -> Vec<(String, String)> {
    let per_job =
        |key: &str| tidemill_types::config::keys::find(key).is_some_and(|info| info.per_job);
    config
        .iter()
        .filter(|(key, _)| per_job(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// `FILE -- args` and `FILE args` mean the same.
fn strip_separator(mut args: Vec<String>) -> Vec<String> {
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    args
}

/// Lists jobs as `flink list` does.
pub(crate) async fn list(config: &Config, list: List) -> anyhow::Result<ExitCode> {
    let client = Client::new(list.target.jobmanager.as_deref(), config);
    let mut jobs = client.jobs().await?;
    jobs.sort_by_key(|job| job.start_time);
    let everything = list.all || (!list.running && !list.scheduled);
    let waiting = |job: &JobOverview| matches!(job.state.as_str(), "CREATED" | "INITIALIZING");
    let (ended, live): (Vec<_>, Vec<_>) = jobs
        .into_iter()
        .partition(|job| Client::is_final(&job.state));
    let (scheduled, running): (Vec<_>, Vec<_>) = live.into_iter().partition(waiting);
    if list.running || everything {
        section("Running/Restarting Jobs", "No running jobs.", &running);
    }
    if list.scheduled || everything {
        section("Scheduled Jobs", "No scheduled jobs.", &scheduled);
    }
    if list.all {
        section("Terminated Jobs", "No terminated jobs.", &ended);
    }
    Ok(ExitCode::SUCCESS)
}

fn section(title: &str, none: &str, jobs: &[JobOverview]) {
    if jobs.is_empty() {
        say(none);
        return;
    }
    say(format_args!("{title:-^70}", title = format!(" {title} ")));
    for job in jobs {
        let start = tidemill_playground::format_time(job.start_time);
        say(format_args!(
            "{start} : {} : {} ({})",
            job.jid, job.name, job.state
        ));
    }
    say("-".repeat(70));
}

/// Cancels a job.
pub(crate) async fn cancel(config: &Config, cancel: Cancel) -> anyhow::Result<ExitCode> {
    let client = Client::new(cancel.target.jobmanager.as_deref(), config);
    say(format_args!("Cancelling job {}.", cancel.job));
    client.cancel(&cancel.job).await?;
    say(format_args!("Cancelled job {}.", cancel.job));
    Ok(ExitCode::SUCCESS)
}

/// Plans a module in a planner process of its own, without a cluster.
pub(crate) async fn info(config: &Config, info: Info) -> anyhow::Result<ExitCode> {
    let planner = cluster::planner(config)?;
    let mut settings = job_settings(config);
    if let Some(parallelism) = info.parallelism {
        settings.push(("parallelism.default".to_owned(), parallelism.to_string()));
    }
    let job = tidemill_planner::PlanJob {
        args: strip_separator(info.args),
        config: settings,
        job: tidemill_types::JobId::random(),
        submitted_at_ms: 0,
        preflight: false,
    };
    let graph = planner.plan(&info.file, job).await?;
    let graph: Value = serde_json::to_value(graph)?;
    say(serde_json::to_string_pretty(&graph)?);
    Ok(ExitCode::SUCCESS)
}
