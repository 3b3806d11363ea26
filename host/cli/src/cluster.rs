//! Starting coordinators and workers.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use tidemill_connectors::Registry;
use tidemill_coordinator::{Coordinator, Listeners};
use tidemill_planner::{Planner, PlannerConfig};
use tidemill_runtime::{Interruption, Runtime, RuntimeConfig};
use tidemill_types::{
    JobGraph,
    config::{Config, keys},
};
use tidemill_worker::{Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    args::Local,
    client::{Client, RunOptions},
    commands::{job_settings, say, wait},
    settings::{self, Directories},
};

/// Runs a coordinator until it is told to stop.
pub(crate) async fn coordinator(config: Config) -> anyhow::Result<ExitCode> {
    let coordinator = start_coordinator(&config).await?;
    say(format_args!("REST on http://{}", coordinator.rest_addr()));
    say(format_args!(
        "workers connect to {}",
        coordinator.rpc_addr()
    ));
    stopped(coordinator.stopped().cancelled_owned()).await;
    coordinator.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Runs a worker until it is told to stop.
pub(crate) async fn worker(config: Config) -> anyhow::Result<ExitCode> {
    let coordinator = format!(
        "{}:{}",
        config.get(&keys::JOBMANAGER_RPC_ADDRESS),
        config.get(&keys::JOBMANAGER_RPC_PORT)
    );
    let worker = start_worker(&config, coordinator, Registry::standard()).await?;
    let shutdown = CancellationToken::new();
    let mut running = std::pin::pin!(worker.run(shutdown.clone()));
    tokio::select! {
        ended = &mut running => ended?,
        () = told_to_stop() => {
            shutdown.cancel();
            running.await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A coordinator and a worker in one process.
pub(crate) struct LocalCluster {
    coordinator: Coordinator,
    shutdown: CancellationToken,
    worker: tokio::task::JoinHandle<Result<(), tidemill_worker::Error>>,
}

impl LocalCluster {
    /// Starts both.
    pub(crate) async fn start(config: &Config, registry: Registry) -> anyhow::Result<Self> {
        let coordinator = start_coordinator(config).await?;
        let worker = start_worker(config, coordinator.rpc_addr().to_string(), registry).await?;
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let worker = tokio::spawn(async move { worker.run(token).await });
        Ok(Self {
            coordinator,
            shutdown,
            worker,
        })
    }

    /// A client of this cluster.
    pub(crate) fn client(&self, config: &Config) -> Client {
        Client::new(Some(&self.coordinator.rest_addr().to_string()), config)
    }

    /// Where REST is.
    pub(crate) fn rest_url(&self) -> String {
        format!("http://{}", self.coordinator.rest_addr())
    }

    /// Stops both.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.worker.await??;
        self.coordinator.shutdown().await;
        Ok(())
    }
}

/// Runs a coordinator and a worker in one process, with a job or until told to stop.
pub(crate) async fn local(config: Config, local: Local) -> anyhow::Result<ExitCode> {
    let cluster = LocalCluster::start(&config, Registry::standard()).await?;
    let code = match local.job {
        None => {
            say(format_args!("REST on {}", cluster.rest_url()));
            stopped(cluster.coordinator.stopped().cancelled_owned()).await;
            ExitCode::SUCCESS
        }
        Some(file) => {
            let client = cluster.client(&config);
            let options = RunOptions {
                args: local.args,
                parallelism: local.parallelism,
                config: job_settings(&config),
                ..RunOptions::default()
            };
            let job = client.submit(&file, options).await?;
            tokio::select! {
                code = wait(&client, &job) => code?,
                () = told_to_stop() => {
                    client.cancel(&job).await?;
                    wait(&client, &job).await?
                }
            }
        }
    };
    cluster.stop().await?;
    Ok(code)
}

/// The planner of this program.
pub(crate) fn planner(config: &Config) -> anyhow::Result<Planner> {
    let directories = Directories::create(config)?;
    let mut planner = PlannerConfig::of_this_program(directories.code_cache)
        .context("the path of this program is unknown")?;
    planner.compile_timeout = config.get(&keys::COMPILE_TIMEOUT);
    planner.plan_timeout = config.get(&keys::PLAN_TIMEOUT);
    planner.epochs = interruption(config)? == Interruption::Epoch;
    Ok(Planner::new(planner))
}

/// Checks what a graph connects to; called in the planner process.
pub(crate) fn preflight(graph: &JobGraph) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot check connectors: {e}"))?;
    runtime
        .block_on(Registry::standard().preflight(graph))
        .map_err(|e| e.to_string())
}

fn interruption(config: &Config) -> anyhow::Result<Interruption> {
    match config.get(&keys::INTERRUPTION).as_str() {
        "" => Ok(Interruption::default()),
        "page" => Ok(Interruption::Page),
        "epoch" => Ok(Interruption::Epoch),
        other => anyhow::bail!(
            "\"{other}\" is not a valid value of {}: expected page or epoch",
            keys::INTERRUPTION.name
        ),
    }
}

async fn start_coordinator(config: &Config) -> anyhow::Result<Coordinator> {
    let mut config = config.clone();
    if config.get(&keys::STORAGE_DIR).is_empty() {
        let dir = settings::base(&config).join("storage");
        config.set(keys::STORAGE_DIR.name, &dir.to_string_lossy())?;
    }
    let planner = planner(&config)?;
    Ok(Coordinator::start(&config, Arc::new(planner), Listeners::default()).await?)
}

async fn start_worker(
    config: &Config,
    coordinator: String,
    registry: Registry,
) -> anyhow::Result<Worker> {
    let directories = Directories::create(config)?;
    let runtime = Runtime::new(RuntimeConfig {
        cache_dir: directories.code_cache,
        interruption: interruption(config)?,
    })?;
    let worker = WorkerConfig {
        config: config.clone(),
        coordinator,
        runtime,
        planner: planner(config)?,
        registry: Arc::new(registry),
        temporary_dir: directories.temporary,
    };
    Ok(Worker::start(worker).await?)
}

/// Resolves when the process is told to stop, or when the cluster has been over REST.
async fn stopped(cluster: impl Future<Output = ()>) {
    tokio::select! {
        () = cluster => {}
        () = told_to_stop() => {}
    }
}

/// Resolves on SIGINT and SIGTERM.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
