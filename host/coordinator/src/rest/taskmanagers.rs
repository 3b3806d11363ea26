//! Workers.

use axum::extract::Path;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    reply::{Reply, ok},
    request::Shared,
};
use crate::{
    cluster::Cluster,
    workers::{WorkerView, slots_by_job},
};

const MEBIBYTE: u64 = 1 << 20;

pub(super) async fn list(cluster: Shared) -> Reply {
    let workers: Vec<Value> = cluster.workers.list().iter().map(summary).collect();
    ok(&json!({ "taskmanagers": workers }))
}

/// A worker by its id.
pub(super) fn find(cluster: &Cluster, id: &str) -> Result<WorkerView, ApiError> {
    let shown: String = id.chars().take(255).collect();
    cluster
        .workers
        .get(id)
        .ok_or_else(|| ApiError::not_found(format!("TaskManager {shown} not found")))
}

pub(super) async fn detail(cluster: Shared, Path(id): Path<String>) -> Reply {
    let worker = find(&cluster, &id)?;
    let mut body = summary(&worker);
    let slots = slots_by_job(&worker.slots);
    body["allocatedSlots"] = slots
        .iter()
        .flat_map(|(job, count)| std::iter::repeat_n(job, *count))
        .map(|job| json!({ "jobId": job.to_string(), "resource": resource(&worker, 1), "assignedTasks": 1 }))
        .collect();
    body["metrics"] = process_metrics(&worker);
    ok(&body)
}

pub(super) async fn logs(cluster: Shared, Path(id): Path<String>) -> Reply {
    find(&cluster, &id)?;
    ok(&json!({ "logs": [] }))
}

pub(super) async fn thread_dump(cluster: Shared, Path(id): Path<String>) -> Reply {
    find(&cluster, &id)?;
    ok(&json!({ "threadInfos": [] }))
}

fn summary(worker: &WorkerView) -> Value {
    let info = &worker.info;
    let free = worker.slots.iter().filter(|slot| slot.is_none()).count();
    let port = info
        .data_address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse::<u16>().ok());
    json!({
        "id": info.id.to_string(),
        "path": format!("grpc://{}/{}", info.data_address, info.id),
        "dataPort": port.unwrap_or(0),
        "jmxPort": -1,
        "timeSinceLastHeartbeat": worker.last_heartbeat_ms,
        "slotsNumber": info.slots,
        "freeSlots": free,
        "assignedTasks": worker.slots.len() - free,
        "blocked": false,
        "totalResource": resource(worker, worker.slots.len()),
        "freeResource": resource(worker, free),
        "hardware": {
            "cpuCores": info.cpu_cores,
            "physicalMemory": info.memory_bytes,
            "freeMemory": info.memory_bytes,
            "managedMemory": 0,
        },
        "memoryConfiguration": {
            "frameworkHeap": 0,
            "taskHeap": info.memory_bytes,
            "frameworkOffHeap": 0,
            "taskOffHeap": 0,
            "networkMemory": 0,
            "managedMemory": 0,
            "jvmMetaspace": 0,
            "jvmOverhead": 0,
            "totalFlinkMemory": info.memory_bytes,
            "totalProcessMemory": info.memory_bytes,
        },
        "pid": info.pid,
    })
}

/// The share of a worker's resources that goes with some of its slots.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn resource(worker: &WorkerView, slots: usize) -> Value {
    let share = slots as f64 / worker.slots.len().max(1) as f64;
    let memory =
        worker.info.memory_bytes / MEBIBYTE * slots as u64 / worker.slots.len().max(1) as u64;
    json!({
        "cpuCores": f64::from(worker.info.cpu_cores) * share,
        "taskHeapMemory": memory,
        "taskOffHeapMemory": 0,
        "managedMemory": 0,
        "networkMemory": 0,
        "extendedResources": {},
    })
}

#[expect(clippy::cast_possible_truncation, reason = "byte counts below 2^53")]
fn process_metrics(worker: &WorkerView) -> Value {
    let figure = |name: &str| worker.metrics.get(name).copied().unwrap_or(0.0) as i64;
    let used = figure("Status.Process.Memory.Resident");
    json!({
        "heapUsed": used,
        "heapCommitted": used,
        "heapMax": worker.info.memory_bytes,
        "nonHeapUsed": 0,
        "nonHeapCommitted": 0,
        "nonHeapMax": -1,
        "directCount": 0,
        "directUsed": 0,
        "directMax": 0,
        "mappedCount": 0,
        "mappedUsed": 0,
        "mappedMax": 0,
        "nettyShuffleMemorySegmentsAvailable": 0,
        "nettyShuffleMemorySegmentsUsed": 0,
        "nettyShuffleMemorySegmentsTotal": 0,
        "nettyShuffleMemoryAvailable": 0,
        "nettyShuffleMemoryUsed": 0,
        "nettyShuffleMemoryTotal": 0,
        "garbageCollectors": [],
    })
}
