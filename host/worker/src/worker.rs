//! A worker process, put together.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tidemill_connectors::Registry;
use tidemill_planner::Planner;
use tidemill_protocol::control::Metric;
use tidemill_runtime::Runtime;
use tidemill_types::config::{Config, keys};
use tokio_util::sync::CancellationToken;

use crate::{
    exchange::ExchangeService,
    modules::Modules,
    session::{Identity, Session, SessionError},
    tasks::Tasks,
};

/// Data threads per core: a guest that computes for long holds one, and the operating system
/// shares the cores among the rest.
const DATA_THREADS_PER_CORE: usize = 2;

/// How long tasks may take to stop when the worker does.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker is made of.
pub struct WorkerConfig {
    /// Settings of the cluster.
    pub config: Config,
    /// `host:port` of the coordinator's RPC port.
    pub coordinator: String,
    /// Compiled code runs in this.
    pub runtime: Runtime,
    /// Modules are compiled by this.
    pub planner: Planner,
    /// The connectors there are.
    pub registry: Arc<Registry>,
    /// For modules on their way to the planner.
    pub temporary_dir: PathBuf,
}

impl std::fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("coordinator", &self.coordinator)
            .field("temporary_dir", &self.temporary_dir)
            .finish_non_exhaustive()
    }
}

/// Why a worker does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data port cannot be had.
    #[error("cannot listen on {address} for data: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What happened.
        source: std::io::Error,
    },
    /// Others than this machine could reach the data port, and it knows no authentication yet.
    #[error(
        "taskmanager.bind-host is {0}: without authentication a worker listens on loopback only, such as 127.0.0.1"
    )]
    NotLoopback(String),
    /// Threads cannot be started.
    #[error("cannot start data threads: {0}")]
    Threads(std::io::Error),
    /// The session with the coordinator cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A worker that has its ports and threads and is about to register.
pub struct Worker {
    session: Session,
    tasks: Arc<Tasks>,
    data: tokio::runtime::Runtime,
    data_address: SocketAddr,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("data_address", &self.data_address)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Takes ports and threads.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is not to be had.
    pub async fn start(worker: WorkerConfig) -> Result<Self, Error> {
        let config = &worker.config;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let data = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores * DATA_THREADS_PER_CORE)
            .thread_name("tidemill-data")
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let host = config.get(&keys::TASKMANAGER_BIND_HOST);
        if !is_loopback(&host) {
            return Err(Error::NotLoopback(host));
        }
        let address = format!("{host}:{}", config.get(&keys::TASKMANAGER_DATA_PORT));
        let bind = address.clone();
        let exchange = data
            .spawn(async move { ExchangeService::bind(&bind).await })
            .await;
        let exchange = exchange
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
            .map_err(|source| Error::Listen { address, source })?;
        let data_address = exchange.local_address();
        let public = format!(
            "{}:{}",
            config.get(&keys::TASKMANAGER_HOST),
            data_address.port()
        );
        let suffix = tidemill_types::JobId::random().to_string();
        let worker_id: Arc<str> = format!("{public}-{}", &suffix[..6]).into();
        exchange.introduce(&worker_id, &public);
        let identity = Identity {
            worker_id: Arc::clone(&worker_id),
            data_address: public,
            slots: config.get(&keys::SLOTS),
            memory_bytes: memory_bytes(),
            cpu_cores: u32::try_from(cores).unwrap_or(u32::MAX),
        };
        let modules = Modules::new(worker.runtime, worker.planner, worker.temporary_dir);
        let tasks = Tasks::new(
            worker_id,
            Arc::new(modules),
            Arc::new(exchange),
            worker.registry,
            data.handle().clone(),
        );
        let loss_timeout = config.get(&keys::COORDINATOR_LOSS_TIMEOUT);
        let session = Session::new(
            identity,
            &worker.coordinator,
            Arc::clone(&tasks),
            loss_timeout,
        )?;
        Ok(Self {
            session,
            tasks,
            data,
            data_address,
        })
    }

    /// Where other workers reach this one.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        self.data_address
    }

    /// Serves until `shutdown`; tasks are stopped then.
    ///
    /// # Errors
    ///
    /// [`Error::Session`] when the coordinator refuses this worker.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let ended = self.session.run(shutdown).await;
        self.tasks.cancel_all();
        let joined = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.tasks.join()).await;
        if joined.is_err() {
            tracing::warn!("some tasks did not stop in time");
        }
        self.data.shutdown_background();
        Ok(ended?)
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Physical memory of the machine.
fn memory_bytes() -> u64 {
    proc_value("/proc/meminfo", "MemTotal:").map_or(0, |kb| kb * 1024)
}

/// Figures of this process.
#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are approximate beyond 2^53"
)]
pub(crate) fn process_metrics() -> Vec<Metric> {
    let rss = proc_value("/proc/self/status", "VmRSS:").map_or(0, |kb| kb * 1024);
    let threads = proc_value("/proc/self/status", "Threads:").unwrap_or(0);
    vec![
        Metric {
            name: "Status.Process.Memory.Resident".to_owned(),
            value: rss as f64,
        },
        Metric {
            name: "Status.Process.Threads.Count".to_owned(),
            value: threads as f64,
        },
    ]
}

fn proc_value(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
