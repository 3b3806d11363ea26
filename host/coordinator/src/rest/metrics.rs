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
use crate::job::{JobHandle, JobState, JobStatus, TaskStatus};

/// Values of one thing, by name.
type Values = BTreeMap<String, String>;

fn names_or_values(values: &Values, pairs: &Pairs) -> Reply {
    let body: Value = match request::list(pairs, "get") {
        None => values.keys().map(|id| json!({ "id": id })).collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|id| values.get(id).map(|value| json!({ "id": id, "value": value })))
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
            let values: Vec<f64> = things.iter().filter_map(|thing| thing.get(id).copied()).collect();
            (!values.is_empty()).then(|| aggregate(id, &values, &how, with_skew))
        })
        .collect();
    ok(&entries)
}

fn texts(values: BTreeMap<String, f64>) -> Values {
    values.into_iter().map(|(name, value)| (name, text(value))).collect()
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
    let running = cluster.jobs(&tenant.0).iter().filter(|job| !job.status().is_terminal()).count();
    let values = [
        ("taskSlotsTotal", total),
        ("taskSlotsAvailable", free),
        ("numRegisteredTaskManagers", cluster.workers.len()),
        ("numRunningJobs", running),
    ];
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
    names_or_values(&values, &pairs)
}

pub(super) async fn job(cluster: Shared, tenant: Tenant, Path(id): Path<String>, pairs: Pairs) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let now_ms = cluster.clock.now_ms();
    let values = job.with(|state| job_values(state, now_ms));
    names_or_values(&values, &pairs)
}

fn job_values(state: &JobState, now_ms: i64) -> Values {
    let stats = &state.checkpoints.stats;
    let machine = &state.machine;
    let latest = stats.latest_completed.as_ref();
    let bytes = latest.map_or(-1, |record| i64::try_from(record.state_bytes(None)).unwrap_or(i64::MAX));
    let processed = latest.map_or(0, |record| record.processed_bytes(None));
    let in_state = |status: JobStatus| {
        if machine.status() == status { now_ms - machine.entered_ms(status) } else { 0 }
    };
    let deploying = machine.status() == JobStatus::Running
        && machine.tasks().all().any(|task| matches!(task.status, TaskStatus::Deploying | TaskStatus::Initializing));
    let deploying_ms = if deploying { in_state(JobStatus::Running) } else { 0 };
    let count = |value: u64| value.to_string();
    [
        ("uptime", in_state(JobStatus::Running).to_string()),
        ("runningTime", in_state(JobStatus::Running).to_string()),
        ("restartingTime", in_state(JobStatus::Restarting).to_string()),
        ("downtime", in_state(JobStatus::Restarting).to_string()),
        ("failingTime", in_state(JobStatus::Failing).to_string()),
        ("cancellingTime", in_state(JobStatus::Cancelling).to_string()),
        ("createdTime", in_state(JobStatus::Created).to_string()),
        ("initializingTime", in_state(JobStatus::Initializing).to_string()),
        ("deployingTime", deploying_ms.to_string()),
        ("numRestarts", count(machine.restarts())),
        ("numRescales", count(0)),
        ("totalNumberOfCheckpoints", count(stats.counts.total)),
        ("numberOfInProgressCheckpoints", count(stats.counts.in_progress)),
        ("numberOfCompletedCheckpoints", count(stats.counts.completed)),
        ("numberOfFailedCheckpoints", count(stats.counts.failed)),
        ("lastCheckpointSize", bytes.to_string()),
        ("lastCheckpointFullSize", bytes.to_string()),
        ("lastCheckpointDuration", latest.map_or(-1, |record| record.duration_ms()).to_string()),
        ("lastCheckpointProcessedData", count(processed)),
        ("lastCheckpointPersistedData", count(0)),
        ("lastCompletedCheckpointId", latest.map_or(0, |record| record.id.0).to_string()),
        ("lastCheckpointCompletedTimestamp", latest.and_then(|r| r.end_ms).unwrap_or(-1).to_string()),
        (
            "lastCheckpointExternalPath",
            latest.and_then(|record| record.path.clone()).unwrap_or_else(|| "n/a".into()),
        ),
        (
            "lastCheckpointRestoreTimestamp",
            stats.restored.as_ref().map_or(-1, |restored| restored.at_ms).to_string(),
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
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
            values.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
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
        .flat_map(|(index, values)| values.into_iter().map(move |(name, v)| (format!("{index}.{name}"), text(v))))
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
            things.into_iter().enumerate().filter(|(i, _)| within(*i)).map(|(_, thing)| thing).collect()
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
        return Err(ApiError::not_found(format!("subtask {index} does not exist")));
    }
    names_or_values(&texts(things.swap_remove(index)), &pairs)
}

pub(super) async fn taskmanagers(cluster: Shared, pairs: Pairs) -> Reply {
    let wanted = request::list(&pairs, "taskmanagers");
    let things: Vec<_> = cluster
        .workers
        .list()
        .into_iter()
        .filter(|w| wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|id| id == w.info.id.as_str())))
        .map(|worker| worker.metrics)
        .collect();
    names_or_aggregates(&things, &pairs, true)
}

pub(super) async fn taskmanager(cluster: Shared, Path(id): Path<String>, pairs: Pairs) -> Reply {
    let worker = super::taskmanagers::find(&cluster, &id)?;
    names_or_values(&texts(worker.metrics), &pairs)
}
