//! From messages of workers to the coordinator's own terms. Everything from outside is checked.

use std::collections::BTreeMap;

use tidemill_checkpoint::SubtaskState;
use tidemill_protocol::control::{self, Metric, Register, TaskState};

use crate::{
    job::{TaskReport, TaskStatus},
    workers::{SLOTS_PER_WORKER_MAX, WorkerInfo},
};

/// The most figures accepted of one task.
const METRICS_MAX: usize = 2_000;
/// The longest cause that is kept, in characters; a backtrace fits.
const CAUSE_CHARS_MAX: usize = 64 << 10;

/// A worker that wants to register.
///
/// # Errors
///
/// What is wrong with it, for the worker's log.
pub(super) fn worker_info(register: &Register) -> Result<WorkerInfo, String> {
    if register.version != tidemill_protocol::VERSION {
        return Err(format!(
            "the worker has version {}, the coordinator {}: run the same version on both sides",
            register.version,
            tidemill_protocol::VERSION
        ));
    }
    if register.slots == 0 || register.slots > SLOTS_PER_WORKER_MAX {
        return Err(format!(
            "the worker offers {} slots; 1 to {SLOTS_PER_WORKER_MAX} are possible (taskmanager.numberOfTaskSlots)",
            register.slots
        ));
    }
    if register.data_address.is_empty() || register.data_address.len() > 300 {
        return Err("the worker names no data address".into());
    }
    Ok(WorkerInfo {
        id: register
            .worker_id
            .parse()
            .map_err(|e: tidemill_types::ids::InvalidId| e.to_string())?,
        data_address: register.data_address.clone(),
        slots: register.slots,
        memory_bytes: register.memory_bytes,
        cpu_cores: register.cpu_cores,
        pid: register.pid,
    })
}

/// A state of a task as workers report it.
pub(super) fn task_status(state: i32) -> Option<TaskStatus> {
    match TaskState::try_from(state).ok()? {
        TaskState::Initializing => Some(TaskStatus::Initializing),
        TaskState::Running => Some(TaskStatus::Running),
        TaskState::Finished => Some(TaskStatus::Finished),
        TaskState::Canceled => Some(TaskStatus::Canceled),
        TaskState::Failed => Some(TaskStatus::Failed),
        TaskState::Unspecified => None,
    }
}

/// A report about a task.
pub(super) fn task_report(
    update: &control::TaskUpdate,
    id: tidemill_types::TaskId,
) -> Option<TaskReport> {
    Some(TaskReport {
        attempt: id.attempt,
        vertex: id.vertex,
        subtask: id.subtask.0,
        status: task_status(update.state)?,
        cause: update.cause.chars().take(CAUSE_CHARS_MAX).collect(),
        unrecoverable: update.unrecoverable,
    })
}

/// The state that a task acknowledges a checkpoint with; none where the bytes are empty.
pub(super) fn subtask_state(bytes: &[u8]) -> Result<Option<SubtaskState>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(bytes)
        .map(Some)
        .map_err(|e| format!("unreadable state: {e}"))
}

/// Figures by name.
pub(super) fn metrics(metrics: Vec<Metric>) -> BTreeMap<String, f64> {
    metrics
        .into_iter()
        .take(METRICS_MAX)
        .map(|metric| (metric.name, metric.value))
        .collect()
}
