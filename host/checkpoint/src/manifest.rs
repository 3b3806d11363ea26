//! `_metadata`: everything needed to restore a checkpoint.
//!
//! One line that frames it, then JSON, so that people can read it with any tool:
//!
//! ```text
//! tidemill-checkpoint 1 <length of the JSON> <xxh3 of the JSON, 16 hexadecimal digits>
//! {"job": …, "checkpoint": 12, "vertices": […]}
//! ```
//!
//! # Invariants
//!
//! 1. What [`Manifest::from_bytes`] accepts is exactly what [`Manifest::to_bytes`] wrote.
//! 2. Every vertex has as many subtask states as its parallelism, in order.
//! 3. A manifest of a checkpoint can only be made from a [`PublishPermit`], which exists only when
//!    every subtask has acknowledged.

use serde::{Deserialize, Serialize};
use tidemill_types::{Attempt, CheckpointId, JobGraph, JobId, StateKind, TenantId, Vertex};
use xxhash_rust::xxh3::xxh3_64;

use crate::{coordinator::PublishPermit, subtask::SubtaskState};

/// The version that is written. Others are refused.
pub const VERSION: u32 = 1;

/// The largest `_metadata` that is read: a million inline handles, far more than any job needs.
pub const MANIFEST_BYTES_MAX: usize = 1 << 30;

const MAGIC: &str = "tidemill-checkpoint";

/// A completed checkpoint or savepoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job that it was taken of.
    pub job: JobId,
    /// The job's name, for people.
    pub job_name: String,
    /// Who owns it.
    pub tenant: TenantId,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// The attempt of the job whose tasks have acknowledged it.
    pub attempt: Attempt,
    /// Whether a user asked for it and owns it.
    pub savepoint: bool,
    /// When it was triggered, in milliseconds since the epoch.
    pub created_at_ms: i64,
    /// SHA-256 of the module, in hexadecimal.
    pub module_hash: String,
    /// The state of every vertex.
    pub vertices: Vec<VertexState>,
}

/// What a manifest says about the job beside its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub job_name: String,
    /// Who owns it.
    pub tenant: TenantId,
    /// When the checkpoint was triggered, in milliseconds since the epoch.
    pub created_at_ms: i64,
    /// SHA-256 of the module, in hexadecimal.
    pub module_hash: String,
}

/// The state of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexState {
    /// The vertex's uid.
    pub uid: String,
    /// Its name, for messages.
    pub name: String,
    /// Its number of subtasks.
    pub parallelism: u32,
    /// Its number of key groups.
    pub max_parallelism: u32,
    /// The uid of its source.
    pub source: Option<String>,
    /// The uids of its sinks.
    pub sinks: Vec<String>,
    /// The uids of its operators.
    pub operators: Vec<String>,
    /// The states that its operators declared.
    pub states: Vec<StateRecord>,
    /// What each subtask contributed, in order.
    pub subtasks: Vec<SubtaskState>,
}

/// A declared state, named by its operator's uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// The operator's uid.
    pub operator_uid: String,
    /// The state's name.
    pub name: String,
    /// What kind of state.
    pub kind: StateKind,
    /// Avro schema of the key.
    pub key_schema: String,
    /// Avro schema of the sub-key.
    pub subkey_schema: String,
    /// Avro schema of the value.
    pub value_schema: String,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Something else.
    #[error("this is not the metadata of a checkpoint: it does not begin with \"{MAGIC}\"")]
    Foreign,
    /// Written by another release.
    #[error("checkpoint metadata of version {0}; this release reads version {VERSION}")]
    Version(u32),
    /// The first line is damaged.
    #[error("checkpoint metadata with a damaged first line")]
    Frame,
    /// Bytes are missing or were added.
    #[error(
        "checkpoint metadata of {expected} bytes has {actual}: it was truncated or overwritten"
    )]
    Length {
        /// What was written.
        expected: usize,
        /// What is there.
        actual: usize,
    },
    /// Bytes were changed.
    #[error(
        "checkpoint metadata has the checksum {actual:016x} instead of {expected:016x}: it is damaged"
    )]
    Checksum {
        /// Of what was written.
        expected: u64,
        /// Of what is there.
        actual: u64,
    },
    /// It contradicts itself.
    #[error("checkpoint metadata that makes no sense: {0}")]
    Content(String),
}

impl Manifest {
    /// The manifest of a checkpoint that all subtasks have acknowledged.
    ///
    /// # Errors
    ///
    /// [`FormatError::Content`] when the acknowledged tasks are not those of the graph.
    pub fn new(
        header: ManifestHeader,
        graph: &JobGraph,
        parallelism: &[u32],
        max_parallelism: &[u32],
        permit: PublishPermit,
    ) -> Result<Self, FormatError> {
        let (checkpoint, savepoint) = (permit.checkpoint(), permit.kind().is_savepoint());
        let mut vertices: Vec<VertexState> = graph
            .vertices
            .iter()
            .zip(parallelism.iter().zip(max_parallelism))
            .map(|(vertex, (&p, &max))| VertexState::describe(vertex, p, max))
            .collect();
        let mut attempt = Attempt::default();
        for (task, state) in permit.into_states() {
            attempt = attempt.max(task.attempt);
            let vertex = vertices.get_mut(task.vertex as usize);
            let slot = vertex.and_then(|v| v.subtasks.get_mut(task.subtask.0 as usize));
            let Some(slot) = slot else {
                return Err(FormatError::Content(format!(
                    "task {task} is not part of the graph"
                )));
            };
            *slot = state;
        }
        let ManifestHeader {
            job,
            job_name,
            tenant,
            created_at_ms,
            module_hash,
        } = header;
        Ok(Self {
            job,
            job_name,
            tenant,
            checkpoint,
            attempt,
            savepoint,
            created_at_ms,
            module_hash,
            vertices,
        })
    }

    /// The bytes to store.
    ///
    /// # Panics
    ///
    /// Never: a manifest has no keys that JSON cannot express.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a manifest is always expressible as JSON");
        let mut bytes =
            format!("{MAGIC} {VERSION} {} {:016x}\n", json.len(), xxh3_64(&json)).into_bytes();
        bytes.extend_from_slice(&json);
        bytes
    }

    /// Reads what [`Manifest::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`FormatError`] says in which way the bytes are not that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let json = unframe(bytes)?;
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|error| FormatError::Content(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), FormatError> {
        for vertex in &self.vertices {
            if vertex.subtasks.len() != vertex.parallelism as usize {
                return Err(FormatError::Content(format!(
                    "\"{}\" has {} subtask states at parallelism {}",
                    vertex.name,
                    vertex.subtasks.len(),
                    vertex.parallelism
                )));
            }
            if vertex.parallelism == 0 || vertex.parallelism > vertex.max_parallelism {
                return Err(FormatError::Content(format!(
                    "\"{}\" has parallelism {} of at most {}",
                    vertex.name, vertex.parallelism, vertex.max_parallelism
                )));
            }
        }
        Ok(())
    }

    /// The bytes of state it stands for.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.vertices
            .iter()
            .flat_map(|v| &v.subtasks)
            .map(SubtaskState::byte_size)
            .sum()
    }
}

impl VertexState {
    /// A vertex without state yet.
    #[must_use]
    pub fn describe(vertex: &Vertex, parallelism: u32, max_parallelism: u32) -> Self {
        Self {
            uid: vertex.uid.clone(),
            name: vertex.name.clone(),
            parallelism,
            max_parallelism,
            source: vertex.source.as_ref().map(|source| source.uid.clone()),
            sinks: vertex.sinks.iter().map(|sink| sink.uid.clone()).collect(),
            operators: vertex
                .operators
                .iter()
                .map(|operator| operator.uid.clone())
                .collect(),
            states: state_records(vertex),
            subtasks: vec![SubtaskState::default(); parallelism as usize],
        }
    }
}

/// The states of a vertex, named by uid. States of operators that do not exist are left out (a
/// validated graph has none).
pub(crate) fn state_records(vertex: &Vertex) -> Vec<StateRecord> {
    let record = |state: &tidemill_types::StateDecl| {
        let operator = vertex.operators.get(state.operator as usize)?;
        Some(StateRecord {
            operator_uid: operator.uid.clone(),
            name: state.name.clone(),
            kind: state.kind,
            key_schema: state.key_schema.clone(),
            subkey_schema: state.subkey_schema.clone(),
            value_schema: state.value_schema.clone(),
        })
    };
    vertex.states.iter().filter_map(record).collect()
}

fn unframe(bytes: &[u8]) -> Result<&[u8], FormatError> {
    if !bytes.starts_with(MAGIC.as_bytes()) {
        return Err(FormatError::Foreign);
    }
    // Two numbers, a checksum and the magic are far shorter than this.
    let head = &bytes[..bytes.len().min(128)];
    let end = head
        .iter()
        .position(|&b| b == b'\n')
        .ok_or(FormatError::Frame)?;
    let line = std::str::from_utf8(&bytes[..end])
        .ok()
        .ok_or(FormatError::Frame)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(FormatError::Frame);
    let version: u32 = word()?.parse().ok().ok_or(FormatError::Frame)?;
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let expected: usize = word()?.parse().ok().ok_or(FormatError::Frame)?;
    let checksum = u64::from_str_radix(word()?, 16)
        .ok()
        .ok_or(FormatError::Frame)?;
    let json = &bytes[end + 1..];
    if json.len() != expected || expected > MANIFEST_BYTES_MAX {
        return Err(FormatError::Length {
            expected,
            actual: json.len(),
        });
    }
    let actual = xxh3_64(json);
    if actual != checksum {
        return Err(FormatError::Checksum {
            expected: checksum,
            actual,
        });
    }
    Ok(json)
}

#[cfg(test)]
mod tests;
