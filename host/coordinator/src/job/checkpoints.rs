//! The checkpoints of one job: its coordinator, its newest restore point, its statistics.
//!
//! Decisions come from `tidemill_checkpoint`; the master carries them out.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tidemill_checkpoint::{
    CheckpointCoordinator, CheckpointKind, CheckpointSettings, FormatError, Manifest,
    PublishPermit, SubtaskState, manifest::ManifestHeader,
};
use tidemill_storage::{Location, StorageError};
use tidemill_types::{
    CheckpointId, JobGraph,
    config::{CheckpointRetention, Config, keys},
};
use tokio::sync::oneshot;

use super::{JobInfo, RestorePoint, checkpoint_stats::CheckpointStats};
use crate::clock::unsigned_millis;

/// The object whose existence makes a checkpoint complete.
pub(crate) const METADATA: &str = "_metadata";

/// Who waits for a checkpoint that was asked for.
pub(crate) type Waiter = oneshot::Sender<Result<CheckpointId, String>>;

/// The checkpoints of one job.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    pub(crate) coordinator: CheckpointCoordinator,
    pub(crate) stats: CheckpointStats,
    /// Where the job's checkpoints are.
    pub(crate) location: Location,
    /// What the next attempt starts from.
    pub(crate) newest: Option<RestorePoint>,
    pub(crate) waiters: HashMap<CheckpointId, Waiter>,
}

impl Checkpoints {
    /// `newest` is what the user asked to start from.
    pub(crate) fn new(
        config: &Config,
        location: Location,
        newest: Option<RestorePoint>,
        history: usize,
    ) -> Self {
        let first = newest.as_ref().map_or(CheckpointId(1), |restore| {
            restore.manifest.checkpoint.next()
        });
        Self {
            coordinator: CheckpointCoordinator::new(settings(config), [], first, 0),
            stats: CheckpointStats::new(history),
            location,
            newest,
            waiters: HashMap::new(),
        }
    }

    /// What a subtask last contributed, for one that finished without saying anything new.
    pub(crate) fn last_state(&self, graph: &JobGraph, vertex: u32, subtask: u32) -> SubtaskState {
        let find = || {
            let uid = &graph.vertices.get(vertex as usize)?.uid;
            let manifest = &self.newest.as_ref()?.manifest;
            let former = manifest.vertices.iter().find(|former| former.uid == *uid)?;
            former.subtasks.get(subtask as usize).cloned()
        };
        let mut state = find().unwrap_or_default();
        // Files belong to the checkpoint that they were written for, and go with it.
        state.keyed.clear();
        state
    }

    /// Answers whoever asked for a checkpoint.
    pub(crate) fn answer(
        &mut self,
        checkpoint: CheckpointId,
        result: Result<CheckpointId, String>,
    ) {
        if let Some(waiter) = self.waiters.remove(&checkpoint)
            && waiter.send(result).is_err()
        {
            tracing::debug!(%checkpoint, "nobody waits for this checkpoint any more");
        }
    }
}

/// Name of a checkpoint's directory in the job's.
pub(crate) fn folder(checkpoint: CheckpointId) -> String {
    format!("chk-{checkpoint}")
}

/// What a job's settings say about checkpoints.
pub(crate) fn settings(config: &Config) -> CheckpointSettings {
    let ms = unsigned_millis;
    CheckpointSettings {
        interval_ms: config
            .get(&keys::CHECKPOINT_INTERVAL_OPTIONAL)
            .map(|d| ms(d).max(1)),
        timeout_ms: ms(config.get(&keys::CHECKPOINT_TIMEOUT)).max(1),
        min_pause_ms: ms(config.get(&keys::CHECKPOINT_MIN_PAUSE)),
        max_concurrent: config.get(&keys::CHECKPOINT_MAX_CONCURRENT).max(1),
        tolerable_failures: Some(config.get(&keys::CHECKPOINT_TOLERABLE_FAILURES)),
        retained: u32::try_from(config.get(&keys::CHECKPOINT_RETAINED))
            .unwrap_or(u32::MAX)
            .max(1),
    }
}

/// The manifest of a checkpoint that all tasks have acknowledged.
pub(crate) fn manifest(
    info: &JobInfo,
    figures: (&[u32], &[u32]),
    permit: PublishPermit,
    created_at_ms: i64,
) -> Result<Manifest, FormatError> {
    let header = ManifestHeader {
        job: info.id,
        job_name: info.name.clone(),
        tenant: info.tenant.clone(),
        created_at_ms,
        module_hash: info.module_hash.clone(),
    };
    Manifest::new(header, &info.graph, figures.0, figures.1, permit)
}

/// Makes a checkpoint durable: the commit point.
///
/// An answer that got lost may mean either; what is found there afterwards decides.
pub(crate) async fn publish(
    location: Location,
    manifest: Manifest,
) -> Result<RestorePoint, String> {
    let name = format!("{}/{METADATA}", folder(manifest.checkpoint));
    let bytes = Bytes::from(manifest.to_bytes());
    let base = location.uri_of(&folder(manifest.checkpoint));
    let point = RestorePoint {
        manifest: Arc::new(manifest),
        base,
    };
    match location.put_if_absent(&name, bytes.clone()).await {
        Ok(()) => Ok(point),
        Err(error) => match location.get(&name).await {
            Ok(there) if there == bytes => Ok(point),
            Ok(_) => Err(format!(
                "{} belongs to another run of a job with this id",
                location.uri_of(&name)
            )),
            Err(_) => {
                // It must not appear later as if it were complete.
                if let Err(left) = location.delete(&name).await {
                    tracing::warn!(error = %left, "cannot make sure that the metadata is not there");
                }
                Err(error.to_string())
            }
        },
    }
}

/// Deletes a checkpoint, or what was written for one that failed.
pub(crate) async fn discard(location: Location, checkpoint: CheckpointId) {
    // The metadata first: a checkpoint without it is none, whatever else is left.
    let folder = folder(checkpoint);
    let deleted = async {
        location.delete(&format!("{folder}/{METADATA}")).await?;
        location.delete_all(&folder).await
    };
    if let Err(error) = deleted.await {
        tracing::warn!(%checkpoint, %error, "deleting a checkpoint failed; it is left behind");
    }
}

/// Whether the checkpoints of a job outlive it, by Flink's rules.
pub(crate) fn retained(config: &Config, status: super::JobStatus) -> bool {
    match config.get(&keys::CHECKPOINT_RETENTION) {
        CheckpointRetention::NoExternalizedCheckpoints => false,
        CheckpointRetention::DeleteOnCancellation => status == super::JobStatus::Failed,
        CheckpointRetention::RetainOnCancellation => status != super::JobStatus::Finished,
    }
}

/// Reads a checkpoint or savepoint that a user names, by its directory or its metadata.
///
/// # Errors
///
/// What is wrong with it, naming the file.
pub(crate) async fn read(
    path: &str,
    storage: &std::collections::BTreeMap<String, String>,
) -> Result<RestorePoint, String> {
    let folder = path
        .trim_end_matches('/')
        .strip_suffix(METADATA)
        .unwrap_or(path);
    let folder = single_slash_file(folder.trim_end_matches('/'));
    let location = Location::open(&folder, storage).map_err(|e| e.to_string())?;
    let bytes = location.get(METADATA).await.map_err(|error| match error {
        StorageError::NotFound { .. } => format!(
            "no checkpoint or savepoint at \"{path}\": {} does not exist",
            location.uri_of(METADATA)
        ),
        other => format!("the checkpoint or savepoint at \"{path}\" cannot be read: {other}"),
    })?;
    let manifest = Manifest::from_bytes(&bytes)
        .map_err(|e| format!("{} cannot be restored from: {e}", location.uri_of(METADATA)))?;
    Ok(RestorePoint {
        manifest: Arc::new(manifest),
        base: location.uri().to_owned(),
    })
}

/// Flink writes `file:/path`; so users paste it.
fn single_slash_file(uri: &str) -> String {
    match uri.strip_prefix("file:/") {
        Some(rest) if !rest.starts_with('/') => format!("file:///{rest}"),
        _ => uri.to_owned(),
    }
}

/// The type of a checkpoint as the API writes it.
pub(crate) const fn type_name(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Checkpoint => "CHECKPOINT",
        CheckpointKind::Savepoint { stop: false, .. } => "SAVEPOINT",
        CheckpointKind::Savepoint { stop: true, .. } => "SYNC_SAVEPOINT",
    }
}
