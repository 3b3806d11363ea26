//! The life of a task that is fed by exchanges.
//!
//! Small batches of several channels are merged into one call of the guest; large ones are cut
//! into calls of the target time. A barrier that has reached all channels cuts the streams: what
//! came before it on each channel is in the checkpoint, what comes after is not.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use tidemill_checkpoint::{AlignDecision, Aligner, AlignmentMode, SubtaskState};
use tidemill_types::{
    Batch, CheckpointId, MAX_WATERMARK,
    config::{CheckpointMode, keys},
};

use super::{
    Control, TaskError,
    batch_size::BYTES_MAX,
    running::{Alignment, Running},
    setup::GateInput,
    watermarks::{Merged, Watermarks},
};
use crate::exchange::{Barrier, Element};

/// How often connectors are asked for their metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// A gate task.
pub(crate) struct GateLoop {
    task: Running,
    input: GateInput,
    aligner: Aligner,
    /// Barriers that have not reached all channels, with the time of their first arrival.
    barriers: BTreeMap<CheckpointId, Arriving>,
    watermarks: Watermarks,
    ended: Vec<bool>,
    idle: bool,
    /// Taken from a channel and not handled yet.
    deferred: Option<(usize, Element)>,
    metrics_taken: Instant,
}

struct Arriving {
    barrier: Barrier,
    since: Instant,
    bytes_before: u64,
}

enum Turn {
    Element(usize, Element),
    Control(Option<Control>),
    Tick,
}

impl GateLoop {
    pub(crate) fn new(task: Running, input: GateInput) -> Self {
        let channels = input.guest_inputs.len();
        let mode = task.spec().job.config.get(&keys::CHECKPOINT_MODE);
        let mode = match mode {
            CheckpointMode::AtLeastOnce => AlignmentMode::AtLeastOnce,
            CheckpointMode::ExactlyOnce => AlignmentMode::ExactlyOnce,
        };
        Self {
            aligner: Aligner::new(channels, mode),
            barriers: BTreeMap::new(),
            watermarks: Watermarks::of(channels),
            ended: vec![false; channels],
            idle: false,
            deferred: None,
            metrics_taken: Instant::now(),
            task,
            input,
        }
    }

    /// Runs until all inputs are at their end.
    ///
    /// # Errors
    ///
    /// [`TaskError`] of what went wrong.
    pub(crate) async fn run(mut self) -> Result<SubtaskState, TaskError> {
        loop {
            match self.next_turn().await? {
                Turn::Element(channel, element) => {
                    self.handle(channel, element).await?;
                    if self.ended.iter().all(|ended| *ended) {
                        return self.task.finish(Vec::new()).await;
                    }
                }
                Turn::Control(Some(control)) => self.control(control).await?,
                Turn::Control(None) => return Err(TaskError::Cancelled),
                Turn::Tick => {}
            }
            self.task.fire_processing_timers()?;
            self.task.flush_in_time().await?;
            self.take_metrics().await;
        }
    }

    async fn next_turn(&mut self) -> Result<Turn, TaskError> {
        if let Ok(control) = self.task.control.try_recv() {
            return Ok(Turn::Control(Some(control)));
        }
        if let Some((channel, element)) = self.deferred.take() {
            return Ok(Turn::Element(channel, element));
        }
        if let Some((channel, element)) = self.input.gate.try_next()? {
            return Ok(Turn::Element(channel, element));
        }
        self.task.flush().await?;
        let wait = self
            .task
            .next_timer_in()
            .map_or(METRICS_INTERVAL, |w| w.min(METRICS_INTERVAL));
        let cancelled = self.task.cancelled();
        let start = Instant::now();
        let turn = tokio::select! {
            biased;
            () = cancelled => Err(TaskError::Cancelled),
            control = self.task.control.recv() => Ok(Turn::Control(control)),
            next = self.input.gate.next() => {
                let (channel, element) = next?;
                Ok(Turn::Element(channel, element))
            }
            () = tokio::time::sleep(wait) => Ok(Turn::Tick),
        };
        self.task.shared.metrics.add_idle(start.elapsed());
        turn
    }

    async fn handle(&mut self, channel: usize, element: Element) -> Result<(), TaskError> {
        match element {
            Element::Batch(batch) => self.batch(channel, batch).await,
            Element::Watermark(watermark) => {
                self.watermarks.advance(channel, watermark);
                self.merge_watermarks().await
            }
            Element::WatermarkStatus { idle } => {
                self.watermarks.set_idle(channel, idle);
                self.merge_watermarks().await
            }
            Element::Barrier(barrier) => self.barrier(channel, barrier).await,
            Element::EndOfInput => self.end(channel).await,
        }
    }

    /// Merges what is there for the same input of the guest into one call, as far as it fits.
    async fn batch(&mut self, channel: usize, mut batch: Batch) -> Result<(), TaskError> {
        let input = self.input.guest_inputs[channel];
        let records_max = self.task.sizer.records();
        while batch.len() < records_max && batch.byte_size() < BYTES_MAX {
            match self.input.gate.try_next()? {
                Some((other, Element::Batch(more))) if self.input.guest_inputs[other] == input => {
                    batch.append(more);
                }
                Some(other) => {
                    self.deferred = Some(other);
                    break;
                }
                None => break,
            }
        }
        if batch.len() <= records_max {
            self.task.process(input, 0, &batch)?;
            return Ok(());
        }
        let mut start = 0;
        while start < batch.len() {
            let end = batch.len().min(start + self.task.sizer.records());
            self.task.process(input, 0, &batch.slice(start..end))?;
            start = end;
            self.task.flush_in_time().await?;
            self.between_calls().await?;
        }
        Ok(())
    }

    /// Long batches must not hold up what cannot wait.
    async fn between_calls(&mut self) -> Result<(), TaskError> {
        tokio::task::yield_now().await;
        while let Ok(control) = self.task.control.try_recv() {
            self.control(control).await?;
        }
        Ok(())
    }

    async fn merge_watermarks(&mut self) -> Result<(), TaskError> {
        if let Merged::Advanced(watermark) = self.watermarks.merge() {
            self.task.advance(watermark).await?;
        }
        let idle = self.watermarks.all_idle() && !self.ended.iter().all(|ended| *ended);
        if idle != self.idle {
            self.idle = idle;
            let status = Element::WatermarkStatus { idle };
            self.task
                .shared
                .outputs
                .lock()
                .await
                .broadcast(&status)
                .await?;
        }
        Ok(())
    }

    async fn barrier(&mut self, channel: usize, barrier: Barrier) -> Result<(), TaskError> {
        let checkpoint = barrier.checkpoint;
        let bytes_before = self.task.shared.metrics.bytes_in.load(Relaxed);
        self.barriers.entry(checkpoint).or_insert_with(|| Arriving {
            barrier,
            since: Instant::now(),
            bytes_before,
        });
        let decisions = self.aligner.barrier(channel, checkpoint);
        self.decide(decisions).await
    }

    async fn decide(&mut self, decisions: Vec<AlignDecision>) -> Result<(), TaskError> {
        for decision in decisions {
            match decision {
                AlignDecision::Block { channel } => self.input.gate.block(channel),
                AlignDecision::Complete { checkpoint, .. } => {
                    self.checkpoint(checkpoint).await?;
                    self.input.gate.unblock_all();
                }
                AlignDecision::Abort { checkpoint, .. } => {
                    self.barriers.remove(&checkpoint);
                    self.input.gate.unblock_all();
                }
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        let Some(arriving) = self.barriers.remove(&checkpoint) else {
            return Ok(());
        };
        self.barriers = self.barriers.split_off(&checkpoint);
        let bytes = self.task.shared.metrics.bytes_in.load(Relaxed) - arriving.bytes_before;
        let alignment = Alignment {
            duration: arriving.since.elapsed(),
            processed_bytes: bytes,
        };
        self.task
            .checkpoint(&arriving.barrier, Vec::new(), alignment)
            .await
    }

    async fn end(&mut self, channel: usize) -> Result<(), TaskError> {
        self.ended[channel] = true;
        self.watermarks.advance(channel, MAX_WATERMARK);
        self.merge_watermarks().await?;
        let input = self.input.guest_inputs[channel];
        let same_input = self.input.guest_inputs.iter().zip(&self.ended);
        if same_input
            .filter(|(i, _)| **i == input)
            .all(|(_, ended)| *ended)
        {
            self.task.end_of_input(input)?;
        }
        let decisions = self.aligner.channel_ended(channel);
        self.decide(decisions).await
    }

    async fn control(&mut self, control: Control) -> Result<(), TaskError> {
        match control {
            // Barriers reach this task through its channels.
            Control::Trigger(_) => Ok(()),
            Control::Complete(checkpoint) => self.task.complete(checkpoint).await,
            Control::Aborted(checkpoint) => {
                let decisions = self.aligner.cancelled(checkpoint);
                self.decide(decisions).await?;
                self.task.aborted(checkpoint)
            }
        }
    }

    async fn take_metrics(&mut self) {
        if self.metrics_taken.elapsed() < METRICS_INTERVAL {
            return;
        }
        self.metrics_taken = Instant::now();
        let metrics = &self.task.shared.metrics;
        metrics.set_connector(self.task.shared.outputs.lock().await.metrics());
        metrics
            .input_queue_bytes
            .store(self.input.gate.queued_bytes() as u64, Relaxed);
    }
}
