//! Starting operations that take a while, and asking how they go.

use std::sync::Arc;

use axum::{body::Bytes, extract::Path, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_checkpoint::CheckpointKind;
use tidemill_types::JobId;
use tokio::sync::oneshot;

use super::{
    error::ApiError,
    reply::{Reply, ok, with_status},
    request::{self, Shared, Tenant},
};
use crate::job::{JobEvent, JobHandle};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TriggerBody {
    trigger_id: Option<String>,
}

/// `POST /jobs/:id/checkpoints`
pub(super) async fn trigger_checkpoint(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
    body: Bytes,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let body: TriggerBody = request::body(&body)?;
    let trigger = trigger_id(body.trigger_id)?;
    let key = (job.info().id, trigger);
    let begun = cluster.operations.begin(key);
    let begun = begun.map_err(|e| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    if begun {
        let cluster = Arc::clone(&cluster);
        cluster.tasks.clone().spawn(async move {
            let outcome = checkpoint(&job, CheckpointKind::Checkpoint).await;
            cluster.operations.end(key, outcome);
        });
    }
    Ok(with_status(
        StatusCode::ACCEPTED,
        &json!({ "request-id": format!("{trigger:032x}") }),
    ))
}

/// The id that a client brings along, or a new one.
fn trigger_id(given: Option<String>) -> Result<u128, ApiError> {
    match given {
        None => Ok(uuid::Uuid::new_v4().as_u128()),
        Some(text) => {
            let parsed: JobId = text.parse().map_err(|_e| {
                ApiError::bad_request("triggerId must consist of 32 hexadecimal digits")
            })?;
            Ok(parsed.as_u128())
        }
    }
}

async fn checkpoint(job: &JobHandle, kind: CheckpointKind) -> Result<Value, String> {
    let (reply, answer) = oneshot::channel();
    job.send(JobEvent::Checkpoint { kind, reply }).await;
    match answer.await {
        Ok(Ok(checkpoint)) => Ok(json!({ "checkpointId": checkpoint.0 })),
        Ok(Err(reason)) => Err(format!("the checkpoint failed: {reason}")),
        Err(_) => Err(format!("job {} is over", job.info().id)),
    }
}

/// `GET /jobs/:id/checkpoints/:triggerid`
///
/// A failed operation is answered with an error: clients show its text, where they would have to
/// deserialise a Java object otherwise.
pub(super) async fn checkpoint_status(
    cluster: Shared,
    tenant: Tenant,
    Path((id, trigger)): Path<(String, String)>,
) -> Reply {
    let job = request::job(&cluster, &tenant, &id)?;
    let parsed: JobId = trigger
        .parse()
        .map_err(|_e| ApiError::path_parameter("triggerid", &trigger))?;
    match cluster.operations.get((job.info().id, parsed.as_u128())) {
        None => Err(ApiError::not_found(format!(
            "Operation not found: {parsed}"
        ))),
        Some(None) => ok(&json!({ "status": { "id": "IN_PROGRESS" }, "operation": null })),
        Some(Some(Ok(operation))) => {
            ok(&json!({ "status": { "id": "COMPLETED" }, "operation": operation }))
        }
        Some(Some(Err(reason))) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, reason)),
    }
}
