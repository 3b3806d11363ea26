//! The control plane's messages and services, and their ids in the host's own terms.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated; documented in the .proto file"
)]

use tidemill_types::{Attempt, SubtaskIndex, ids::InvalidId};

tonic::include_proto!("tidemill.v1");

impl From<tidemill_types::TaskId> for TaskId {
    fn from(id: tidemill_types::TaskId) -> Self {
        Self {
            job: id.job.to_string(),
            attempt: id.attempt.0,
            vertex: id.vertex,
            subtask: id.subtask.0,
        }
    }
}

impl TryFrom<TaskId> for tidemill_types::TaskId {
    type Error = InvalidId;

    fn try_from(id: TaskId) -> Result<Self, InvalidId> {
        Ok(Self {
            job: id.job.parse()?,
            attempt: Attempt(id.attempt),
            vertex: id.vertex,
            subtask: SubtaskIndex(id.subtask),
        })
    }
}
