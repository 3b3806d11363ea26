//! What end-to-end tests are made of: a cluster of real processes, and its REST API.
//!
//! Each test target is one promise to users. The binary and the jobs are those of `make build`.

#![expect(
    clippy::disallowed_methods,
    reason = "tests wait for real time and spawn what they watch"
)]

mod clicks;
mod cluster;
mod program;
mod rest;

pub use clicks::{ClickRun, click_args};
pub use cluster::{Cluster, ClusterBuilder, Worker};
pub use program::{Ended, Program};
pub use rest::Rest;

use std::path::PathBuf;

/// A module built by `make build`.
///
/// # Panics
///
/// If it is not there.
#[must_use]
pub fn module(name: &str) -> PathBuf {
    let path = tidemill_testkit::target_dir().join(format!("jobs/{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing; run `make build`",
        path.display()
    );
    path
}

/// The binary built by `make build`.
///
/// # Panics
///
/// If it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    let path = tidemill_testkit::target_dir().join("release/tidemill");
    assert!(
        path.exists(),
        "{} is missing; run `make build`",
        path.display()
    );
    path
}
