//! Checkpoints of a job.

use std::collections::BTreeMap;

use axum::extract::Path;
use serde_json::{Value, json};
use tidemill_types::{
    CheckpointId,
    config::{CheckpointMode, CheckpointRetention, Config, keys},
};

use super::{
    error::ApiError,
    figures::distribution,
    reply::{Reply, ok},
    request::{self, Shared, Tenant},
};
use crate::job::{
    JobHandle, JobState,
    checkpoint_stats::{CheckpointRecord, CheckpointStatus, Restored, SubtaskAck},
    checkpoints::type_name,
};

pub(super) async fn overview(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let body = job.with(|state| {
        let stats = &state.checkpoints.stats;
        let zeros = || distribution(stats.summary.duration_ms.iter().map(|_| 0));
        let of = |samples: &std::collections::VecDeque<i64>| distribution(samples.iter().copied());
        let latest = |record: &Option<CheckpointRecord>| record.as_ref().map(record_json);
        json!({
            "counts": {
                "restored": stats.counts.restored,
                "total": stats.counts.total,
                "in_progress": stats.counts.in_progress,
                "completed": stats.counts.completed,
                "failed": stats.counts.failed,
            },
            "summary": {
                "checkpointed_size": of(&stats.summary.state_bytes),
                "state_size": of(&stats.summary.state_bytes),
                "end_to_end_duration": of(&stats.summary.duration_ms),
                "alignment_buffered": zeros(),
                "processed_data": of(&stats.summary.processed_bytes),
                "persisted_data": zeros(),
            },
            "latest": {
                "completed": latest(&stats.latest_completed),
                "savepoint": latest(&stats.latest_savepoint),
                "failed": latest(&stats.latest_failed),
                "restored": stats.restored.as_ref().map(restored_json),
            },
            "history": stats.history.iter().map(record_json).collect::<Vec<_>>(),
        })
    });
    ok(&body)
}

fn restored_json(restored: &Restored) -> Value {
    json!({
        "id": restored.id.0,
        "restore_timestamp": restored.at_ms,
        "is_savepoint": restored.savepoint,
        "external_path": restored.path,
    })
}

fn record_json(record: &CheckpointRecord) -> Value {
    let class = match record.status {
        CheckpointStatus::InProgress => "in_progress",
        CheckpointStatus::Completed => "completed",
        CheckpointStatus::Failed => "failed",
    };
    let savepoint = record.kind.is_savepoint();
    let mut json = figures_json(record, None, record.subtasks);
    json["className"] = json!(class);
    json["is_savepoint"] = json!(savepoint);
    json["savepointFormat"] = if savepoint {
        json!("CANONICAL")
    } else {
        Value::Null
    };
    json["trigger_timestamp"] = json!(record.trigger_ms);
    json["checkpoint_type"] = json!(type_name(record.kind));
    json["tasks"] = json!({});
    match record.status {
        CheckpointStatus::InProgress => {}
        CheckpointStatus::Completed => {
            json["external_path"] = json!(record.path);
            json["discarded"] = json!(record.discarded);
        }
        CheckpointStatus::Failed => {
            json["failure_timestamp"] = json!(record.end_ms);
            json["failure_message"] = json!(record.failure);
        }
    }
    json
}

/// What a checkpoint (or one vertex's part of it) and a task have in common.
fn figures_json(record: &CheckpointRecord, vertex: Option<u32>, subtasks: u32) -> Value {
    let acks: Vec<&SubtaskAck> = acks_of(record, vertex).map(|(_, ack)| ack).collect();
    let latest = acks.iter().map(|ack| ack.at_ms).max().unwrap_or(-1);
    let duration = match vertex {
        None => record.duration_ms(),
        Some(_) if latest < 0 => 0,
        Some(_) => latest - record.trigger_ms,
    };
    json!({
        "id": record.id.0,
        "status": record.status.as_str(),
        "latest_ack_timestamp": latest,
        "checkpointed_size": record.state_bytes(vertex),
        "state_size": record.state_bytes(vertex),
        "end_to_end_duration": duration,
        "alignment_buffered": 0,
        "processed_data": record.processed_bytes(vertex),
        "persisted_data": 0,
        "num_subtasks": subtasks,
        "num_acknowledged_subtasks": if record.status == CheckpointStatus::Completed { subtasks as usize } else { acks.len() },
    })
}

fn acks_of(
    record: &CheckpointRecord,
    vertex: Option<u32>,
) -> impl Iterator<Item = (u32, &SubtaskAck)> {
    record
        .acks
        .iter()
        .filter(move |((v, _), _)| vertex.is_none_or(|vertex| vertex == *v))
        .map(|((_, subtask), ack)| (*subtask, ack))
}

pub(super) async fn config(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    ok(&config_json(&job.info().config))
}

fn config_json(config: &Config) -> Value {
    let ms = crate::clock::unsigned_millis;
    let retention = config.get(&keys::CHECKPOINT_RETENTION);
    // As in Flink, a job without checkpoints has the largest interval.
    let interval = config
        .get(&keys::CHECKPOINT_INTERVAL_OPTIONAL)
        .map_or(i64::MAX as u64, ms);
    json!({
        "mode": match config.get(&keys::CHECKPOINT_MODE) {
            CheckpointMode::ExactlyOnce => "exactly_once",
            CheckpointMode::AtLeastOnce => "at_least_once",
        },
        "interval": interval,
        "timeout": ms(config.get(&keys::CHECKPOINT_TIMEOUT)),
        "min_pause": ms(config.get(&keys::CHECKPOINT_MIN_PAUSE)),
        "max_concurrent": config.get(&keys::CHECKPOINT_MAX_CONCURRENT),
        "externalization": {
            "enabled": retention != CheckpointRetention::NoExternalizedCheckpoints,
            "delete_on_cancellation": retention != CheckpointRetention::RetainOnCancellation,
        },
        "state_backend": "MemoryStateBackend",
        "checkpoint_storage": "ObjectStoreCheckpointStorage",
        "unaligned_checkpoints": false,
        "tolerable_failed_checkpoints": config.get(&keys::CHECKPOINT_TOLERABLE_FAILURES),
        "aligned_checkpoint_timeout": 0,
        "checkpoints_after_tasks_finish": true,
        "state_changelog_enabled": false,
        "changelog_periodic_materialization_interval": 600_000,
        "changelog_storage": "memory",
    })
}

/// Reads a checkpoint that is still remembered.
fn read<T>(
    job: &JobHandle,
    id: &str,
    f: impl FnOnce(&JobState, &CheckpointRecord) -> T,
) -> Result<T, ApiError> {
    let id: u64 = request::number("checkpointid", id)?;
    let found = job.with(|state| {
        state
            .checkpoints
            .stats
            .get(CheckpointId(id))
            .map(|record| f(state, record))
    });
    found.ok_or_else(|| {
        ApiError::not_found(format!(
            "Could not find checkpointing statistics for checkpoint {id}."
        ))
    })
}

pub(super) async fn details(
    cluster: Shared,
    tenant: Tenant,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let body = read(&job, &checkpoint, |state, record| {
        let mut json = record_json(record);
        let tasks: BTreeMap<String, Value> = (0u32..)
            .zip(&job.info().graph.vertices)
            .map(|(position, vertex)| {
                let subtasks = state.machine.tasks().parallelism[position as usize];
                (
                    vertex.id().to_string(),
                    figures_json(record, Some(position), subtasks),
                )
            })
            .collect();
        json["tasks"] = json!(tasks);
        json
    })?;
    ok(&body)
}

pub(super) async fn subtasks(
    cluster: Shared,
    tenant: Tenant,
    Path((id, checkpoint, vertex)): Path<(String, String, String)>,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let vertex = request::vertex(&job, &vertex)?;
    let body = read(&job, &checkpoint, |state, record| {
        let count = state.machine.tasks().parallelism[vertex as usize];
        let mut json = figures_json(record, Some(vertex), count);
        json["summary"] = summary(record, vertex);
        json["subtasks"] = (0..count)
            .map(|subtask| subtask_json(record, vertex, subtask))
            .collect();
        json
    })?;
    ok(&body)
}

const fn whole_ms(us: u64) -> u64 {
    us / 1000
}

fn subtask_json(record: &CheckpointRecord, vertex: u32, subtask: u32) -> Value {
    let Some(ack) = record.acks.get(&(vertex, subtask)) else {
        return json!({ "className": "pending", "index": subtask, "status": "pending_or_failed" });
    };
    json!({
        "className": "completed",
        "index": subtask,
        "status": "completed",
        "ack_timestamp": ack.at_ms,
        "end_to_end_duration": ack.at_ms - record.trigger_ms,
        "checkpointed_size": ack.figures.state_bytes,
        "state_size": ack.figures.state_bytes,
        "checkpoint": { "sync": whole_ms(ack.figures.sync_us), "async": whole_ms(ack.figures.async_us) },
        "alignment": {
            "buffered": 0,
            "processed": ack.figures.processed_bytes,
            "persisted": 0,
            "duration": whole_ms(ack.figures.alignment_us),
        },
        "start_delay": whole_ms(ack.figures.start_delay_us),
        "unaligned_checkpoint": false,
        "aborted": false,
    })
}

fn summary(record: &CheckpointRecord, vertex: u32) -> Value {
    let of = |figure: fn(&SubtaskAck) -> u64| {
        let values = acks_of(record, Some(vertex)).map(|(_, ack)| figure(ack));
        distribution(values.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
    };
    let durations = acks_of(record, Some(vertex)).map(|(_, ack)| ack.at_ms - record.trigger_ms);
    json!({
        "checkpointed_size": of(|ack| ack.figures.state_bytes),
        "state_size": of(|ack| ack.figures.state_bytes),
        "end_to_end_duration": distribution(durations),
        "checkpoint_duration": {
            "sync": of(|ack| whole_ms(ack.figures.sync_us)),
            "async": of(|ack| whole_ms(ack.figures.async_us)),
        },
        "alignment": {
            "buffered": of(|_| 0),
            "processed": of(|ack| ack.figures.processed_bytes),
            "persisted": of(|_| 0),
            "duration": of(|ack| whole_ms(ack.figures.alignment_us)),
        },
        "start_delay": of(|ack| whole_ms(ack.figures.start_delay_us)),
    })
}
