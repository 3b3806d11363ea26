//! Metrics of the coordinator, of jobs, of vertices and of workers.
//!
//! Without `get` the answer is the list of names, with it the values, as text. Where several things
//! are asked about at once, values are aggregated numbers.

use std::collections::BTreeMap;

use axum::extract::Path;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    figures::aggregate,
    reply::{Reply, ok},
    request::{self, Pairs, Shared, Tenant},
};
use crate::job::{
    JobHandle, JobState, JobStatus, TaskStatus, checkpoint_stats::CheckpointRecord,
    execution::Execution,
};

/// Values of one thing, by name.
type Values = BTreeMap<String, String>;

fn names_or_values(values: &Values, pairs: &Pairs) -> Reply {
    let body: Value = match request::list(pairs, "get") {
        None => values.keys().map(|id| json!({ "id": id })).collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|id| {
                values
                    .get(id)
                    .map(|value| json!({ "id": id, "value": value }))
            })
            .collect(),
    };
    ok(&body)
}

fn names_or_aggregates(things: &[BTreeMap<String, f64>], pairs: &Pairs, with_skew: bool) -> Reply {
    let Some(wanted) = request::list(pairs, "get") else {
        let names: std::collections::BTreeSet<_> = things.iter().flat_map(BTreeMap::keys).collect();
        return ok(&names.into_iter().map(|id| json!({ "id": id })).collect());
    };
    let how = request::list(pairs, "agg").unwrap_or_default();
    let entries: Value = wanted
        .iter()
        .filter_map(|id| {
            let values: Vec<f64> = things
                .iter()
                .filter_map(|thing| thing.get(id).copied())
                .collect();
            (!values.is_empty()).then(|| aggregate(id, &values, &how, with_skew))
        })
        .collect();
    ok(&entries)
}

fn texts(values: BTreeMap<String, f64>) -> Values {
    values
        .into_iter()
        .map(|(name, value)| (name, text(value)))
        .collect()
}

fn text(value: f64) -> String {
    // Whole numbers without a point, whatever their size.
    format!("{value}")
}

pub(super) async fn nothing() -> Reply {
    ok(&json!([]))
}

pub(super) async fn jobmanager(cluster: Shared, tenant: Tenant, pairs: Pairs) -> Reply {
    let (total, free) = cluster.workers.slots();
    let running = cluster
        .jobs(&tenant.0)
        .iter()
        .filter(|job| !job.status().is_terminal())
        .count();
    let values = [
        ("taskSlotsTotal", total),
        ("taskSlotsAvailable", free),
        ("numRegisteredTaskManagers", cluster.workers.len()),
        ("numRunningJobs", running),
    ];
    let values = values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    names_or_values(&values, &pairs)
}

pub(super) async fn job(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let now_ms = cluster.clock.now_ms();
    let values = job.with(|state| job_values(state, now_ms));
    names_or_values(&values, &pairs)
}

fn job_values(state: &JobState, now_ms: i64) -> Values {
    let mut values = time_values(state, now_ms);
    values.extend(checkpoint_values(state));
    values.insert(
        "numRestarts".to_owned(),
        state.machine.restarts().to_string(),
    );
    values.insert("numRescales".to_owned(), "0".to_owned());
    values
}

/// How long the job has been in its state.
fn time_values(state: &JobState, now_ms: i64) -> Values {
    let machine = &state.machine;
    let starting = |task: &Execution| {
        matches!(
            task.status,
            TaskStatus::Deploying | TaskStatus::Initializing
        )
    };
    let deploying = machine.tasks().all().any(starting);
    let times = [
        ("uptime", JobStatus::Running),
        ("runningTime", JobStatus::Running),
        ("deployingTime", JobStatus::Running),
        ("restartingTime", JobStatus::Restarting),
        ("downtime", JobStatus::Restarting),
        ("failingTime", JobStatus::Failing),
        ("cancellingTime", JobStatus::Cancelling),
        ("createdTime", JobStatus::Created),
        ("initializingTime", JobStatus::Initializing),
    ];
    let value = |(name, status): (&str, JobStatus)| {
        let applies = machine.status() == status && (name != "deployingTime" || deploying);
        let ms = if applies {
            now_ms - machine.entered_ms(status)
        } else {
            0
        };
        (name.to_owned(), ms.to_string())
    };
    times.into_iter().map(value).collect()
}

fn checkpoint_values(state: &JobState) -> Values {
    let stats = &state.checkpoints.stats;
    let latest = stats.latest_completed.as_ref();
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let of =
        |missing: i64, f: fn(&CheckpointRecord) -> u64| latest.map_or(missing, |r| signed(f(r)));
    let numbers = [
        ("totalNumberOfCheckpoints", signed(stats.counts.total)),
        (
            "numberOfInProgressCheckpoints",
            signed(stats.counts.in_progress),
        ),
        (
            "numberOfCompletedCheckpoints",
            signed(stats.counts.completed),
        ),
        ("numberOfFailedCheckpoints", signed(stats.counts.failed)),
        (
            "lastCheckpointSize",
            of(-1, |record| record.state_bytes(None)),
        ),
        (
            "lastCheckpointFullSize",
            of(-1, |record| record.state_bytes(None)),
        ),
        (
            "lastCheckpointProcessedData",
            of(0, |record| record.processed_bytes(None)),
        ),
        ("lastCheckpointPersistedData", 0),
        ("lastCompletedCheckpointId", of(0, |record| record.id.0)),
        (
            "lastCheckpointDuration",
            latest.map_or(-1, CheckpointRecord::duration_ms),
        ),
        (
            "lastCheckpointCompletedTimestamp",
            latest.and_then(|record| record.end_ms).unwrap_or(-1),
        ),
        (
            "lastCheckpointRestoreTimestamp",
            stats
                .restored
                .as_ref()
                .map_or(-1, |restored| restored.at_ms),
        ),
    ];
    let path = latest
        .and_then(|record| record.path.clone())
        .unwrap_or_else(|| "n/a".to_owned());
    let mut values: Values = numbers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    values.insert("lastCheckpointExternalPath".to_owned(), path);
    values
}

pub(super) async fn jobs(cluster: Shared, tenant: Tenant, pairs: Pairs) -> Reply {
    let now_ms = cluster.clock.now_ms();
    let wanted = request::list(&pairs, "jobs");
    let picked = |job: &JobHandle| {
        let id = job.info().id.to_string();
        wanted.as_ref().is_none_or(|wanted| wanted.contains(&id))
    };
    let things: Vec<BTreeMap<String, f64>> = cluster
        .jobs(&tenant.0)
        .iter()
        .filter(|job| !job.status().is_terminal() && picked(job))
        .map(|job| {
            let values = job.with(|state| job_values(state, now_ms));
            values
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
                .collect()
        })
        .collect();
    names_or_aggregates(&things, &pairs, false)
}

/// The figures of a vertex's subtasks.
fn subtask_figures(
    cluster: &Shared,
    tenant: &Tenant,
    path: (&str, &str),
) -> Result<Vec<BTreeMap<String, f64>>, ApiError> {
    let job = request::job(cluster, tenant, path.0)?;
    let vertex = request::vertex(&job, path.1)?;
    Ok(job.with(|state| {
        let tasks = state.machine.tasks().vertex(vertex).unwrap_or_default();
        tasks.iter().map(|task| task.metrics.clone()).collect()
    }))
}

pub(super) async fn vertex(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
    pairs: Pairs,
) -> Reply {
    let subtasks = subtask_figures(&cluster, &tenant, (&id, &vertex))?;
    let values = subtasks
        .into_iter()
        .enumerate()
        .flat_map(|(index, values)| {
            values
                .into_iter()
                .map(move |(name, v)| (format!("{index}.{name}"), text(v)))
        })
        .collect();
    names_or_values(&values, &pairs)
}

pub(super) async fn watermarks(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let subtasks = subtask_figures(&cluster, &tenant, (&id, &vertex))?;
    let entries: Value = subtasks
        .iter()
        .enumerate()
        .filter_map(|(index, values)| {
            let watermark = values.get("currentInputWatermark")?;
            Some(json!({ "id": format!("{index}.currentInputWatermark"), "value": text(*watermark) }))
        })
        .collect();
    ok(&entries)
}

pub(super) async fn subtasks(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
    pairs: Pairs,
) -> Reply {
    let things = subtask_figures(&cluster, &tenant, (&id, &vertex))?;
    let picked = match request::list(&pairs, "subtasks") {
        None => things,
        Some(ranges) => {
            let within = |index: usize| ranges.iter().any(|range| in_range(range, index));
            things
                .into_iter()
                .enumerate()
                .filter(|(i, _)| within(*i))
                .map(|(_, thing)| thing)
                .collect()
        }
    };
    names_or_aggregates(&picked, &pairs, true)
}

/// Whether `3` or `1-4` contains an index.
fn in_range(range: &str, index: usize) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&index),
        _ => false,
    }
}

pub(super) async fn subtask(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex, index)): Path<(String, String, String)>,
    pairs: Pairs,
) -> Reply {
    let index: usize = request::number("subtaskindex", &index)?;
    let mut things = subtask_figures(&cluster, &tenant, (&id, &vertex))?;
    if index >= things.len() {
        return Err(ApiError::not_found(format!(
            "subtask {index} does not exist"
        )));
    }
    names_or_values(&texts(things.swap_remove(index)), &pairs)
}

pub(super) async fn taskmanagers(cluster: Shared, pairs: Pairs) -> Reply {
    let wanted = request::list(&pairs, "taskmanagers");
    let things: Vec<_> = cluster
        .workers
        .list()
        .into_iter()
        .filter(|w| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.iter().any(|id| id == w.info.id.as_str()))
        })
        .map(|worker| worker.metrics)
        .collect();
    names_or_aggregates(&things, &pairs, true)
}

pub(super) async fn taskmanager(cluster: Shared, Path(id): Path<String>, pairs: Pairs) -> Reply {
    let worker = super::taskmanagers::find(&cluster, &id)?;
    names_or_values(&texts(worker.metrics), &pairs)
}
