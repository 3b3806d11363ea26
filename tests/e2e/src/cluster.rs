//! A cluster of real processes on loopback.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tidemill_testkit::wait_until;

use crate::{Ended, Program, Rest};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The part of each log that is shown when a test has failed.
const SHOWN_LINES_MAX: usize = 150;

/// How to start a cluster.
#[derive(Debug, Default, Clone)]
pub struct ClusterBuilder {
    workers: usize,
    slots: u32,
    settings: Vec<(String, String)>,
}

/// A coordinator and its workers. All are killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The coordinator's REST API.
    pub rest: Rest,
    /// The workers, in the order of their start.
    pub workers: Vec<Worker>,
    coordinator: Program,
    rpc_port: u16,
    settings: Vec<(String, String)>,
    dir: tempfile::TempDir,
}

/// A worker process.
#[derive(Debug)]
pub struct Worker {
    program: Program,
}

impl Worker {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// What it has written to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.program.log()
    }
}

impl ClusterBuilder {
    /// One worker with one slot.
    #[must_use]
    pub fn new() -> Self {
        Self {
            workers: 1,
            slots: 1,
            settings: Vec::new(),
        }
    }

    /// So many workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// So many slots each.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// A setting of all processes.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts the processes and waits until all workers have registered.
    ///
    /// # Errors
    ///
    /// If one does not start.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        let dir = tempfile::tempdir()?;
        let mut settings = vec![
            (
                "io.tmp.dirs".to_owned(),
                dir.path().join("tmp").display().to_string(),
            ),
            (
                "taskmanager.numberOfTaskSlots".to_owned(),
                self.slots.to_string(),
            ),
            ("rest.port".to_owned(), "0".to_owned()),
            ("jobmanager.rpc.port".to_owned(), "0".to_owned()),
        ];
        settings.extend(self.settings);
        // Compiled code is shared by all tests: it depends on nothing but the module.
        let code = tidemill_testkit::target_dir().join("e2e-code");
        settings.push((
            "tidemill.code-cache.dir".to_owned(),
            code.display().to_string(),
        ));
        let coordinator = spawn("coordinator", &settings, dir.path())?;
        let rest = coordinator.wait_for_line("REST on ", START_TIMEOUT).await?;
        let rpc = coordinator
            .wait_for_line("workers connect to ", START_TIMEOUT)
            .await?;
        let rpc_port = rpc.rsplit(':').next().context("a port")?.parse()?;
        let mut cluster = Cluster {
            rest: Rest::new(rest),
            workers: Vec::new(),
            coordinator,
            rpc_port,
            settings,
            dir,
        };
        for _ in 0..self.workers {
            cluster.start_worker()?;
        }
        cluster.wait_for_workers(self.workers).await?;
        Ok(cluster)
    }
}

impl Cluster {
    /// Starts another worker.
    ///
    /// # Errors
    ///
    /// If the process cannot be started.
    pub fn start_worker(&mut self) -> anyhow::Result<()> {
        let mut settings = self.settings.clone();
        settings.retain(|(key, _)| key != "jobmanager.rpc.port");
        settings.push(("jobmanager.rpc.port".to_owned(), self.rpc_port.to_string()));
        let program = spawn("worker", &settings, self.dir.path())?;
        self.workers.push(Worker { program });
        Ok(())
    }

    /// Waits until so many workers are registered.
    ///
    /// # Errors
    ///
    /// If they are not in time.
    pub async fn wait_for_workers(&self, workers: usize) -> anyhow::Result<()> {
        wait_until(
            START_TIMEOUT,
            &format!("{workers} workers are registered"),
            || async {
                let overview = self.rest.get("/overview").await;
                overview.is_ok_and(|o| o["taskmanagers"].as_u64() == Some(workers as u64))
            },
        )
        .await
    }

    /// Kills a worker with SIGKILL and forgets it.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn kill_worker(&mut self, index: usize) -> anyhow::Result<()> {
        if index >= self.workers.len() {
            bail!("there is no worker {index}");
        }
        drop(self.workers.remove(index));
        Ok(())
    }

    /// Tells a worker to end and waits until it has.
    ///
    /// # Errors
    ///
    /// If it is not there or does not end in time.
    pub async fn stop_worker(&mut self, index: usize, limit: Duration) -> anyhow::Result<Ended> {
        if index >= self.workers.len() {
            bail!("there is no worker {index}");
        }
        let mut worker = self.workers.remove(index);
        worker.program.signal(Signal::TERM)?;
        worker.program.ended(limit).await
    }

    /// Stops a worker as it stands, connections and all; [`Self::thaw_worker`] wakes it.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn freeze_worker(&self, index: usize) -> anyhow::Result<()> {
        self.workers
            .get(index)
            .context("no such worker")?
            .program
            .signal(Signal::STOP)
    }

    /// Wakes a frozen worker.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn thaw_worker(&self, index: usize) -> anyhow::Result<()> {
        self.workers
            .get(index)
            .context("no such worker")?
            .program
            .signal(Signal::CONT)
    }

    /// A directory that goes with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process ids of coordinator and workers that are alive.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let workers = self.workers.iter().map(|worker| &worker.program);
        let all = std::iter::once(&self.coordinator).chain(workers);
        all.filter(|program| program.is_alive())
            .map(Program::pid)
            .collect()
    }

    /// What the processes wrote to their logs, in the order of their start.
    #[must_use]
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.dir.path())
            .into_iter()
            .flatten()
            .flatten();
        let mut logs: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        let mut text = String::new();
        for path in logs {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..];
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            text += &format!("--- {name}, {} of {} lines\n", last.len(), lines.len());
            text += &last.join("\n");
            text += "\n";
        }
        text
    }
}

impl Drop for Cluster {
    /// Shows the logs: the test harness keeps what is printed and shows it of failed tests only.
    #[expect(clippy::print_stderr, reason = "captured by the test harness")]
    fn drop(&mut self) {
        eprintln!("{}", self.logs());
    }
}

fn spawn(command: &str, settings: &[(String, String)], dir: &Path) -> anyhow::Result<Program> {
    let number = std::fs::read_dir(dir)?.count();
    let mut args = vec![command.to_owned()];
    args.extend(
        settings
            .iter()
            .map(|(key, value)| format!("-D{key}={value}")),
    );
    Program::start(&args, &dir.join(format!("{number:03}-{command}")))
}
