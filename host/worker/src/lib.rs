//! A worker: it offers slots to a coordinator and runs the subtasks that it is given.
//!
//! Roles and flow:
//!
//! * [`Worker`] owns two tokio runtimes: one for control (this process's session with the
//!   coordinator, heartbeats) that no guest can hold up, and one for data, where tasks live.
//! * `session` keeps one stream to the coordinator open and turns its messages into calls of
//!   `tasks`, which starts, finds and stops tasks.
//! * `task` runs one subtask: source or input gate → guest → outputs. Everything a task shares
//!   with its guest is behind `task::host`.
//! * [`exchange`] carries records between tasks, in this process or over TCP.
//! * `modules` turns a module's hash into compiled code: from the cache, or by the planner process.
//!
//! # Invariants
//!
//! 1. A task reports exactly one final state.
//! 2. A newer attempt of a job stops every task of an older one before it starts.
//! 3. What a guest does can fail its own task only.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tasks run on the real clock; the protocols they carry out are pure code elsewhere"
)]

pub mod exchange;
mod metrics;
mod modules;
mod session;
mod task;
mod tasks;
mod worker;

pub use worker::{Error, Worker, WorkerConfig};
