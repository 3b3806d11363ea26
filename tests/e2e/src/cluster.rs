//! A cluster of real processes on loopback.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tidemill_testkit::wait_until;

use crate::{Rest, binary};

const START_TIMEOUT: Duration = Duration::from_secs(20);

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
    coordinator: Process,
    rpc_port: u16,
    settings: Vec<(String, String)>,
    dir: tempfile::TempDir,
}

/// A worker process.
#[derive(Debug)]
pub struct Worker {
    process: Process,
}

/// A child that is killed when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ClusterBuilder {
    /// One worker with one slot.
    #[must_use]
    pub fn new() -> Self {
        Self { workers: 1, slots: 1, settings: Vec::new() }
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
            ("io.tmp.dirs".to_owned(), dir.path().join("tmp").display().to_string()),
            ("taskmanager.numberOfTaskSlots".to_owned(), self.slots.to_string()),
            ("rest.port".to_owned(), "0".to_owned()),
            ("jobmanager.rpc.port".to_owned(), "0".to_owned()),
        ];
        settings.extend(self.settings);
        // Compiled code is shared by all tests: it depends on nothing but the module.
        let code = tidemill_testkit::target_dir().join("e2e-code");
        settings.push(("tidemill.code-cache.dir".to_owned(), code.display().to_string()));
        let (coordinator, lines) = spawn("coordinator", &settings, dir.path())?;
        let (rest, rpc) = addresses(lines)?;
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
        let (process, lines) = spawn("worker", &settings, self.dir.path())?;
        drop(lines);
        self.workers.push(Worker { process });
        Ok(())
    }

    /// Waits until so many workers are registered.
    ///
    /// # Errors
    ///
    /// If they are not in time.
    pub async fn wait_for_workers(&self, workers: usize) -> anyhow::Result<()> {
        wait_until(START_TIMEOUT, &format!("{workers} workers are registered"), || async {
            let overview = self.rest.get("/overview").await;
            overview.is_ok_and(|o| o["taskmanagers"].as_u64() == Some(workers as u64))
        })
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

    /// A directory that goes with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process ids of coordinator and workers.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let workers = self.workers.iter().map(|worker| worker.process.0.id());
        std::iter::once(self.coordinator.0.id()).chain(workers).collect()
    }

    /// What the processes wrote to their logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                text += &std::fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
        text
    }
}

type Lines = std::io::Lines<BufReader<std::process::ChildStdout>>;

fn spawn(
    command: &str,
    settings: &[(String, String)],
    dir: &Path,
) -> anyhow::Result<(Process, Lines)> {
    let number = std::fs::read_dir(dir)?.count();
    let log: PathBuf = dir.join(format!("{number}-{command}.log"));
    let mut process = Command::new(binary());
    process
        .arg(command)
        .args(settings.iter().map(|(key, value)| format!("-D{key}={value}")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .process_group(0);
    let mut child = process.spawn().context("cannot start tidemill")?;
    let stdout = child.stdout.take().context("its standard output")?;
    Ok((Process(child), BufReader::new(stdout).lines()))
}

/// The coordinator says on its first two lines where it listens.
fn addresses(mut lines: Lines) -> anyhow::Result<(String, String)> {
    let mut next = |prefix: &str| -> anyhow::Result<String> {
        let line = lines.next().context("the coordinator ended at once; see its log")??;
        let address = line.strip_prefix(prefix).with_context(|| format!("unexpected: {line}"))?;
        Ok(address.to_owned())
    };
    Ok((next("REST on ")?, next("workers connect to ")?))
}
