//! The coordinator: it accepts modules and jobs, schedules them on workers, coordinates their
//! checkpoints, restarts them when something fails, and serves the REST API.
//!
//! | module | what it is |
//! |---|---|
//! | [`service`] | start and stop: listeners, storage directory, epoch |
//! | [`cluster`] | the dispatcher: everything that the other parts share |
//! | [`modules`] | uploaded modules |
//! | [`blobs`] | the copies of them that jobs run from |
//! | [`plan`] | what is asked of the planner process |
//! | [`workers`] | registered workers and their slots |
//! | [`rpc`] | sessions of workers (gRPC) |
//! | [`job`] | job masters |
//! | [`operations`] | what takes a while, and how it goes |
//! | [`rest`] | the HTTP API, in Flink's shapes |
//!
//! Modules run in planner processes and workers only; nothing here executes them.

mod blobs;
mod clock;
mod cluster;
mod error;
mod job;
mod modules;
mod operations;
mod plan;
mod rest;
mod rpc;
mod service;
mod workers;

pub use error::CoordinatorError;
pub use job::{FailureKind, JobStatus, TaskStatus};
pub use plan::{Plan, PlanFailure};
pub use service::{Coordinator, Listeners};
