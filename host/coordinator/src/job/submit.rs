//! From a request to a checked job: plan, graph, settings, state to start from.
//!
//! Whatever can be found wrong is found here, before anything runs.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use tidemill_checkpoint::assign_restore;
use tidemill_planner::PlanJob;
use tidemill_storage::Location;
use tidemill_types::{
    JobGraph, JobId, ShipStrategy, TenantId,
    config::{Config, ConfigError, ConfigValue, Key, keys},
    graph::NAME_BYTES_MAX,
    key_group::MAX_PARALLELISM_BOUND,
};

use super::{
    Checkpoints, JobInfo, JobState, Machine, RestorePoint, checkpoints,
    execution::ExecutionGraph,
    restart::{RestartPolicy, RestartStrategy},
};
use crate::{
    blobs::BlobLease,
    cluster::Cluster,
    modules::{Module, ModuleError},
    plan::PlanFailure,
};

/// The most program arguments, and the most bytes of them together.
const ARGS_MAX: (usize, usize) = (10_000, 1 << 20);
/// The most subtasks of a job.
const TASKS_MAX: u64 = 100_000;

/// Why a job is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is a job with this id.
    #[error("job {0} exists already")]
    Exists(JobId),
    /// There is too much to do.
    #[error("{0}")]
    Busy(String),
    /// The storage directory fails.
    #[error("{0}")]
    Storage(String),
    /// The module cannot be had.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The module does not plan the job.
    #[error("the job cannot be planned: {0}")]
    Plan(#[from] PlanFailure),
    /// A setting of the job is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A request to plan or run a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Submission {
    pub(crate) args: Vec<String>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) job: Option<JobId>,
    /// A checkpoint or savepoint to start from.
    pub(crate) restore_path: Option<String>,
    pub(crate) allow_non_restored: bool,
}

/// A planned job.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) graph: JobGraph,
    pub(crate) parallelism: Vec<u32>,
    max_parallelism: Vec<u32>,
    plan_config: BTreeMap<String, String>,
    config: Config,
    submitted_ms: i64,
}

/// A job that only needs to be started.
pub(crate) struct Prepared {
    pub(crate) info: JobInfo,
    pub(crate) state: JobState,
    pub(crate) module: BlobLease,
}

/// Plans a job without running it. With `preflight`, what it connects to is checked too.
pub(crate) async fn plan(
    cluster: &Cluster,
    module: &Path,
    submission: &Submission,
    preflight: bool,
) -> Result<Planned, SubmitError> {
    check_args(&submission.args)?;
    let id = submission.job.unwrap_or_else(JobId::random);
    let submitted_ms = cluster.clock.now_ms();
    let asked = asked_config(submission)?;
    let plan_config = plan_config(&cluster.config, &asked);
    let request = PlanJob {
        args: submission.args.clone(),
        config: plan_config.clone().into_iter().collect(),
        job: id,
        submitted_at_ms: submitted_ms,
        preflight,
    };
    let graph = cluster.planner.plan(module, request).await?;
    graph
        .validate()
        .map_err(|e| SubmitError::Invalid(e.to_string()))?;
    let config = effective_config(&cluster.config, &graph, &asked)?;
    let (parallelism, max_parallelism) = parallelism_of(&graph, &config)?;
    let name = config
        .get(&keys::PIPELINE_NAME)
        .unwrap_or_else(|| graph.name.clone());
    check_name(&name)?;
    Ok(Planned {
        id,
        name,
        graph,
        parallelism,
        max_parallelism,
        plan_config,
        config,
        submitted_ms,
    })
}

/// Plans a job and makes everything ready to start it.
pub(crate) async fn prepare(
    cluster: &Arc<Cluster>,
    tenant: &TenantId,
    module: &Module,
    submission: &Submission,
) -> Result<Prepared, SubmitError> {
    if let Some(id) = submission
        .job
        .filter(|id| cluster.job_of_any_tenant(*id).is_some())
    {
        return Err(SubmitError::Exists(id));
    }
    let leased = cluster.blobs.lease(&module.hash, &module.path).await;
    let lease =
        leased.map_err(|e| SubmitError::Storage(format!("the module cannot be copied: {e}")))?;
    let planned = plan(cluster, &lease.path, submission, true).await?;
    let location = checkpoint_location(cluster, &planned).await?;
    let restore = match &submission.restore_path {
        Some(path) => Some(restore_point(cluster, path, &planned, submission).await?),
        None => None,
    };
    let now_ms = cluster.clock.now_ms();
    let info = JobInfo {
        id: planned.id,
        tenant: tenant.clone(),
        name: planned.name,
        graph: Arc::new(planned.graph),
        module_id: module.id.to_string(),
        module_hash: lease.hash.clone(),
        args: submission.args.clone(),
        plan_config: planned.plan_config,
        config: planned.config,
        submitted_ms: planned.submitted_ms,
        allow_non_restored: submission.allow_non_restored,
    };
    let policy = RestartPolicy::new(
        RestartStrategy::from_config(&info.config),
        info.id.as_u128(),
    );
    let tasks = ExecutionGraph::new(
        Arc::clone(&info.graph),
        planned.parallelism,
        planned.max_parallelism,
        now_ms,
    );
    let failures_max = cluster.config.get(&keys::WEB_EXCEPTION_HISTORY_SIZE);
    let history = cluster.config.get(&keys::WEB_CHECKPOINTS_HISTORY);
    let state = JobState {
        machine: Machine::new(tasks, policy, failures_max, info.submitted_ms, now_ms),
        checkpoints: Checkpoints::new(&info.config, location, restore, history),
    };
    Ok(Prepared {
        info,
        state,
        module: lease,
    })
}

fn check_args(args: &[String]) -> Result<(), SubmitError> {
    let (count, bytes) = (args.len(), args.iter().map(String::len).sum::<usize>());
    if count > ARGS_MAX.0 || bytes > ARGS_MAX.1 {
        return Err(SubmitError::Invalid(format!(
            "{count} program arguments of {bytes} bytes; at most {} of {} bytes are possible",
            ARGS_MAX.0, ARGS_MAX.1
        )));
    }
    Ok(())
}

/// A name from the configuration has not been checked with the graph.
fn check_name(name: &str) -> Result<(), SubmitError> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(SubmitError::Invalid(format!(
            "pipeline.name must have at most {NAME_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

/// What the user asks for, checked.
fn asked_config(submission: &Submission) -> Result<Config, SubmitError> {
    let mut asked = Config::default();
    for (key, value) in &submission.config {
        asked.set_for_job(key, value)?;
    }
    if let Some(parallelism) = submission.parallelism {
        if parallelism == 0 {
            return Err(SubmitError::Invalid(
                "the parallelism must be at least 1".into(),
            ));
        }
        asked.set_for_job(keys::PARALLELISM.name, &parallelism.to_string())?;
    }
    Ok(asked)
}

/// What planning may see: settings that jobs may set, the user's over the cluster's.
fn plan_config(cluster: &Config, asked: &Config) -> BTreeMap<String, String> {
    let per_job = |name: &str| keys::find(name).is_some_and(|info| info.per_job);
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let defaults = cluster.iter().filter(|(key, _)| per_job(key)).map(own);
    defaults.chain(asked.iter().map(own)).collect()
}

/// The cluster's settings, overlaid with the job's own, overlaid with the user's.
fn effective_config(
    cluster: &Config,
    graph: &JobGraph,
    asked: &Config,
) -> Result<Config, SubmitError> {
    let mut own = Config::default();
    for (key, value) in &graph.config {
        own.set_for_job(key, value).map_err(|e| {
            SubmitError::Invalid(format!(
                "the job \"{}\" sets a wrong configuration: {e}",
                graph.name
            ))
        })?;
    }
    let config = cluster.overlaid_with(&own).overlaid_with(asked);
    within(&config, &keys::GUEST_MEMORY, &keys::GUEST_MEMORY_MAX)?;
    within(
        &config,
        &keys::GUEST_CALL_TIMEOUT,
        &keys::GUEST_CALL_TIMEOUT_MAX,
    )?;
    within(
        &config,
        &keys::STATE_MEMORY_LIMIT,
        &keys::STATE_MEMORY_LIMIT_MAX,
    )?;
    within(&config, &keys::CHANNEL_BYTES, &keys::CHANNEL_BYTES_MAX)?;
    Ok(config)
}

/// What a job may set, it may set up to what the cluster allows.
fn within<T: ConfigValue + PartialOrd>(
    config: &Config,
    key: &Key<T>,
    max: &Key<T>,
) -> Result<(), SubmitError> {
    if config.get(key) <= config.get(max) {
        return Ok(());
    }
    Err(SubmitError::Invalid(format!(
        "{} is {}, but this cluster allows at most {} ({})",
        key.name,
        config.raw(key.name).unwrap_or(key.default),
        config.raw(max.name).unwrap_or(max.default),
        max.name
    )))
}

fn parallelism_of(graph: &JobGraph, config: &Config) -> Result<(Vec<u32>, Vec<u32>), SubmitError> {
    let default = config.get(&keys::PARALLELISM).max(1);
    let default_max = config.get(&keys::MAX_PARALLELISM).max(1);
    let mut parallelism = Vec::with_capacity(graph.vertices.len());
    let mut max_parallelism = Vec::with_capacity(graph.vertices.len());
    for vertex in &graph.vertices {
        let own = vertex.parallelism.unwrap_or(default);
        let max = vertex.max_parallelism.unwrap_or(default_max);
        if own > max || max > MAX_PARALLELISM_BOUND {
            return Err(SubmitError::Invalid(format!(
                "\"{}\" has parallelism {own} but only {max} key groups; set pipeline.max-parallelism \
                 to at least {own} (at most {MAX_PARALLELISM_BOUND})",
                vertex.name
            )));
        }
        parallelism.push(own);
        max_parallelism.push(max);
    }
    let tasks: u64 = parallelism.iter().map(|p| u64::from(*p)).sum();
    if tasks > TASKS_MAX {
        return Err(SubmitError::Invalid(format!(
            "the job has {tasks} subtasks; at most {TASKS_MAX} are possible"
        )));
    }
    for edge in graph
        .edges
        .iter()
        .filter(|edge| edge.strategy == ShipStrategy::Forward)
    {
        let (from, to) = (edge.from as usize, edge.to as usize);
        if parallelism[from] != parallelism[to] {
            return Err(SubmitError::Invalid(format!(
                "\"{}\" forwards to \"{}\", but has parallelism {} and the other {}: rebalance, or give \
                 both the same",
                graph.vertices[from].name,
                graph.vertices[to].name,
                parallelism[from],
                parallelism[to]
            )));
        }
    }
    Ok((parallelism, max_parallelism))
}

/// Where the job's checkpoints go; checked now if there will be any.
async fn checkpoint_location(
    cluster: &Cluster,
    planned: &Planned,
) -> Result<Location, SubmitError> {
    let directory = match planned.config.get(&keys::CHECKPOINTS_DIR) {
        dir if dir.is_empty() => cluster.storage.join("checkpoints").display().to_string(),
        dir => dir,
    };
    let refused = |e: tidemill_storage::StorageError| {
        SubmitError::Invalid(format!(
            "checkpoints cannot be written (execution.checkpointing.dir): {e}"
        ))
    };
    let root = Location::open(&directory, &storage_settings(&planned.config)).map_err(refused)?;
    let location = root.join(&planned.id.to_string()).map_err(refused)?;
    if planned
        .config
        .get(&keys::CHECKPOINT_INTERVAL_OPTIONAL)
        .is_some()
    {
        location.check_writable().await.map_err(refused)?;
    }
    Ok(location)
}

async fn restore_point(
    cluster: &Cluster,
    path: &str,
    planned: &Planned,
    submission: &Submission,
) -> Result<RestorePoint, SubmitError> {
    let storage = storage_settings(&cluster.config);
    let point = checkpoints::read(path, &storage)
        .await
        .map_err(SubmitError::Invalid)?;
    let assigned: Result<HashMap<_, _>, _> = assign_restore(
        &point.manifest,
        &point.base,
        &planned.graph,
        &planned.parallelism,
        &planned.max_parallelism,
        submission.allow_non_restored,
    );
    assigned
        .map_err(|e| SubmitError::Invalid(format!("the job cannot start from \"{path}\": {e}")))?;
    Ok(point)
}

/// What object stores want of the configuration.
fn storage_settings(config: &Config) -> BTreeMap<String, String> {
    config
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
