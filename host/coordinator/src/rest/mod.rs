//! The HTTP API: Flink's paths and shapes, under `/` and under `/v1/`.
//!
//! One file per resource; [`error`] alone knows how errors become answers. Handlers read jobs
//! under a short lock and never change them, they send events.

mod checkpoints;
mod cluster;
mod error;
mod figures;
mod graph;
mod guard;
mod jars;
mod jobs;
mod metrics;
mod operations;
mod reply;
mod request;
mod taskmanagers;
mod vertices;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware,
    response::{IntoResponse as _, Response},
    routing::{delete, get, patch, post},
};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{cluster::Cluster, error::CoordinatorError};

/// The largest body that is not an upload: program arguments and settings fit many times.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Serves the API until the cluster shuts down.
pub(crate) async fn serve(
    cluster: Arc<Cluster>,
    listener: TcpListener,
    address: SocketAddr,
) -> Result<(), CoordinatorError> {
    let shutdown = cluster.shutdown.clone();
    let app = router(cluster, address);
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|error| CoordinatorError::Serve {
            what: "the REST API",
            error: error.to_string(),
        })
}

fn router(cluster: Arc<Cluster>, address: SocketAddr) -> Router {
    let api = Router::new()
        .merge(cluster_routes())
        .merge(jar_routes(address))
        .merge(job_routes())
        .merge(vertex_routes())
        .merge(taskmanager_routes());
    Router::new()
        .nest("/v1", api.clone())
        .merge(api)
        .route("/", get(cluster::front_page))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(error::uniform))
        .layer(middleware::from_fn(guard::check))
        .layer(CatchPanicLayer::custom(
            |_panic: Box<dyn std::any::Any + Send>| {
                error::ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error.")
                    .into_response()
            },
        ))
        .with_state(cluster)
}

type Routes = Router<Arc<Cluster>>;

fn cluster_routes() -> Routes {
    Router::new()
        .route("/overview", get(cluster::overview))
        .route("/config", get(cluster::dashboard_config))
        .route("/cluster", delete(cluster::shut_down))
        .route("/jobmanager/config", get(cluster::config))
        .route("/jobmanager/environment", get(cluster::environment))
        .route("/jobmanager/metrics", get(metrics::jobmanager))
        .route("/jobmanager/logs", get(cluster::logs))
        .route("/jobmanager/thread-dump", get(cluster::thread_dump))
        .route("/datasets", get(cluster::datasets))
}

fn jar_routes(address: SocketAddr) -> Routes {
    Router::new()
        .route(
            "/jars",
            get(move |state, tenant| jars::list(state, tenant, address)),
        )
        .route(
            "/jars/upload",
            post(jars::upload).layer(DefaultBodyLimit::disable()),
        )
        .route("/jars/{jarid}", delete(jars::delete))
        .route("/jars/{jarid}/plan", get(jars::plan).post(jars::plan))
        .route("/jars/{jarid}/run", post(jars::run))
}

fn job_routes() -> Routes {
    Router::new()
        .route("/jobs", get(jobs::list))
        .route("/jobs/overview", get(jobs::overview))
        .route("/jobs/metrics", get(metrics::jobs))
        .route("/jobs/{jobid}", get(jobs::detail).patch(jobs::terminate))
        .route("/jobs/{jobid}/yarn-cancel", get(jobs::cancel))
        .route("/jobs/{jobid}/plan", get(jobs::plan))
        .route("/jobs/{jobid}/status", get(jobs::status))
        .route("/jobs/{jobid}/config", get(jobs::config))
        .route("/jobs/{jobid}/exceptions", get(jobs::exceptions))
        .route(
            "/jobs/{jobid}/execution-result",
            get(jobs::execution_result),
        )
        .route("/jobs/{jobid}/accumulators", get(jobs::accumulators))
        .route(
            "/jobs/{jobid}/resource-requirements",
            get(jobs::resource_requirements),
        )
        .route(
            "/jobs/{jobid}/clientHeartbeat",
            patch(jobs::client_heartbeat),
        )
        .route(
            "/jobs/{jobid}/jobmanager/config",
            get(jobs::effective_config),
        )
        .route(
            "/jobs/{jobid}/jobmanager/environment",
            get(cluster::environment),
        )
        .route("/jobs/{jobid}/metrics", get(metrics::job))
        .route(
            "/jobs/{jobid}/checkpoints",
            get(checkpoints::overview).post(operations::trigger_checkpoint),
        )
        .route(
            "/jobs/{jobid}/checkpoints/{triggerid}",
            get(operations::checkpoint_status),
        )
        .route("/jobs/{jobid}/checkpoints/config", get(checkpoints::config))
        .route(
            "/jobs/{jobid}/checkpoints/details/{checkpointid}",
            get(checkpoints::details),
        )
        .route(
            "/jobs/{jobid}/checkpoints/details/{checkpointid}/subtasks/{vertexid}",
            get(checkpoints::subtasks),
        )
}

fn vertex_routes() -> Routes {
    let under = |path: &str| format!("/jobs/{{jobid}}/vertices/{{vertexid}}{path}");
    Router::new()
        .route(&under(""), get(vertices::detail))
        .route(&under("/taskmanagers"), get(vertices::taskmanagers))
        .route(&under("/subtasktimes"), get(vertices::subtask_times))
        .route(&under("/backpressure"), get(vertices::backpressure))
        .route(&under("/accumulators"), get(vertices::accumulators))
        .route(
            &under("/subtasks/accumulators"),
            get(vertices::subtask_accumulators),
        )
        .route(&under("/subtasks/{subtask}"), get(vertices::subtask))
        .route(
            &under("/subtasks/{subtask}/attempts/{attempt}"),
            get(vertices::attempt),
        )
        .route(&under("/metrics"), get(metrics::vertex))
        .route(&under("/watermarks"), get(metrics::watermarks))
        .route(&under("/jm-operator-metrics"), get(metrics::nothing))
        .route(&under("/subtasks/metrics"), get(metrics::subtasks))
        .route(&under("/subtasks/{subtask}/metrics"), get(metrics::subtask))
}

fn taskmanager_routes() -> Routes {
    Router::new()
        .route("/taskmanagers", get(taskmanagers::list))
        .route("/taskmanagers/metrics", get(metrics::taskmanagers))
        .route("/taskmanagers/{id}", get(taskmanagers::detail))
        .route("/taskmanagers/{id}/metrics", get(metrics::taskmanager))
        .route("/taskmanagers/{id}/logs", get(taskmanagers::logs))
        .route(
            "/taskmanagers/{id}/thread-dump",
            get(taskmanagers::thread_dump),
        )
}

async fn not_found(request: Request) -> Response {
    error::ApiError::not_found(format!("Not found: {}", request.uri().path())).into_response()
}

async fn wrong_method(request: Request) -> Response {
    let text = format!(
        "{} is not possible on {}",
        request.method(),
        request.uri().path()
    );
    error::ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}
