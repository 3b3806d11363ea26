//! The main job under test: clicks in, counts out, audited.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::bail;
use tidemill_playground::{
    Audit, Clicks, GeneratorConfig, Progress, Results, Verdict, create_topics, generate,
};
use tokio::time::Instant;

/// Partitions of both topics.
const PARTITIONS: i32 = 2;

/// Arguments of click-event-count between two topics.
#[must_use]
pub fn click_args(servers: &str, input: &str, output: &str) -> Vec<String> {
    let args = [
        "--bootstrap.servers",
        servers,
        "--input-topic",
        input,
        "--output-topic",
        output,
        "--checkpointing",
        "--event-time",
    ];
    args.map(ToOwned::to_owned).to_vec()
}

/// Clicks being generated into a topic, and results being audited.
#[derive(Debug)]
pub struct ClickRun {
    /// Arguments for the job.
    pub args: Vec<String>,
    windows: u64,
    audit: Audit,
    results: Results,
    progress: Arc<Progress>,
    generating: tokio::task::JoinHandle<Result<(), tidemill_playground::Error>>,
}

impl ClickRun {
    /// Creates topics `<name>-in` and `<name>-out` and starts to generate.
    ///
    /// # Errors
    ///
    /// If Kafka does not take it.
    pub async fn start(servers: &str, name: &str, windows: u64, rate: u64) -> anyhow::Result<Self> {
        let (input, output) = (format!("{name}-in"), format!("{name}-out"));
        create_topics(servers, &[&input, &output], PARTITIONS).await?;
        let clicks = Clicks::starting_near(1_700_000_000_000);
        let progress = Arc::new(Progress::default());
        let config = GeneratorConfig {
            bootstrap_servers: servers.to_owned(),
            topic: input.clone(),
            partitions: PARTITIONS,
            clicks,
            windows: Some(windows),
            rate,
        };
        let shared = Arc::clone(&progress);
        Ok(Self {
            args: click_args(servers, &input, &output),
            windows,
            audit: Audit::new(clicks),
            results: Results::open(servers, &output, PARTITIONS)?,
            progress,
            generating: tokio::spawn(async move { generate(&config, &shared).await }),
        })
    }

    /// Reads results until so many windows are complete.
    ///
    /// # Errors
    ///
    /// If they are not in time.
    pub async fn until_windows(&mut self, windows: u64, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while self.audit.windows_done() < windows {
            match tokio::time::timeout_at(deadline, self.results.next()).await {
                Ok(record) => {
                    self.audit.take(&record?);
                    self.progress
                        .windows_done
                        .store(self.audit.windows_done(), Relaxed);
                }
                Err(_) => bail!(
                    "{} of {windows} windows after {limit:?}; {} events generated",
                    self.audit.windows_done(),
                    self.progress.generated.load(Relaxed),
                ),
            }
        }
        Ok(())
    }

    /// Reads all results and judges them.
    ///
    /// # Errors
    ///
    /// If they do not come in time.
    pub async fn finish(mut self, limit: Duration) -> anyhow::Result<Verdict> {
        self.until_windows(self.windows, limit).await?;
        // Late repetitions count as well.
        while let Ok(record) =
            tokio::time::timeout(Duration::from_secs(1), self.results.next()).await
        {
            self.audit.take(&record?);
        }
        Ok(self.audit.verdict(self.windows))
    }
}

impl Drop for ClickRun {
    fn drop(&mut self) {
        self.generating.abort();
    }
}
