//! The demo: broker, cluster, generator and the click-event job, in one process.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, bail};
use tidemill_connectors::Registry;
use tidemill_playground::{
    Audit, Clicks, CountedWindow, GeneratorConfig, MockBroker, Progress, Results, Verdict,
    create_topics, format_time, generate, now_ms,
};
use tidemill_types::config::{Config, keys};
use tokio::{task::JoinHandle, time::Instant};

use super::say;
use crate::{
    args::Playground,
    client::{Client, RunOptions},
    cluster::LocalCluster,
};

const PARTITIONS: i32 = 2;
/// How often the demo says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// How long the results may stand still before the demo gives up.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the demo.
pub(crate) async fn playground(mut config: Config, args: Playground) -> anyhow::Result<ExitCode> {
    let module = module(&args)?;
    if config.raw(keys::SLOTS.name).is_none() {
        config.set(keys::SLOTS.name, &args.parallelism.to_string())?;
    }
    let topics = Topics::create(args.bootstrap_servers.as_deref()).await?;
    let cluster = LocalCluster::start(&config, Registry::standard()).await?;
    let client = cluster.client(&config);
    let options = RunOptions {
        args: topics.job_args(),
        parallelism: Some(args.parallelism),
        ..RunOptions::default()
    };
    let job = client.submit(&module, options).await?;
    topics.introduce();
    say(format_args!("{:<16} {}", "REST", cluster.rest_url()));
    say(format_args!(
        "{:<16} {job}, {}/jobs/{job}",
        "job",
        cluster.rest_url()
    ));
    let demo = Demo {
        client,
        job,
        windows: args.windows,
    };
    let verdict = demo.watch(topics.generator(&args), &topics.output).await;
    if let Err(error) = demo.client.cancel(&demo.job).await {
        tracing::debug!(%error, "the job had ended");
    }
    cluster.stop().await?;
    Ok(conclude(&verdict?, args.windows))
}

/// Where events go and results come from.
struct Topics {
    servers: String,
    input: String,
    output: String,
    broker: Option<MockBroker>,
}

impl Topics {
    /// Fresh topics at the given Kafka, or at an embedded broker.
    async fn create(servers: Option<&str>) -> anyhow::Result<Self> {
        let suffix = now_ms();
        let input = format!("click-events-{suffix}");
        let output = format!("page-views-{suffix}");
        let topics = [input.as_str(), output.as_str()];
        let (servers, broker) = match servers {
            Some(servers) => {
                create_topics(servers, &topics, PARTITIONS).await?;
                (servers.to_owned(), None)
            }
            None => {
                let broker = MockBroker::start(&topics, PARTITIONS);
                let broker = broker.context("cannot start the embedded broker")?;
                (broker.bootstrap_servers(), Some(broker))
            }
        };
        Ok(Self {
            servers,
            input,
            output,
            broker,
        })
    }

    fn introduce(&self) {
        let kind = if self.broker.is_some() {
            "embedded broker"
        } else {
            "Kafka"
        };
        let Self {
            servers,
            input,
            output,
            ..
        } = self;
        say(format_args!(
            "{kind:<16} {servers}, topics {input} and {output}"
        ));
    }

    fn job_args(&self) -> Vec<String> {
        let args = [
            "--bootstrap.servers",
            &self.servers,
            "--input-topic",
            &self.input,
            "--output-topic",
            &self.output,
            "--checkpointing",
            "--event-time",
        ];
        args.map(ToOwned::to_owned).to_vec()
    }

    fn generator(&self, args: &Playground) -> GeneratorConfig {
        GeneratorConfig {
            bootstrap_servers: self.servers.clone(),
            topic: self.input.clone(),
            partitions: PARTITIONS,
            clicks: Clicks::starting_near(now_ms()),
            windows: args.windows,
            rate: args.rate,
        }
    }
}

struct Demo {
    client: Client,
    job: String,
    windows: Option<u64>,
}

impl Demo {
    /// Generates events and checks results until the last window, or until told to stop.
    async fn watch(&self, generator: GeneratorConfig, output: &str) -> anyhow::Result<Verdict> {
        let progress = Arc::new(Progress::default());
        let mut audit = Audit::new(generator.clicks);
        let mut results = Results::open(&generator.bootstrap_servers, output, PARTITIONS)?;
        let mut generating = Generating::start(generator, Arc::clone(&progress));
        let first_report = Instant::now() + REPORT_INTERVAL;
        let mut report = tokio::time::interval_at(first_report, REPORT_INTERVAL);
        let mut last_result = Instant::now();
        while self
            .windows
            .is_none_or(|windows| audit.windows_done() < windows)
        {
            tokio::select! {
                record = results.next() => {
                    last_result = Instant::now();
                    if let Some(window) = audit.take(&record?) {
                        progress.windows_done.store(audit.windows_done(), Relaxed);
                        self.show(window);
                    }
                }
                _ = report.tick() => {
                    self.check(last_result).await?;
                    let events = progress.generated.load(Relaxed);
                    let windows = audit.windows_done();
                    say(format_args!("  … {events} events, {windows} windows"));
                }
                ended = generating.ended() => ended?,
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        Ok(audit.verdict(self.windows.unwrap_or_else(|| audit.windows_done())))
    }

    fn show(&self, window: CountedWindow) {
        let of = self
            .windows
            .map(|windows| format!(" of {windows}"))
            .unwrap_or_default();
        let verdict = if window.right {
            "6 pages × 1000"
        } else {
            "WRONG"
        };
        let start = format_time(window.start_ms);
        say(format_args!(
            "window {}{of}, from {start}: {verdict}",
            window.number + 1
        ));
    }

    /// Gives up when the job has ended or nothing has come for a long time.
    async fn check(&self, last_result: Instant) -> anyhow::Result<()> {
        let state = self.client.status(&self.job).await?;
        if Client::is_final(&state) {
            let cause = self.client.cause(&self.job).await?.unwrap_or_default();
            bail!("the job is {state}: {cause}");
        }
        if last_result.elapsed() > STALL_TIMEOUT {
            bail!(
                "no result for {} s; the job is {state}",
                STALL_TIMEOUT.as_secs()
            );
        }
        Ok(())
    }
}

/// The generator, stopped when this is dropped.
struct Generating {
    task: JoinHandle<Result<(), tidemill_playground::Error>>,
    ended: bool,
}

impl Generating {
    fn start(config: GeneratorConfig, progress: Arc<Progress>) -> Self {
        let task = tokio::spawn(async move { generate(&config, &progress).await });
        Self { task, ended: false }
    }

    /// Resolves once, when the generator has written everything or failed.
    async fn ended(&mut self) -> anyhow::Result<()> {
        if self.ended {
            return std::future::pending().await;
        }
        let result = (&mut self.task).await;
        self.ended = true;
        Ok(result??)
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn conclude(verdict: &Verdict, windows: Option<u64>) -> ExitCode {
    for line in verdict.wrong.iter().chain(&verdict.missing) {
        say(line);
    }
    if !verdict.is_right() {
        return ExitCode::FAILURE;
    }
    if let Some(windows) = windows {
        say(format_args!(
            "all {windows} windows of all 6 pages say 1000"
        ));
    }
    ExitCode::SUCCESS
}

/// The job's module: named, or where `make build` puts it.
fn module(args: &Playground) -> anyhow::Result<PathBuf> {
    if let Some(module) = &args.module {
        return Ok(module.clone());
    }
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let target = program.parent().and_then(|release| release.parent());
    match target.map(|target| target.join("jobs/click-event-count.wasm")) {
        Some(module) if module.exists() => Ok(module),
        _ => bail!(
            "there is no click-event-count.wasm beside this program; `make build` puts it into \
             target/jobs/, or name one with --module"
        ),
    }
}
