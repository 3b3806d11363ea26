//! The cluster as a whole and the coordinator's own pages.

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidemill_types::config::{Config, keys};

use super::{
    reply::{Reply, ok},
    request::{Shared, Tenant},
};
use crate::clock::unsigned_millis;

/// The release of Flink whose API this is; clients compare it.
const FLINK_VERSION: &str = "2.1.0";

/// Keys whose values nobody gets to see.
const SECRET_WORDS: [&str; 10] = [
    "password",
    "secret",
    "token",
    "access-key",
    "access.key",
    "account.key",
    "account-key",
    "private",
    "credential",
    "sas.",
];

pub(super) async fn front_page() -> Response {
    let page = "<!doctype html><meta charset=utf-8><title>Tidemill</title><h1>Tidemill</h1>\
        <p>This is the REST API, in the shapes of Apache Flink's. Begin with \
        <a href=/overview>/overview</a>, <a href=/jobs/overview>/jobs/overview</a>, \
        <a href=/taskmanagers>/taskmanagers</a> or <a href=/jars>/jars</a>.";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

pub(super) async fn overview(cluster: Shared, tenant: Tenant) -> Reply {
    let (total, free) = cluster.workers.slots();
    let counts = cluster.counts(&tenant.0);
    let count = |states: &[&str]| states.iter().filter_map(|s| counts.get(s)).sum::<usize>();
    let running = [
        "INITIALIZING",
        "CREATED",
        "RUNNING",
        "FAILING",
        "CANCELLING",
        "RESTARTING",
    ];
    ok(&json!({
        "taskmanagers": cluster.workers.len(),
        "taskmanagers-blocked": 0,
        "slots-total": total,
        "slots-available": free,
        "slots-free-and-blocked": 0,
        "jobs-running": count(&running),
        "jobs-finished": count(&["FINISHED"]),
        "jobs-cancelled": count(&["CANCELED"]),
        "jobs-failed": count(&["FAILED"]),
        "flink-version": FLINK_VERSION,
        "flink-commit": "tidemill",
        "tidemill-version": tidemill_protocol::VERSION,
    }))
}

pub(super) async fn dashboard_config(cluster: Shared) -> Reply {
    let config = &cluster.config;
    ok(&json!({
        "refresh-interval": unsigned_millis(config.get(&keys::WEB_REFRESH_INTERVAL)),
        "timezone-name": "Coordinated Universal Time",
        "timezone-offset": 0,
        "flink-version": FLINK_VERSION,
        "flink-revision": "tidemill",
        "tidemill-version": tidemill_protocol::VERSION,
        "features": {
            "web-submit": config.get(&keys::WEB_SUBMIT_ENABLE),
            "web-cancel": config.get(&keys::WEB_CANCEL_ENABLE),
            "web-rescale": false,
            "web-history": false,
        },
    }))
}

pub(super) async fn shut_down(cluster: Shared) -> Reply {
    tracing::info!("shutting down on request");
    cluster.shutdown.cancel();
    ok(&json!({}))
}

pub(super) async fn config(cluster: Shared) -> Reply {
    ok(&entries(&cluster.config))
}

/// Settings as a list of keys and values, without secrets.
pub(super) fn entries(config: &Config) -> Value {
    let secret = |key: &str| {
        SECRET_WORDS
            .iter()
            .any(|word| key.to_ascii_lowercase().contains(word))
    };
    config
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": if secret(key) { "******" } else { value } }))
        .collect()
}

pub(super) async fn environment() -> Reply {
    ok(&json!({
        "jvm": {
            "version": format!("no JVM: Tidemill {}", tidemill_protocol::VERSION),
            "arch": std::env::consts::ARCH,
            "options": [],
        },
        "classpath": [],
    }))
}

pub(super) async fn logs() -> Reply {
    ok(&json!({ "logs": [] }))
}

pub(super) async fn thread_dump() -> Reply {
    ok(&json!({ "threadInfos": [] }))
}

pub(super) async fn datasets() -> Reply {
    ok(&json!({ "dataSets": [] }))
}
