//! What source and gate tasks have in common: calling the guest, time, and checkpoints.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tidemill_checkpoint::{OperatorStatePart, SplitState, SubtaskState};
use tidemill_connectors::Registry;
use tidemill_runtime::{Frames, Guest, GuestError, Progress};
use tidemill_types::{
    Batch, CheckpointId, Watermark,
    config::{RejectedRecords, keys},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Control, TaskContext, TaskError, TaskSpec,
    batch_size::BatchSizer,
    checkpoint::Uploads,
    host::{Shared, now_ms},
};
use crate::exchange::{Barrier, Element};

/// The most timers that one call delivers.
const TIMERS_PER_CALL: usize = 4_096;
/// How much operator state one subtask may return: it travels in messages and lies in the
/// coordinator's memory, once for each subtask that gets it back.
const OPERATOR_STATE_BYTES_MAX: usize = 4 << 20;
/// What an item of operator state takes beside its own bytes.
const ITEM_BYTES: usize = 8;
/// How often skipped records are warned of, at most.
const REJECTED_WARNING_MS: i64 = 10_000;
/// How much of a rejected record an error shows.
const EXCERPT_BYTES_MAX: usize = 100;

/// A task that has been set up.
pub(crate) struct Running {
    cx: TaskContext,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) shared: Arc<Shared>,
    guest: Guest,
    pub(crate) sizer: BatchSizer,
    uploads: Uploads,
    skip_rejected: bool,
    /// When skipped records were last warned of.
    warned_ms: AtomicI64,
    buffer_timeout: Duration,
    /// Ends a running call when the task is cancelled; gone with the task.
    _interrupter: AbortOnDropHandle<()>,
}

impl Running {
    pub(crate) fn new(
        cx: TaskContext,
        control: mpsc::Receiver<Control>,
        shared: Arc<Shared>,
        guest: Guest,
    ) -> Self {
        let config = &cx.spec.job.config;
        let (interrupt, cancel) = (guest.interrupt_handle(), cx.cancel.clone());
        let interrupter = tokio::spawn(async move {
            cancel.cancelled().await;
            interrupt.interrupt("the task is cancelled");
        });
        Self {
            _interrupter: AbortOnDropHandle::new(interrupter),
            sizer: BatchSizer::new(config.get(&keys::BATCH_TIME)),
            skip_rejected: config.get(&keys::REJECTED_RECORDS) == RejectedRecords::Skip,
            warned_ms: AtomicI64::new(0),
            buffer_timeout: cx.spec.buffer_timeout(),
            uploads: Uploads::new(cx.spec.clone(), cx.events.clone()),
            control,
            shared,
            guest,
            cx,
        }
    }

    pub(crate) fn spec(&self) -> &TaskSpec {
        &self.cx.spec
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.cx.registry)
    }

    /// Resolves when the task is told to stop.
    pub(crate) fn cancelled(&self) -> impl Future<Output = ()> + use<> {
        let cancel = self.cx.cancel.clone();
        async move { cancel.cancelled().await }
    }

    /// One call into the guest. Other tasks of this thread move to another one meanwhile.
    ///
    /// # Errors
    ///
    /// What an import met, or what the guest itself did.
    pub(crate) fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Guest) -> Result<T, GuestError>,
    ) -> Result<T, TaskError> {
        let metrics = &self.shared.metrics;
        let start = Instant::now();
        let waited = metrics.backpressured();
        let guest = &mut self.guest;
        let result =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(call(guest)));
        metrics.add_busy(
            start
                .elapsed()
                .saturating_sub(metrics.backpressured() - waited),
        );
        metrics
            .guest_memory
            .store(self.guest.memory_bytes(), Relaxed);
        result.map_err(|source| self.guest_error(source))
    }

    fn guest_error(&self, source: GuestError) -> TaskError {
        let import_error = self.shared.import_error.lock().take();
        let source = match import_error {
            None => source,
            // Which operator is at fault is known here only.
            Some(cause @ TaskError::NoSuchPort(_)) => GuestError::Violation {
                message: cause.to_string(),
                backtrace: Frames::default(),
            },
            Some(cause) => return cause,
        };
        if self.cx.cancel.is_cancelled() {
            return TaskError::Cancelled;
        }
        TaskError::Guest {
            operator: self.spec().operator_name(source.operator()).to_owned(),
            subtask: self.spec().subtask(),
            source,
        }
    }

    /// Gives a batch to the guest; returns the watermark of its split.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest fails, or rejects a record and the policy is to fail.
    pub(crate) fn process(
        &mut self,
        input: u32,
        split: u32,
        batch: &Batch,
    ) -> Result<Watermark, TaskError> {
        let metrics = &self.shared.metrics;
        metrics.records_in.fetch_add(batch.len() as u64, Relaxed);
        metrics
            .bytes_in
            .fetch_add(batch.byte_size() as u64, Relaxed);
        let progress = self.call(async |guest| guest.process(input, split, batch).await)?;
        self.sizer.learn(batch.len(), self.guest.last_call_time());
        self.take(&progress, Some(batch))?;
        Ok(progress.watermark)
    }

    /// Counts what a call did; `batch` is what rejected records are positions in.
    fn take(&self, progress: &Progress, batch: Option<&Batch>) -> Result<(), TaskError> {
        self.shared.metrics.count_operators(&progress.counts);
        let Some(first) = progress.rejected.first() else {
            return Ok(());
        };
        if self.skip_rejected {
            self.shared
                .metrics
                .rejected
                .fetch_add(progress.rejected.len() as u64, Relaxed);
            // The metric counts them all; the log belongs to everyone.
            let now = now_ms();
            if now.saturating_sub(self.warned_ms.load(Relaxed)) < REJECTED_WARNING_MS {
                return Ok(());
            }
            self.warned_ms.store(now, Relaxed);
            tracing::warn!(
                task = self.shared.task_name,
                count = progress.rejected.len(),
                operator = self.spec().operator_name(Some(first.operator)),
                error = first.message,
                "skipped rejected records"
            );
            return Ok(());
        }
        Err(TaskError::Rejected {
            operator: self.spec().operator_name(Some(first.operator)).to_owned(),
            subtask: self.spec().subtask(),
            place: batch
                .map(|batch| excerpt(batch, first.record))
                .unwrap_or_default(),
            message: first.message.clone(),
        })
    }

    /// Event time advances: due timers run, then the guest and everyone downstream are told.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest or an output fails.
    pub(crate) async fn advance(&mut self, watermark: Watermark) -> Result<(), TaskError> {
        self.shared
            .metrics
            .input_watermark
            .store(watermark, Relaxed);
        self.shared.keyed.lock().watermark = watermark;
        loop {
            let due = self
                .shared
                .keyed
                .lock()
                .state
                .timers
                .pop_due_event(watermark, TIMERS_PER_CALL);
            let Some(due) = due else { break };
            self.fire(&due, watermark)?;
        }
        if self.spec().vertex().wants_watermarks {
            let progress = self.call(async |guest| guest.watermark(watermark).await)?;
            self.take(&progress, None)?;
        }
        self.shared.outputs.lock().await.watermark(watermark).await
    }

    /// Runs the processing-time timers that are due.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest or an output fails.
    pub(crate) fn fire_processing_timers(&mut self) -> Result<(), TaskError> {
        loop {
            let now = now_ms();
            let due = self
                .shared
                .keyed
                .lock()
                .state
                .timers
                .pop_due_processing(now, TIMERS_PER_CALL);
            let Some(due) = due else { return Ok(()) };
            self.fire(&due, now)?;
        }
    }

    fn fire(&mut self, due: &tidemill_types::TimerBatch, now: i64) -> Result<(), TaskError> {
        self.shared
            .metrics
            .fired_timers
            .fetch_add(due.len() as u64, Relaxed);
        let progress = self.call(async |guest| guest.fire_timers(due, now).await)?;
        self.take(&progress, None)
    }

    /// How long until the next processing-time timer is due, if there is one.
    pub(crate) fn next_timer_in(&self) -> Option<Duration> {
        let due = self
            .shared
            .keyed
            .lock()
            .state
            .timers
            .next_processing_time()?;
        Some(Duration::from_millis(
            u64::try_from(due.saturating_sub(now_ms())).unwrap_or(0),
        ))
    }

    /// Sends what has gathered for longer than the buffer time-out.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when an output fails.
    pub(crate) async fn flush_in_time(&mut self) -> Result<(), TaskError> {
        self.shared
            .outputs
            .lock()
            .await
            .flush_after(self.buffer_timeout)
            .await
    }

    /// Sends everything that has gathered: the task has nothing else to do.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when an output fails.
    pub(crate) async fn flush(&mut self) -> Result<(), TaskError> {
        self.shared.outputs.lock().await.flush().await
    }

    /// The barrier is here: writes down this subtask's part and sends the barrier on.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest or an output fails.
    pub(crate) async fn checkpoint(
        &mut self,
        barrier: &Barrier,
        source: Vec<SplitState>,
        alignment: Alignment,
    ) -> Result<(), TaskError> {
        let start = Instant::now();
        let operators = self.snapshot_guest(barrier.checkpoint)?;
        let sinks = {
            let mut outputs = self.shared.outputs.lock().await;
            outputs
                .broadcast(&Element::Barrier(barrier.clone()))
                .await?;
            outputs.prepare(barrier.checkpoint).await?
        };
        let keyed = self.snapshot_keyed();
        let state = SubtaskState {
            source,
            sinks,
            operators,
            keyed: Vec::new(),
        };
        let sync = start.elapsed();
        self.uploads.start(barrier, (state, keyed), alignment, sync);
        Ok(())
    }

    fn snapshot_keyed(&self) -> tidemill_state::Snapshot {
        self.shared.keyed.lock().state.snapshot(now_ms())
    }

    fn snapshot_guest(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<Vec<OperatorStatePart>, TaskError> {
        let states = self.call(async |guest| guest.snapshot(checkpoint.0).await)?;
        let vertex = self.spec().vertex();
        let part = |state: tidemill_runtime::OperatorState| {
            let declared = vertex.states.get(state.state as usize)?;
            let operator = vertex.operators.get(declared.operator as usize)?;
            Some(OperatorStatePart {
                operator_uid: operator.uid.clone(),
                state: declared.name.clone(),
                items: state.items,
            })
        };
        let items = states.iter().flat_map(|s| &s.items);
        let bytes: usize = items.map(|item| item.len() + ITEM_BYTES).sum();
        if bytes > OPERATOR_STATE_BYTES_MAX {
            return Err(TaskError::Invalid(format!(
                "the operator state of one subtask has {bytes} bytes; at most \
                 {OPERATOR_STATE_BYTES_MAX} are possible, keyed state has room for more"
            )));
        }
        let parts: Option<Vec<_>> = states.into_iter().map(part).collect();
        parts.ok_or_else(|| {
            TaskError::Invalid("the module returned a state that it did not plan".to_owned())
        })
    }

    /// A checkpoint that this task was part of is durable.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when a sink cannot commit or the guest fails.
    pub(crate) async fn complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.shared.outputs.lock().await.commit(checkpoint).await?;
        self.call(async |guest| guest.checkpoint_complete(checkpoint.0).await)
    }

    /// A checkpoint that this task was part of will never be.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest fails.
    pub(crate) fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        self.uploads.abort(checkpoint);
        self.call(async |guest| guest.checkpoint_aborted(checkpoint.0).await)
    }

    /// The input is at its end, and so is event time: writes and sends everything that is left.
    /// Returns what stands for this subtask in later checkpoints: positions, but no keyed state,
    /// since its results are out and nothing will ask for it again.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest or an output fails.
    pub(crate) async fn finish(
        &mut self,
        source: Vec<SplitState>,
    ) -> Result<SubtaskState, TaskError> {
        let operators = self.snapshot_guest(CheckpointId(0))?;
        self.shared.outputs.lock().await.finish().await?;
        self.uploads.drain().await;
        Ok(SubtaskState {
            source,
            sinks: Vec::new(),
            operators,
            keyed: Vec::new(),
        })
    }

    /// Tells the guest that one of its inputs has ended.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the guest fails.
    pub(crate) fn end_of_input(&mut self, input: u32) -> Result<(), TaskError> {
        let progress = self.call(async |guest| guest.end_of_input(input).await)?;
        self.take(&progress, None)
    }
}

/// The start of a rejected record, to find it by.
fn excerpt(batch: &Batch, record: u32) -> String {
    let value = batch
        .values
        .ends
        .get(record as usize)
        .map(|_| batch.values.bytes(record as usize));
    let Some(value) = value else {
        return String::new();
    };
    let start = &value[..value.len().min(EXCERPT_BYTES_MAX)];
    let more = if start.len() < value.len() { "…" } else { "" };
    format!(" `{}{more}`", String::from_utf8_lossy(start).escape_debug())
}

/// What the inputs of a task saw of a checkpoint before it began here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Alignment {
    /// From the first barrier to the last.
    pub(crate) duration: Duration,
    /// Bytes taken in meanwhile.
    pub(crate) processed_bytes: u64,
}
