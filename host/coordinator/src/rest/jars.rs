//! Modules: upload, list, delete, plan, run.

use std::net::SocketAddr;

use axum::{
    body::Bytes,
    extract::{Multipart, Path, multipart::MultipartRejection},
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
    let broken = |e: axum::extract::multipart::MultipartError| {
        ApiError::bad_request(format!(
            "the upload cannot be read as multipart/form-data: {}",
            e.body_text()
        ))
    };
    let mut stored: Option<Module> = None;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let Some(name) = field.file_name().map(str::to_owned) else {
            if field.name() == Some("request") {
                continue;
            }
            remove(&cluster, &tenant, stored).await;
            return Err(ApiError::bad_request(
                "exactly one file is expected in an upload, and nothing else",
            ));
        };
        if stored.is_some() {
            remove(&cluster, &tenant, stored).await;
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
    let Some(module) = stored else {
        return Err(ApiError::bad_request(
            "exactly one file is expected in an upload, found none",
        ));
    };
    ok(&json!({ "filename": module.path.display().to_string(), "status": "success" }))
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
