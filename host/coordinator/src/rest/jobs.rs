//! Jobs: lists, details, failures, results, cancelling.

use std::collections::BTreeMap;

use axum::{extract::Path, http::StatusCode};
use serde_json::{Value, json};
use tidemill_types::config::keys;

use super::{
    cluster,
    error::ApiError,
    graph,
    reply::{Reply, accepted, ok},
    request::{self, Pairs, Shared, Tenant},
};
use crate::job::{
    JobEvent, JobHandle, JobState, JobStatus, TaskStatus, execution::Execution, failure::Failure,
};

/// The id of the one slot sharing group that a job has.
const SLOT_SHARING_GROUP: &str = "00000000000000000000000000000000";
/// States of a job that clients know and that do not occur here.
const FOREIGN_JOB_STATES: [&str; 2] = ["RECONCILING", "SUSPENDED"];
/// Failures that are shown when a request names no number.
const EXCEPTIONS_DEFAULT: usize = 20;

pub(super) async fn list(cluster: Shared, tenant: Tenant) -> Reply {
    let jobs: Vec<Value> = cluster
        .jobs(&tenant.0)
        .iter()
        .map(|job| json!({ "id": job.info().id.to_string(), "status": job.status().as_str() }))
        .collect();
    ok(&json!({ "jobs": jobs }))
}

pub(super) async fn overview(cluster: Shared, tenant: Tenant) -> Reply {
    let now_ms = cluster.clock.now_ms();
    let jobs: Vec<Value> = cluster
        .jobs(&tenant.0)
        .iter()
        .map(|job| job.with(|state| summary(job, state, now_ms)))
        .collect();
    ok(&json!({ "jobs": jobs }))
}

fn summary(job: &JobHandle, state: &JobState, now_ms: i64) -> Value {
    let machine = &state.machine;
    let mut tasks = BTreeMap::from([("total".to_owned(), machine.tasks().all().count())]);
    for (name, count) in counts(machine.tasks().all()) {
        tasks.insert(name.to_ascii_lowercase(), count);
    }
    let (start, end, duration) = times(job, state, now_ms);
    let latest_task = machine
        .tasks()
        .all()
        .map(|task| task.entered[task.status.index()])
        .max();
    json!({
        "jid": job.info().id.to_string(),
        "name": job.info().name,
        "start-time": start,
        "end-time": end,
        "duration": duration,
        "state": machine.status().as_str(),
        "last-modification": latest_task.unwrap_or(0).max(machine.entered_ms(machine.status())),
        "tasks": tasks,
        "pending-operators": 0,
        "jobType": "STREAMING",
        "schedulerType": "Default",
    })
}

/// Start, end (-1 while it lasts) and duration of a job.
fn times(job: &JobHandle, state: &JobState, now_ms: i64) -> (i64, i64, i64) {
    let start = job.info().submitted_ms;
    let status = state.machine.status();
    let end = if status.is_terminal() {
        state.machine.entered_ms(status)
    } else {
        -1
    };
    (
        start,
        end,
        if end < 0 { now_ms - start } else { end - start },
    )
}

/// How many tasks are in each state; every state occurs.
pub(super) fn counts<'a>(
    tasks: impl Iterator<Item = &'a Execution>,
) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<_, _> = TaskStatus::ALL
        .iter()
        .map(|status| (status.as_str(), 0))
        .collect();
    counts.insert("RECONCILING", 0);
    for task in tasks {
        *counts.entry(task.status.as_str()).or_insert(0) += 1;
    }
    counts
}

pub(super) async fn detail(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let now_ms = cluster.clock.now_ms();
    let body = job.with(|state| detail_of(&job, state, now_ms));
    ok(&body)
}

fn detail_of(job: &JobHandle, state: &JobState, now_ms: i64) -> Value {
    let info = job.info();
    let machine = &state.machine;
    let (start, end, duration) = times(job, state, now_ms);
    let mut timestamps: BTreeMap<&str, i64> = JobStatus::ALL
        .iter()
        .map(|status| (status.as_str(), machine.entered_ms(*status)))
        .collect();
    timestamps.extend(FOREIGN_JOB_STATES.map(|name| (name, 0)));
    let vertices: Vec<Value> = (0u32..)
        .zip(&info.graph.vertices)
        .filter_map(|(position, _)| vertex_summary(job, state, position, now_ms))
        .collect();
    let mut status_counts: BTreeMap<&str, usize> = counts(std::iter::empty());
    for position in 0..info.graph.vertices.len() {
        let tasks = u32::try_from(position)
            .ok()
            .and_then(|p| machine.tasks().vertex(p))
            .unwrap_or_default();
        let status = TaskStatus::aggregate(tasks.iter().map(|task| task.status));
        *status_counts.entry(status.as_str()).or_insert(0) += 1;
    }
    let max_parallelism = info
        .config
        .raw(keys::MAX_PARALLELISM.name)
        .and_then(|v| v.parse::<i64>().ok());
    json!({
        "jid": info.id.to_string(),
        "name": info.name,
        "isStoppable": false,
        "state": machine.status().as_str(),
        "job-type": "STREAMING",
        "start-time": start,
        "end-time": end,
        "duration": duration,
        "maxParallelism": max_parallelism.unwrap_or(-1),
        "now": now_ms,
        "timestamps": timestamps,
        "vertices": vertices,
        "status-counts": status_counts,
        "plan": graph::plan(info.id, &info.name, &info.graph, &machine.tasks().parallelism),
        "pending-operators": 0,
        "schedulerType": "Default",
        "attempt": machine.attempt().0,
        "module": info.module_id,
    })
}

fn vertex_summary(job: &JobHandle, state: &JobState, position: u32, now_ms: i64) -> Option<Value> {
    let vertex = job.info().graph.vertices.get(position as usize)?;
    let graph = state.machine.tasks();
    let tasks = graph.vertex(position)?;
    let (start, end, duration) = vertex_times(tasks, now_ms);
    let status = TaskStatus::aggregate(tasks.iter().map(|task| task.status));
    Some(json!({
        "id": vertex.id().to_string(),
        "slotSharingGroupId": SLOT_SHARING_GROUP,
        "name": vertex.name,
        "maxParallelism": graph.max_parallelism[position as usize],
        "parallelism": graph.parallelism[position as usize],
        "status": status.as_str(),
        "start-time": start,
        "end-time": end,
        "duration": duration,
        "tasks": counts(tasks.iter()),
        "metrics": io_metrics(tasks.iter()),
    }))
}

/// Start of the first task, end of the last (-1 while one lasts), and the time between.
pub(super) fn vertex_times(tasks: &[Execution], now_ms: i64) -> (i64, i64, i64) {
    let start = tasks
        .iter()
        .map(Execution::start_ms)
        .filter(|at| *at >= 0)
        .min()
        .unwrap_or(-1);
    let over = tasks.iter().all(|task| task.status.is_terminal());
    let end = if over {
        tasks.iter().map(Execution::end_ms).max().unwrap_or(-1)
    } else {
        -1
    };
    let duration = match (start, end) {
        (-1, _) => -1,
        (start, -1) => now_ms - start,
        (start, end) => end - start,
    };
    (start, end, duration)
}

/// What went in and out of these tasks, and how they spent their time.
#[expect(clippy::cast_possible_truncation, reason = "counters below 2^53")]
pub(super) fn io_metrics<'a>(tasks: impl Iterator<Item = &'a Execution>) -> Value {
    let tasks: Vec<&Execution> = tasks.collect();
    // The sum of nothing is minus zero, which looks odd.
    let sum = |name: &str| {
        tasks
            .iter()
            .filter_map(|task| task.metrics.get(name))
            .sum::<f64>()
            .max(0.0)
    };
    let complete = tasks.iter().all(|task| !task.metrics.is_empty());
    json!({
        "read-bytes": sum("numBytesIn") as i64,
        "read-bytes-complete": complete,
        "write-bytes": sum("numBytesOut") as i64,
        "write-bytes-complete": complete,
        "read-records": sum("numRecordsIn") as i64,
        "read-records-complete": complete,
        "write-records": sum("numRecordsOut") as i64,
        "write-records-complete": complete,
        "accumulated-backpressured-time": sum("accumulateBackPressuredTimeMs") as i64,
        "accumulated-idle-time": sum("accumulateIdleTimeMs") as i64,
        "accumulated-busy-time": sum("accumulateBusyTimeMs"),
    })
}

pub(super) async fn plan(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let info = job.info();
    let parallelism = job.with(|state| state.machine.tasks().parallelism.clone());
    ok(&json!({ "plan": graph::plan(info.id, &info.name, &info.graph, &parallelism) }))
}

pub(super) async fn status(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    ok(&json!({ "status": job.status().as_str() }))
}

pub(super) async fn config(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let info = job.info();
    let strategy = job.with(|state| state.machine.policy().strategy().describe());
    ok(&json!({
        "jid": info.id.to_string(),
        "name": info.name,
        "execution-config": {
            "restart-strategy": strategy,
            "job-parallelism": info.config.get(&keys::PARALLELISM),
            "object-reuse-mode": false,
            "user-config": info.plan_config,
        },
    }))
}

pub(super) async fn effective_config(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    ok(&cluster::entries(&job.info().config))
}

pub(super) async fn exceptions(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let max = match request::param(&pairs, "maxExceptions") {
        Some(text) => text.parse().map_err(|_e| {
            ApiError::bad_request(
                "Bad request, could not parse parameters: maxExceptions must be a number",
            )
        })?,
        None => EXCEPTIONS_DEFAULT,
    };
    let body = job.with(|state| {
        let failures = state.machine.failures();
        let entries: Vec<Value> = failures.iter().take(max).map(root_failure).collect();
        let truncated = failures.truncated() || failures.iter().count() > max;
        let root = failures.iter().next();
        json!({
            "root-exception": root.map(Failure::summary),
            "timestamp": root.map(|failure| failure.at_ms),
            "all-exceptions": failures.iter().take(max).map(legacy_failure).collect::<Vec<_>>(),
            "truncated": truncated,
            "exceptionHistory": { "entries": entries, "truncated": truncated },
        })
    });
    ok(&body)
}

fn root_failure(failure: &Failure) -> Value {
    let mut entry = failure_entry(failure);
    entry["concurrentExceptions"] = failure.concurrent.iter().map(failure_entry).collect();
    entry
}

fn failure_entry(failure: &Failure) -> Value {
    let mut entry = json!({
        "exceptionName": failure.kind.as_str(),
        "stacktrace": failure.cause,
        "timestamp": failure.at_ms,
        "failureLabels": {},
    });
    if let Some(task) = &failure.task {
        entry["taskName"] = json!(task);
    }
    if let Some((worker, endpoint)) = &failure.worker {
        entry["endpoint"] = json!(endpoint);
        entry["location"] = json!(endpoint);
        entry["taskManagerId"] = json!(worker.to_string());
    }
    entry
}

fn legacy_failure(failure: &Failure) -> Value {
    let location = failure
        .worker
        .as_ref()
        .map(|(_, endpoint)| endpoint.clone());
    json!({
        "exception": failure.cause,
        "task": failure.task,
        "location": location,
        "endpoint": location,
        "timestamp": failure.at_ms,
        "taskManagerId": failure.worker.as_ref().map(|(worker, _)| worker.to_string()),
    })
}

pub(super) async fn execution_result(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let now_ms = cluster.clock.now_ms();
    let body = job.with(|state| {
        let status = state.machine.status();
        let name = match status {
            JobStatus::Finished => "SUCCEEDED",
            JobStatus::Failed => "FAILED",
            JobStatus::Canceled => "CANCELED",
            _ => return json!({ "status": { "id": "IN_PROGRESS" } }),
        };
        let (_, _, duration) = times(&job, state, now_ms);
        let mut result = json!({
            "id": job.info().id.to_string(),
            "application-status": name,
            "accumulator-results": {},
            "net-runtime": duration,
        });
        if let Some(cause) = state.machine.cause() {
            result["failure-cause"] = json!({
                "class": cause.kind.as_str(),
                "stack-trace": cause.summary(),
                "serialized-throwable": "",
            });
        }
        json!({ "status": { "id": "COMPLETED" }, "job-execution-result": result })
    });
    ok(&body)
}

pub(super) async fn accumulators(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    request::job(&cluster, &tenant, &id)?;
    ok(&json!({
        "job-accumulators": [],
        "user-task-accumulators": [],
        "serialized-user-task-accumulators": {},
    }))
}

pub(super) async fn resource_requirements(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let parallelism = job.with(|state| state.machine.tasks().parallelism.clone());
    let bounds: BTreeMap<String, Value> = job
        .info()
        .graph
        .vertices
        .iter()
        .zip(parallelism)
        .map(|(vertex, p)| {
            (
                vertex.id().to_string(),
                json!({ "parallelism": { "lowerBound": p, "upperBound": p } }),
            )
        })
        .collect();
    ok(&json!(bounds))
}

pub(super) async fn client_heartbeat(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Reply {
    request::job(&cluster, &tenant, &id)?;
    accepted()
}

/// `PATCH /jobs/:id?mode=cancel`
pub(super) async fn terminate(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    match request::param(&pairs, "mode")
        .unwrap_or("cancel")
        .to_ascii_lowercase()
        .as_str()
    {
        "cancel" => cancel_job(&job).await,
        "stop" => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "the termination mode \"stop\" is not available; cancel the job (mode=cancel)",
        )),
        other => {
            let other: String = other.chars().take(64).collect();
            Err(ApiError::bad_request(format!(
                "\"{other}\" is not a termination mode; use mode=cancel"
            )))
        }
    }
}

/// `GET /jobs/:id/yarn-cancel`
pub(super) async fn cancel(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    cancel_job(&request::job(&cluster, &tenant, &id)?).await
}

async fn cancel_job(job: &JobHandle) -> Reply {
    let status = job.status();
    if status.is_terminal() && status != JobStatus::Canceled {
        let text = format!(
            "Job {} has ended already: it is {}",
            job.info().id,
            status.as_str()
        );
        return Err(ApiError::new(StatusCode::CONFLICT, text));
    }
    job.send(JobEvent::Cancel).await;
    accepted()
}
