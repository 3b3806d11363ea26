//! The demo: broker, cluster, generator and the click-event job, in one process.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use tidemill_connectors::Registry;
use tidemill_playground::{
    Audit, Clicks, GeneratorConfig, MockBroker, Progress, Results, Verdict, create_topics,
    format_time, generate,
};
use tidemill_types::config::{Config, keys};

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
    let topics = [
        format!("click-events-{}", std::process::id()),
        format!("page-views-{}", std::process::id()),
    ];
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let (servers, broker) = match &args.bootstrap_servers {
        Some(servers) => {
            create_topics(servers, &names, PARTITIONS).await?;
            (servers.clone(), None)
        }
        None => {
            let broker = MockBroker::start(&names, PARTITIONS).context("embedded broker")?;
            (broker.bootstrap_servers(), Some(broker))
        }
    };
    let [input, output] = topics;
    if config.raw(keys::SLOTS.name).is_none() {
        config.set(keys::SLOTS.name, &args.parallelism.to_string())?;
    }
    let cluster = LocalCluster::start(&config, Registry::standard()).await?;
    let client = cluster.client(&config);
    let module = client.upload(&module).await?;
    let options = RunOptions {
        args: [
            "--bootstrap.servers",
            servers.as_str(),
            "--input-topic",
            input.as_str(),
            "--output-topic",
            output.as_str(),
            "--checkpointing",
            "--event-time",
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
        parallelism: Some(args.parallelism),
        ..RunOptions::default()
    };
    let job = client.run(&module, options).await?;
    let kind = if broker.is_some() {
        "embedded broker"
    } else {
        "Kafka"
    };
    say(format_args!(
        "{kind:<16} {servers}, topics {input} and {output}"
    ));
    say(format_args!("{:<16} {}", "REST", cluster.rest_url()));
    say(format_args!(
        "{:<16} {job}, {}/jobs/{job}",
        "job",
        cluster.rest_url()
    ));
    let demo = Demo {
        client,
        job,
        servers,
        output,
        windows: args.windows,
    };
    let generator = GeneratorConfig {
        bootstrap_servers: demo.servers.clone(),
        topic: input,
        partitions: PARTITIONS,
        clicks: Clicks::starting_near(now_ms()),
        windows: args.windows,
        rate: args.rate,
    };
    let verdict = demo.watch(generator).await;
    let _ = demo.client.cancel(&demo.job).await.is_ok();
    cluster.stop().await?;
    drop(broker);
    Ok(conclude(&verdict?, args.windows))
}

struct Demo {
    client: Client,
    job: String,
    servers: String,
    output: String,
    windows: Option<u64>,
}

impl Demo {
    /// Generates events and checks results until the last window, or until told to stop.
    async fn watch(&self, generator: GeneratorConfig) -> anyhow::Result<Verdict> {
        let progress = Arc::new(Progress::default());
        let mut audit = Audit::new(generator.clicks);
        let mut results = Results::open(&self.servers, &self.output, PARTITIONS)?;
        let shared = Arc::clone(&progress);
        let rate = generator.rate;
        #[expect(clippy::disallowed_methods, reason = "aborted below")]
        let generating = tokio::spawn(async move { generate(&generator, &shared).await });
        let generating = AbortOnDrop(generating);
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        let mut last_result = tokio::time::Instant::now();
        loop {
            tokio::select! {
                record = results.next() => {
                    last_result = tokio::time::Instant::now();
                    if let Some(window) = audit.take(&record?) {
                        progress.windows_done.store(audit.windows_done(), Relaxed);
                        self.show(window);
                    }
                    if self.windows.is_some_and(|windows| audit.windows_done() >= windows) {
                        break;
                    }
                }
                _ = report.tick() => {
                    self.check(&generating, last_result).await?;
                    let events = progress.generated.load(Relaxed);
                    let windows = audit.windows_done();
                    say(format_args!("  … {events} events at {rate}/s, {windows} windows"));
                }
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        Ok(audit.verdict(self.windows.unwrap_or_else(|| audit.windows_done())))
    }

    fn show(&self, window: tidemill_playground::CountedWindow) {
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
    async fn check(
        &self,
        generating: &AbortOnDrop,
        last_result: tokio::time::Instant,
    ) -> anyhow::Result<()> {
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
        if generating.0.is_finished() && self.windows.is_none() {
            bail!("the generator has stopped; see the log");
        }
        Ok(())
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<Result<(), tidemill_playground::Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn conclude(verdict: &Verdict, windows: Option<u64>) -> ExitCode {
    for line in verdict.wrong.iter().chain(&verdict.missing) {
        say(line);
    }
    if verdict.is_right() {
        if let Some(windows) = windows {
            say(format_args!(
                "all {windows} windows of all 6 pages say 1000"
            ));
        }
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The job's module: named, or where `make build` puts it.
fn module(args: &Playground) -> anyhow::Result<PathBuf> {
    if let Some(module) = &args.module {
        return Ok(module.clone());
    }
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let target = program.parent().and_then(|release| release.parent());
    let module = target.map(|target| target.join("jobs/click-event-count.wasm"));
    match module {
        Some(module) if module.exists() => Ok(module),
        _ => bail!(
            "there is no click-event-count.wasm beside this program; `make build` puts it into target/jobs/, or name one with --module"
        ),
    }
}

fn now_ms() -> i64 {
    #[expect(
        clippy::disallowed_types,
        reason = "the demo's events carry the time of day"
    )]
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
