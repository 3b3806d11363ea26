//! Starting and stopping a coordinator.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidemill_types::{
    CoordinatorEpoch,
    config::{Config, MemorySize, keys},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    blobs::Blobs, clock::Clock, cluster::Cluster, error::CoordinatorError, modules::ModuleStore,
    plan::Plan, rest, rpc, workers::Workers,
};

/// How long shutting down waits for what still runs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Listeners that somebody bound before, in place of the configured addresses.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For the REST API.
    pub rest: Option<TcpListener>,
    /// For workers.
    pub rpc: Option<TcpListener>,
}

/// A running coordinator.
pub struct Coordinator {
    cluster: Arc<Cluster>,
    rest_addr: SocketAddr,
    rpc_addr: SocketAddr,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("rest", &self.rest_addr)
            .field("rpc", &self.rpc_addr)
            .finish()
    }
}

impl Coordinator {
    /// Starts a coordinator on the current runtime.
    ///
    /// # Errors
    ///
    /// [`CoordinatorError`] when an address is refused or taken, or the storage directory is not
    /// usable.
    pub async fn start(
        config: &Config,
        planner: Arc<dyn Plan>,
        listeners: Listeners,
    ) -> Result<Self, CoordinatorError> {
        let rest_host = config.get(&keys::REST_BIND_ADDRESS);
        let rest = bind(
            "rest.port",
            "rest.bind-address",
            &rest_host,
            config.get(&keys::REST_PORT),
            listeners.rest,
        )
        .await?;
        let rpc_host = config.get(&keys::JOBMANAGER_BIND_HOST);
        let rpc_port = config.get(&keys::JOBMANAGER_RPC_PORT);
        let rpc = bind(
            "jobmanager.rpc.port",
            "jobmanager.bind-host",
            &rpc_host,
            rpc_port,
            listeners.rpc,
        )
        .await?;
        let rest_addr = local_addr(&rest, "rest.port")?;
        let rpc_addr = local_addr(&rpc, "jobmanager.rpc.port")?;

        let clock = Clock::system();
        let storage = storage_dir(config, rest_addr.port());
        prepare_dir(&storage).await?;
        let epoch = claim_epoch(&storage).await?;
        let MemorySize(upload_max) = config.get(&keys::REST_MAX_CONTENT_LENGTH);
        let uploads = modules_dir(config, &storage);
        let modules = ModuleStore::open(uploads, clock, upload_max)
            .await
            .map_err(|e| storage_error(&storage, &e))?;
        let blobs = Blobs::open(&storage)
            .await
            .map_err(|e| storage_error(&storage, &e))?;
        let workers = Workers::new(epoch);
        let cluster = Arc::new(Cluster::new(
            config.clone(),
            clock,
            storage,
            planner,
            modules,
            blobs,
            workers,
        ));
        tracing::info!(rest = %rest_addr, rpc = %rpc_addr, %epoch, "coordinator starts");
        spawn_server(&cluster, rest::serve(Arc::clone(&cluster), rest, rest_addr));
        spawn_server(&cluster, rpc::serve(Arc::clone(&cluster), rpc));
        Ok(Self {
            cluster,
            rest_addr,
            rpc_addr,
        })
    }

    /// Where the REST API is.
    #[must_use]
    pub const fn rest_addr(&self) -> SocketAddr {
        self.rest_addr
    }

    /// Where workers connect to.
    #[must_use]
    pub const fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// Is cancelled when the coordinator shuts down, also when that was asked for over REST.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.cluster.shutdown.clone()
    }

    /// Shuts down: tasks are cancelled, checkpoints are kept, servers stop.
    pub async fn shutdown(self) {
        self.cluster.shutdown.cancel();
        self.cluster.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.cluster.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections were still open at shutdown");
        }
    }
}

/// Runs a server; when one breaks, the coordinator stops.
fn spawn_server(
    cluster: &Arc<Cluster>,
    server: impl Future<Output = Result<(), CoordinatorError>> + Send + 'static,
) {
    let shutdown = cluster.shutdown.clone();
    cluster.tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "coordinator stops");
            shutdown.cancel();
        }
    });
}

async fn bind(
    port_key: &'static str,
    host_key: &'static str,
    host: &str,
    port: u16,
    given: Option<TcpListener>,
) -> Result<TcpListener, CoordinatorError> {
    if let Some(listener) = given {
        return Ok(listener);
    }
    if !is_loopback(host) {
        return Err(CoordinatorError::NotLoopback {
            key: host_key,
            value: host.to_owned(),
        });
    }
    TcpListener::bind((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|error| CoordinatorError::Bind {
            key: port_key,
            address: format!("{host}:{port}"),
            error,
        })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn local_addr(listener: &TcpListener, key: &'static str) -> Result<SocketAddr, CoordinatorError> {
    listener
        .local_addr()
        .map_err(|error| CoordinatorError::Bind {
            key,
            address: "?".into(),
            error,
        })
}

/// Where everything is kept. Coordinators of one machine do not share it by accident.
fn storage_dir(config: &Config, rest_port: u16) -> PathBuf {
    let configured = config.get(&keys::STORAGE_DIR);
    if !configured.is_empty() {
        return PathBuf::from(configured);
    }
    let temporary = match config.get(&keys::TMP_DIRS) {
        dir if dir.is_empty() => std::env::temp_dir(),
        dir => PathBuf::from(dir),
    };
    temporary
        .join("tidemill")
        .join(format!("coordinator-{rest_port}"))
}

fn modules_dir(config: &Config, storage: &Path) -> PathBuf {
    match config.get(&keys::WEB_UPLOAD_DIR) {
        dir if dir.is_empty() => storage.join("modules"),
        dir => PathBuf::from(dir),
    }
}

fn storage_error(path: &Path, error: &dyn std::fmt::Display) -> CoordinatorError {
    CoordinatorError::Storage {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

async fn prepare_dir(path: &Path) -> Result<(), CoordinatorError> {
    let absolute = path.is_absolute();
    if !absolute {
        return Err(storage_error(path, &"it must be an absolute path"));
    }
    let mut builder = tokio::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder
        .create(path)
        .await
        .map_err(|e| storage_error(path, &e))
}

/// Takes the next term, by creating a file that nobody else can create. Of several coordinators on
/// one storage directory, each gets its own.
async fn claim_epoch(storage: &Path) -> Result<CoordinatorEpoch, CoordinatorError> {
    let folder = storage.join("epochs");
    let failed = |e: std::io::Error| storage_error(&folder, &e);
    tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
    loop {
        let mut newest = 0u64;
        let mut entries = tokio::fs::read_dir(&folder).await.map_err(failed)?;
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            newest = newest.max(number.unwrap_or(0));
        }
        let path = folder.join(format!("{:020}", newest + 1));
        match tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .await
        {
            Ok(_) => {
                let old = folder.join(format!("{newest:020}"));
                if newest > 0
                    && let Err(error) = tokio::fs::remove_file(&old).await
                {
                    tracing::debug!(path = %old.display(), %error, "an old epoch is left behind");
                }
                return Ok(CoordinatorEpoch(newest + 1));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        for host in ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "::", "10.0.0.1", "example.com", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn every_start_has_a_newer_epoch() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(claim_epoch(dir.path()).await.unwrap(), CoordinatorEpoch(1));
        assert_eq!(claim_epoch(dir.path()).await.unwrap(), CoordinatorEpoch(2));
        assert_eq!(claim_epoch(dir.path()).await.unwrap(), CoordinatorEpoch(3));
    }
}
