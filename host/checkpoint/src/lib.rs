//! Checkpoints as pure decisions and formats: facts in, decisions out; no I/O, no clock.
//!
//! | module | what it decides or describes |
//! |---|---|
//! | [`coordinator`] | when to trigger, when a checkpoint is complete, what to abort and to discard |
//! | [`aligner`] | a task's half: which inputs to hold back, when to take the snapshot |
//! | [`subtask`] | what one subtask contributes to a checkpoint |
//! | [`manifest`] | `_metadata`: everything needed to restore a checkpoint, framed and checksummed |
//! | [`recovery`] | which checkpoint a job starts from, when nobody remembers |
//! | [`restore`] | which subtask of a (possibly changed) job gets which part of a checkpoint |
//!
//! The way of a checkpoint: the coordinator decides to trigger it; sources put a barrier into
//! their streams; a task whose barriers have arrived takes its snapshot, passes the barrier on and
//! acknowledges; when all have, a [`coordinator::PublishPermit`] comes into being, and with it a
//! [`manifest::Manifest`] can be stored. Storing it (create-if-absent) is the commit point. Only
//! then are the tasks told that it is complete, so that sinks may commit.

pub mod aligner;
pub mod coordinator;
mod encoding;
#[cfg(test)]
mod fixture;
pub mod manifest;
pub mod recovery;
pub mod restore;
pub mod subtask;

pub use aligner::{AlignDecision, Aligner, AlignmentMode};
pub use coordinator::{
    CheckpointCoordinator, CheckpointKind, CheckpointSettings, Decision, PublishPermit,
    TriggerRefused,
};
pub use manifest::{FormatError, Manifest, ManifestHeader, StateRecord, VertexState};
pub use recovery::{AttemptRecord, candidates};
pub use restore::{RestoreError, TaskRestore, assign_restore};
pub use subtask::{
    KeyedHandle, OperatorStatePart, SinkState, SplitState, StateLocation, SubtaskState,
};
