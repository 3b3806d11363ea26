//! Uploading a subtask's part of a checkpoint, while the task goes on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tidemill_checkpoint::{KeyedHandle, StateLocation, SubtaskState, subtask::INLINE_BYTES_MAX};
use tidemill_protocol::control::{
    CheckpointAck, CheckpointDecline, CheckpointFigures, WorkerMessage, worker_message::Kind,
};
use tidemill_state::Snapshot;
use tidemill_storage::Location;
use tidemill_types::{CheckpointId, KeyGroupRange};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{TaskSpec, host::now_ms, running::Alignment};
use crate::exchange::Barrier;

/// Uploads under way. Dropping this stops them.
pub(crate) struct Uploads {
    spec: TaskSpec,
    events: mpsc::Sender<WorkerMessage>,
    running: JoinSet<()>,
    by_checkpoint: BTreeMap<CheckpointId, AbortHandle>,
}

struct Upload {
    spec: TaskSpec,
    barrier: Barrier,
    state: SubtaskState,
    figures: CheckpointFigures,
}

impl Uploads {
    pub(crate) fn new(spec: TaskSpec, events: mpsc::Sender<WorkerMessage>) -> Self {
        Self {
            spec,
            events,
            running: JoinSet::new(),
            by_checkpoint: BTreeMap::new(),
        }
    }

    /// Encodes and stores `keyed`, then acknowledges the checkpoint, or declines it.
    pub(crate) fn start(
        &mut self,
        barrier: &Barrier,
        (state, keyed): (SubtaskState, Snapshot),
        alignment: Alignment,
        sync: Duration,
    ) {
        while self.running.try_join_next().is_some() {}
        self.by_checkpoint.retain(|_, upload| !upload.is_finished());
        let delay_ms = now_ms().saturating_sub(barrier.timestamp_ms);
        let since_trigger = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        let figures = CheckpointFigures {
            state_bytes: 0,
            alignment_us: micros(alignment.duration),
            start_delay_us: micros(since_trigger.saturating_sub(alignment.duration + sync)),
            sync_us: micros(sync),
            async_us: 0,
            processed_bytes: alignment.processed_bytes,
        };
        let upload = Upload {
            spec: self.spec.clone(),
            barrier: barrier.clone(),
            state,
            figures,
        };
        let events = self.events.clone();
        let upload = self.running.spawn(async move {
            let kind = upload.run(keyed).await;
            let message = WorkerMessage { kind: Some(kind) };
            if events.send(message).await.is_err() {
                tracing::debug!("nobody waits for a checkpoint any more");
            }
        });
        self.by_checkpoint.insert(barrier.checkpoint, upload);
    }

    /// Stops what is under way for a checkpoint: its files are being deleted.
    pub(crate) fn abort(&mut self, checkpoint: CheckpointId) {
        if let Some(upload) = self.by_checkpoint.remove(&checkpoint) {
            upload.abort();
        }
    }

    /// Waits for what is under way.
    pub(crate) async fn drain(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

impl Upload {
    async fn run(mut self, keyed: Snapshot) -> Kind {
        let start = Instant::now();
        let task = Some(self.spec.id.into());
        let checkpoint = self.barrier.checkpoint.0;
        if let Err(reason) = self.store(keyed).await {
            return Kind::CheckpointDecline(CheckpointDecline {
                task,
                checkpoint,
                reason,
            });
        }
        self.figures.async_us = micros(start.elapsed());
        self.figures.state_bytes = self.state.byte_size();
        let state = serde_json::to_vec(&self.state).expect("plain data is always JSON");
        Kind::CheckpointAck(CheckpointAck {
            task,
            checkpoint,
            state: state.into(),
            figures: Some(self.figures),
        })
    }

    async fn store(&mut self, keyed: Snapshot) -> Result<(), String> {
        if keyed.is_empty() {
            return Ok(());
        }
        let encoded = tokio::task::spawn_blocking(move || keyed.encode()).await;
        let encoded = encoded.map_err(|e| format!("encoding state: {e}"))?;
        let bytes = encoded.map_err(|e| format!("encoding state: {e}"))?;
        let range = key_groups(&self.spec);
        if bytes.len() <= INLINE_BYTES_MAX {
            self.state.keyed.push(KeyedHandle::inline(range, bytes));
            return Ok(());
        }
        let settings = self.spec.job.config.iter();
        let settings = settings
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let directory = Location::open(&self.barrier.location, &settings)
            .map_err(|e| format!("{}: {e}", self.barrier.location))?;
        let TaskSpec { id, .. } = &self.spec;
        let path = format!("{}-{}-{}.state", id.vertex, id.subtask, id.attempt);
        let handle = KeyedHandle::new(range, &bytes, StateLocation::File { path: path.clone() });
        let stored = directory.put(&path, bytes).await;
        stored.map_err(|e| format!("file {path} in {}: {e}", self.barrier.location))?;
        self.state.keyed.push(handle);
        Ok(())
    }
}

fn key_groups(spec: &TaskSpec) -> KeyGroupRange {
    KeyGroupRange::of_subtask(spec.subtask(), spec.parallelism(), spec.max_parallelism())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
