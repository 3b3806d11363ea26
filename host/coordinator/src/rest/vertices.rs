//! Vertices of a job and their subtasks.

use std::collections::BTreeMap;

use axum::extract::Path;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    figures,
    jobs::{counts, io_metrics, vertex_times},
    reply::{Reply, ok},
    request::{self, Shared, Tenant},
};
use crate::job::{JobHandle, JobState, TaskStatus, execution::Execution};

/// Figures of a subtask that are summed up over a vertex.
const IO_NAMES: [(&str, &str); 7] = [
    ("read-bytes", "numBytesIn"),
    ("write-bytes", "numBytesOut"),
    ("read-records", "numRecordsIn"),
    ("write-records", "numRecordsOut"),
    (
        "accumulated-backpressured-time",
        "accumulateBackPressuredTimeMs",
    ),
    ("accumulated-idle-time", "accumulateIdleTimeMs"),
    ("accumulated-busy-time", "accumulateBusyTimeMs"),
];

/// Reads a vertex of a job: its handle, its position, and what `f` makes of it.
fn read<T>(
    cluster: &Shared,
    tenant: &Tenant,
    path: (&str, &str),
    f: impl FnOnce(&JobHandle, &JobState, u32) -> T,
) -> Result<T, ApiError> {
    let job = request::job(cluster, tenant, path.0)?;
    let vertex = request::vertex(&job, path.1)?;
    Ok(job.with(|state| f(&job, state, vertex)))
}

fn id_and_name(job: &JobHandle, vertex: u32) -> (String, String) {
    let vertex = &job.info().graph.vertices[vertex as usize];
    (vertex.id().to_string(), vertex.name.clone())
}

pub(super) async fn detail(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let now_ms = cluster.clock.now_ms();
    let body = read(&cluster, &tenant, (&id, &vertex), |job, state, vertex| {
        let graph = state.machine.tasks();
        let tasks = graph.vertex(vertex).unwrap_or_default();
        let attempt = state.machine.attempt().0;
        let subtasks: Vec<Value> = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| subtask_json(index, task, attempt, now_ms))
            .collect();
        let (id, name) = id_and_name(job, vertex);
        json!({
            "id": id,
            "name": name,
            "parallelism": graph.parallelism[vertex as usize],
            "maxParallelism": graph.max_parallelism[vertex as usize],
            "now": now_ms,
            "subtasks": subtasks,
            "aggregated": aggregated(tasks.iter(), now_ms),
        })
    })?;
    ok(&body)
}

fn subtask_json(index: usize, task: &Execution, attempt: u32, now_ms: i64) -> Value {
    let place = task.place.as_ref();
    let endpoint = place.map_or("(unassigned)", |place| place.data_address.as_str());
    json!({
        "subtask": index,
        "status": task.status.as_str(),
        "attempt": attempt,
        "endpoint": endpoint,
        "host": endpoint,
        "start-time": task.start_ms(),
        "start_time": task.start_ms(),
        "end-time": task.end_ms(),
        "duration": task.duration_ms(now_ms),
        "metrics": io_metrics(std::iter::once(task)),
        "taskmanager-id": place.map_or("(unassigned)", |place| place.worker.as_str()),
        "status-duration": task.status_durations(now_ms),
        "other-concurrent-attempts": [],
    })
}

#[expect(clippy::cast_possible_truncation, reason = "counters below 2^53")]
fn aggregated<'a>(tasks: impl Iterator<Item = &'a Execution> + Clone, now_ms: i64) -> Value {
    let metrics: BTreeMap<&str, Value> = IO_NAMES
        .iter()
        .map(|(shown, name)| {
            let values = tasks
                .clone()
                .map(|task| task.metrics.get(*name).copied().unwrap_or(0.0) as i64);
            (*shown, figures::quartiles(values))
        })
        .collect();
    let mut durations: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for task in tasks {
        for (status, duration) in task.status_durations(now_ms) {
            durations.entry(status).or_default().push(duration);
        }
    }
    let durations: BTreeMap<&str, Value> = durations
        .into_iter()
        .map(|(status, values)| (status, figures::quartiles(values)))
        .collect();
    json!({ "metrics": metrics, "status-duration": durations })
}

pub(super) async fn subtask(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex, index)): Path<(String, String, String)>,
) -> Reply {
    one_subtask(&cluster, &tenant, (&id, &vertex), &index, None)
}

/// Only the current attempt is remembered.
pub(super) async fn attempt(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex, index, attempt)): Path<(String, String, String, String)>,
) -> Reply {
    let attempt: u32 = request::number("attempt", &attempt)?;
    one_subtask(&cluster, &tenant, (&id, &vertex), &index, Some(attempt))
}

fn one_subtask(
    cluster: &Shared,
    tenant: &Tenant,
    path: (&str, &str),
    index: &str,
    attempt: Option<u32>,
) -> Reply {
    let index: u32 = request::number("subtaskindex", index)?;
    let now_ms = cluster.clock.now_ms();
    let body = read(cluster, tenant, path, |_, state, vertex| {
        let current = state.machine.attempt().0;
        let task = state.machine.tasks().task(vertex, index);
        let task = task.filter(|_| attempt.is_none_or(|attempt| attempt == current))?;
        Some(subtask_json(index as usize, task, current, now_ms))
    })?;
    ok(&body.ok_or_else(|| {
        ApiError::not_found(format!("subtask {index} or its attempt does not exist"))
    })?)
}

pub(super) async fn taskmanagers(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let now_ms = cluster.clock.now_ms();
    let body = read(&cluster, &tenant, (&id, &vertex), |job, state, vertex| {
        let mut by_worker: BTreeMap<(String, String), Vec<Execution>> = BTreeMap::new();
        for task in state.machine.tasks().vertex(vertex).unwrap_or_default() {
            let place = task.place.as_ref();
            let key = place.map_or_else(
                || ("(unassigned)".to_owned(), "(unassigned)".to_owned()),
                |place| (place.worker.to_string(), place.data_address.clone()),
            );
            by_worker.entry(key).or_default().push(task.clone());
        }
        let workers: Vec<Value> = by_worker
            .iter()
            .map(|((worker, endpoint), tasks)| on_worker(worker, endpoint, tasks, now_ms))
            .collect();
        let (id, name) = id_and_name(job, vertex);
        json!({ "id": id, "name": name, "now": now_ms, "taskmanagers": workers })
    })?;
    ok(&body)
}

fn on_worker(worker: &str, endpoint: &str, tasks: &[Execution], now_ms: i64) -> Value {
    let (start, end, duration) = vertex_times(tasks, now_ms);
    json!({
        "endpoint": endpoint,
        "host": endpoint,
        "taskmanager-id": worker,
        "status": TaskStatus::aggregate(tasks.iter().map(|task| task.status)).as_str(),
        "start-time": start,
        "end-time": end,
        "duration": duration,
        "metrics": io_metrics(tasks.iter()),
        "status-counts": counts(tasks.iter()),
        "aggregated": aggregated(tasks.iter(), now_ms),
    })
}

pub(super) async fn subtask_times(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let now_ms = cluster.clock.now_ms();
    let body = read(&cluster, &tenant, (&id, &vertex), |job, state, vertex| {
        let tasks = state.machine.tasks().vertex(vertex).unwrap_or_default();
        let subtasks: Vec<Value> = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| {
                let mut timestamps: BTreeMap<&str, i64> = TaskStatus::ALL
                    .iter()
                    .map(|s| (s.as_str(), task.entered[s.index()]))
                    .collect();
                timestamps.insert("RECONCILING", 0);
                let endpoint = task
                    .place
                    .as_ref()
                    .map_or("(unassigned)", |p| p.data_address.as_str());
                json!({
                    "subtask": index,
                    "endpoint": endpoint,
                    "host": endpoint,
                    "duration": task.duration_ms(now_ms),
                    "timestamps": timestamps,
                })
            })
            .collect();
        let (id, name) = id_and_name(job, vertex);
        json!({ "id": id, "name": name, "now": now_ms, "subtasks": subtasks })
    })?;
    ok(&body)
}

pub(super) async fn backpressure(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let now_ms = cluster.clock.now_ms();
    let body = read(&cluster, &tenant, (&id, &vertex), |_, state, vertex| {
        let tasks = state.machine.tasks().vertex(vertex).unwrap_or_default();
        let ratio = |task: &Execution, name: &str| {
            let per_second = task.metrics.get(name).copied().unwrap_or(0.0);
            ((per_second / 1000.0).clamp(0.0, 1.0) * 1000.0).round() / 1000.0
        };
        let held = |task: &Execution| ratio(task, "backPressuredTimeMsPerSecond");
        let subtasks: Vec<Value> = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| {
                json!({
                    "subtask": index,
                    "attempt-number": state.machine.attempt().0,
                    "backpressureLevel": level(held(task)),
                    "backpressure-level": level(held(task)),
                    "ratio": held(task),
                    "idleRatio": ratio(task, "idleTimeMsPerSecond"),
                    "busyRatio": ratio(task, "busyTimeMsPerSecond"),
                })
            })
            .collect();
        let worst = tasks.iter().map(held).fold(0.0, f64::max);
        json!({
            "status": "ok",
            "backpressureLevel": level(worst),
            "backpressure-level": level(worst),
            "end-timestamp": now_ms,
            "subtasks": subtasks,
        })
    })?;
    ok(&body)
}

/// The share of time in which a task cannot hand on its results, in words.
fn level(ratio: f64) -> &'static str {
    match ratio {
        r if r <= 0.1 => "ok",
        r if r <= 0.5 => "low",
        _ => "high",
    }
}

pub(super) async fn accumulators(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let body = read(
        &cluster,
        &tenant,
        (&id, &vertex),
        |job, _, vertex| json!({ "id": id_and_name(job, vertex).0, "user-accumulators": [] }),
    )?;
    ok(&body)
}

pub(super) async fn subtask_accumulators(
    cluster: Shared,
    tenant: Tenant,
    Path((id, vertex)): Path<(String, String)>,
) -> Reply {
    let body = read(&cluster, &tenant, (&id, &vertex), |job, state, vertex| {
        let parallelism = state.machine.tasks().parallelism[vertex as usize];
        json!({ "id": id_and_name(job, vertex).0, "parallelism": parallelism, "subtasks": [] })
    })?;
    ok(&body)
}
