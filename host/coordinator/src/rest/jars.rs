//! Modules: upload, list, delete, plan, run.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Bytes,
    extract::{
        Multipart, Path,
        multipart::{MultipartError, MultipartRejection},
    },
    http::StatusCode,
};
use serde_json::{Value, json};
use tidemill_types::config::keys;

use super::{
    error::ApiError,
    graph,
    reply::{Reply, ok},
    request::{self, Pairs, RunBody, Shared, Tenant},
};
use crate::{cluster::Cluster, job::submit, modules::Module};

/// How long a client may go on sending an upload that is refused already.
const REFUSED_UPLOAD_TIMEOUT: Duration = Duration::from_secs(10);

#[expect(clippy::unused_async, reason = "handlers are async")]
pub(super) async fn list(cluster: Shared, tenant: Tenant, address: SocketAddr) -> Reply {
    let files: Vec<Value> = cluster.modules.list(&tenant.0).iter().map(file).collect();
    ok(&json!({ "address": format!("http://{address}"), "files": files }))
}

fn file(module: &Module) -> Value {
    json!({
        "id": module.id.to_string(),
        "name": module.name,
        "uploaded": module.uploaded_ms,
        "entry": [{ "name": module.name, "description": null }],
        "sha256": module.hash,
    })
}

/// Receives one file, whatever the name of its part.
pub(super) async fn upload(
    cluster: Shared,
    tenant: Tenant,
    form: Result<Multipart, MultipartRejection>,
) -> Reply {
    check_enabled(&cluster)?;
    let mut form = form.map_err(|e| {
        ApiError::bad_request(format!(
            "an upload must be multipart/form-data with one file: {}",
            e.body_text()
        ))
    })?;
    match receive(&cluster, &tenant, &mut form).await {
        Ok(module) => {
            let path = module.path.display().to_string();
            ok(&json!({ "filename": path, "status": "success" }))
        }
        Err(refusal) => {
            read_to_end(&mut form).await;
            Err(refusal)
        }
    }
}

/// Keeps the one file of a form.
async fn receive(
    cluster: &Cluster,
    tenant: &Tenant,
    form: &mut Multipart,
) -> Result<Module, ApiError> {
    let mut stored: Option<Module> = None;
    while let Some(field) = form.next_field().await.map_err(|e| broken(&e))? {
        let Some(name) = field.file_name().map(str::to_owned) else {
            if field.name() == Some("request") {
                continue;
            }
            remove(cluster, tenant, stored).await;
            return Err(ApiError::bad_request(
                "exactly one file is expected in an upload, and nothing else",
            ));
        };
        if stored.is_some() {
            remove(cluster, tenant, stored).await;
            return Err(ApiError::bad_request(
                "exactly one file is expected in an upload, found several",
            ));
        }
        let module = cluster
            .modules
            .upload(&tenant.0, &name, field, &cluster.planner)
            .await?;
        tracing::info!(module = %module.id, hash = module.hash, "module uploaded");
        stored = Some(module);
    }
    stored.ok_or_else(|| {
        ApiError::bad_request("exactly one file is expected in an upload, found none")
    })
}

fn broken(error: &MultipartError) -> ApiError {
    ApiError::bad_request(format!(
        "the upload cannot be read as multipart/form-data: {}",
        error.body_text()
    ))
}

/// Reads what a refused client is still sending: closing the connection on it would cost it the
/// answer.
async fn read_to_end(form: &mut Multipart) {
    let rest = async { while let Ok(Some(_)) = form.next_field().await {} };
    if tokio::time::timeout(REFUSED_UPLOAD_TIMEOUT, rest)
        .await
        .is_err()
    {
        tracing::warn!("a refused upload is cut off");
    }
}

async fn remove(cluster: &Cluster, tenant: &Tenant, module: Option<Module>) {
    if let Some(module) = module
        && let Err(error) = cluster.modules.delete(&tenant.0, module.id.as_str()).await
    {
        tracing::warn!(module = %module.id, %error, "a refused upload is left behind");
    }
}

pub(super) async fn delete(cluster: Shared, tenant: Tenant, Path(id): Path<String>) -> Reply {
    check_enabled(&cluster)?;
    cluster.modules.delete(&tenant.0, &id).await?;
    ok(&json!({}))
}

pub(super) async fn plan(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
    pairs: Pairs,
    body: Bytes,
) -> Reply {
    let module = cluster.modules.get(&tenant.0, &id)?;
    let submission = request::submission(&pairs, request::body::<RunBody>(&body)?)?;
    let planned = submit::plan(&cluster, &module.path, &submission, false).await?;
    let plan = graph::plan(
        planned.id,
        &planned.name,
        &planned.graph,
        &planned.parallelism,
    );
    ok(&json!({ "plan": plan }))
}

pub(super) async fn run(
    cluster: Shared,
    tenant: Tenant,
    Path(id): Path<String>,
    pairs: Pairs,
    body: Bytes,
) -> Reply {
    check_enabled(&cluster)?;
    let module = cluster.modules.get(&tenant.0, &id)?;
    let submission = request::submission(&pairs, request::body::<RunBody>(&body)?)?;
    let prepared = submit::prepare(&cluster, &tenant.0, &module, &submission).await?;
    let job = cluster.start(prepared)?;
    ok(&json!({ "jobid": job.to_string() }))
}

fn check_enabled(cluster: &Cluster) -> Result<(), ApiError> {
    if cluster.config.get(&keys::WEB_SUBMIT_ENABLE) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "uploading and running modules over REST is switched off (web.submit.enable)",
    ))
}
