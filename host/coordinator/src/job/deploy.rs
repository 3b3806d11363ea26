//! The messages that bring tasks to their workers.

use std::collections::{BTreeMap, HashMap};

use tidemill_checkpoint::{RestoreError, TaskRestore, assign_restore};
use tidemill_protocol::control::{Deploy, JobDescriptor, TaskDeployment, TaskLocation};
use tidemill_types::WorkerId;

use super::{JobInfo, JobState};

/// A worker's session: where a message goes.
pub(super) type Target = (WorkerId, u64);

/// The most state that one deployment may carry to one worker, in bytes. Together with the graph
/// it must stay below what a worker takes in one message: a larger one would break the worker's
/// session, and with it every other job there.
const STATE_BYTES_MAX: usize = 192 << 20;

/// Why an attempt cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeployError {
    /// The newest checkpoint does not fit the job (any more).
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Too much operator state.
    #[error(
        "the operator state that one worker would have to restore is larger than {STATE_BYTES_MAX} \
         bytes; union and broadcast state goes to every subtask, keep less of it"
    )]
    TooLarge,
}

/// One message for each worker of the attempt.
///
/// # Errors
///
/// [`DeployError`].
pub(super) fn deployments(
    info: &JobInfo,
    state: &JobState,
) -> Result<BTreeMap<Target, Deploy>, DeployError> {
    let tasks = state.machine.tasks();
    let mut restores = restores(info, state)?;
    let descriptor = descriptor(info, &tasks.parallelism, &tasks.max_parallelism);
    let placed = || {
        tasks.indexed().filter_map(|(vertex, subtask, task)| {
            task.place.as_ref().map(|place| (vertex, subtask, place))
        })
    };
    let locations: Vec<TaskLocation> = placed()
        .map(|(vertex, subtask, place)| TaskLocation {
            vertex,
            subtask,
            worker_id: place.worker.to_string(),
            data_address: place.data_address.clone(),
        })
        .collect();
    let mut messages: BTreeMap<Target, Deploy> = BTreeMap::new();
    let mut state_bytes: BTreeMap<Target, usize> = BTreeMap::new();
    for (vertex, subtask, place) in placed() {
        let restore = restores
            .remove(&(vertex, subtask))
            .map_or_else(Vec::new, |restore| {
                serde_json::to_vec(&restore).expect("a restore is always expressible as JSON")
            });
        let target = (place.worker.clone(), place.session);
        let bytes = state_bytes.entry(target.clone()).or_default();
        *bytes += restore.len();
        if *bytes > STATE_BYTES_MAX {
            return Err(DeployError::TooLarge);
        }
        let message = messages.entry(target).or_insert_with(|| Deploy {
            job: Some(descriptor.clone()),
            attempt: state.machine.attempt().0,
            tasks: Vec::new(),
            locations: locations.clone(),
        });
        message.tasks.push(TaskDeployment {
            vertex,
            subtask,
            slot: place.slot,
            restore: restore.into(),
        });
    }
    Ok(messages)
}

fn restores(
    info: &JobInfo,
    state: &JobState,
) -> Result<HashMap<(u32, u32), TaskRestore>, RestoreError> {
    let Some(newest) = &state.checkpoints.newest else {
        return Ok(HashMap::new());
    };
    let tasks = state.machine.tasks();
    assign_restore(
        &newest.manifest,
        &newest.base,
        &info.graph,
        &tasks.parallelism,
        &tasks.max_parallelism,
        info.allow_non_restored,
    )
}

fn descriptor(info: &JobInfo, parallelism: &[u32], max_parallelism: &[u32]) -> JobDescriptor {
    let own = |pair: (&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
    JobDescriptor {
        job: info.id.to_string(),
        tenant: info.tenant.to_string(),
        name: info.name.clone(),
        module_hash: info.module_hash.clone(),
        module_id: info.module_id.clone(),
        args: info.args.clone(),
        config: info.config.iter().map(own).collect(),
        plan_config: info.plan_config.iter().map(|(k, v)| own((k, v))).collect(),
        graph: serde_json::to_vec(&*info.graph)
            .expect("a graph is always expressible as JSON")
            .into(),
        submitted_at_ms: info.submitted_ms,
        parallelism: parallelism.to_vec(),
        max_parallelism: max_parallelism.to_vec(),
    }
}
