//! The life of a task that reads from a source.

use std::{
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::{Duration, Instant},
};

use tidemill_checkpoint::{SplitState, SubtaskState};
use tidemill_connectors::{BatchBudget, ConnectorError, SourceEvent};
use tidemill_types::CheckpointId;

use super::{
    Control, TaskError,
    batch_size::BYTES_MAX,
    running::{Alignment, Running},
    setup::SourceInput,
    watermarks::{Merged, Silence, Watermarks},
};
use crate::exchange::{Barrier, Element};

/// How often connectors are asked for their metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// The longest wait of an idle task, so that silence and metrics are looked at.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// A source task.
pub(crate) struct SourceLoop {
    task: Running,
    input: SourceInput,
    watermarks: Watermarks,
    silence: Silence,
    /// The source has nothing more for now, as it says itself.
    caught_up: bool,
    idle: bool,
    watermark_interval: Duration,
    watermark_sent: Instant,
    metrics_taken: Instant,
}

/// What to do next.
enum Turn {
    Event(Result<SourceEvent, ConnectorError>),
    Control(Option<Control>),
    Tick,
}

impl SourceLoop {
    pub(crate) fn new(task: Running, input: SourceInput) -> Self {
        let now = Instant::now();
        Self {
            watermarks: Watermarks::new(),
            silence: Silence::new(input.binding.idle_timeout_ms.map(Duration::from_millis)),
            caught_up: false,
            idle: false,
            watermark_interval: task.spec().watermark_interval(),
            watermark_sent: now,
            metrics_taken: now,
            task,
            input,
        }
    }

    /// Runs until the source is at its end.
    ///
    /// # Errors
    ///
    /// [`TaskError`] of what went wrong.
    pub(crate) async fn run(mut self) -> Result<SubtaskState, TaskError> {
        loop {
            let start = Instant::now();
            let waited = self.task.shared.metrics.backpressured();
            match self.next_turn().await? {
                Turn::Event(event) => {
                    let event = event.map_err(|source| self.source_error(source))?;
                    if matches!(event, SourceEvent::Finished) {
                        return self.finish().await;
                    }
                    self.handle(event).await?;
                }
                Turn::Control(Some(control)) => {
                    if self.control(control).await? {
                        return self.finish().await;
                    }
                }
                Turn::Control(None) => return Err(TaskError::Cancelled),
                Turn::Tick => {}
            }
            self.task.fire_processing_timers()?;
            self.task.flush_in_time().await?;
            let blocked = self.task.shared.metrics.backpressured() - waited;
            self.pass_time(start.elapsed().saturating_sub(blocked));
            self.send_watermark().await?;
            self.take_metrics().await;
        }
    }

    /// The next thing to do: without waiting if there is one, otherwise after everything that has
    /// gathered has been sent.
    async fn next_turn(&mut self) -> Result<Turn, TaskError> {
        if let Ok(control) = self.task.control.try_recv() {
            return Ok(Turn::Control(Some(control)));
        }
        let budget = BatchBudget {
            records: self.task.sizer.records(),
            bytes: BYTES_MAX,
        };
        let cancelled = self.task.cancelled();
        {
            let mut next = self.input.source.next(budget);
            if let Poll::Ready(event) = futures::poll!(next.as_mut()) {
                return Ok(Turn::Event(event));
            }
        }
        self.task.flush().await?;
        let wait = self
            .task
            .next_timer_in()
            .map_or(WAIT_MAX, |due| due.min(WAIT_MAX));
        let wait = wait.min(self.watermark_interval.max(Duration::from_millis(1)));
        let start = Instant::now();
        let turn = tokio::select! {
            biased;
            () = cancelled => Err(TaskError::Cancelled),
            control = self.task.control.recv() => Ok(Turn::Control(control)),
            event = self.input.source.next(budget) => Ok(Turn::Event(event)),
            () = tokio::time::sleep(wait) => Ok(Turn::Tick),
        };
        self.task.shared.metrics.add_idle(start.elapsed());
        turn
    }

    async fn handle(&mut self, event: SourceEvent) -> Result<(), TaskError> {
        match event {
            SourceEvent::Batch { split, batch } => {
                self.caught_up = false;
                let watermark = self.task.process(0, split, &batch)?;
                let split = split as usize;
                self.watermarks.advance(split, watermark);
                self.silence.break_off(split);
                if self.watermark_interval.is_zero() {
                    self.send_watermark().await?;
                }
            }
            SourceEvent::SplitStarted { split, name } => {
                tracing::debug!(
                    task = self.task.shared.task_name,
                    split,
                    name,
                    "split started"
                );
                self.caught_up = false;
                self.watermarks.add(split as usize);
                self.silence.add(split as usize);
            }
            SourceEvent::SplitFinished { split } => {
                self.watermarks.remove(split as usize);
                self.silence.remove(split as usize);
            }
            SourceEvent::CaughtUp => self.caught_up = true,
            SourceEvent::Finished => {}
        }
        Ok(())
    }

    /// Returns whether the source is to stop.
    async fn control(&mut self, control: Control) -> Result<bool, TaskError> {
        match control {
            Control::Trigger(barrier) => {
                self.checkpoint(&barrier).await?;
                Ok(barrier.stop)
            }
            Control::Complete(checkpoint) => {
                self.task.complete(checkpoint).await?;
                let told = self.input.source.checkpoint_complete(checkpoint).await;
                told.map_err(|source| self.source_error(source))?;
                Ok(false)
            }
            Control::Aborted(checkpoint) => {
                self.task.aborted(checkpoint)?;
                Ok(false)
            }
        }
    }

    async fn checkpoint(&mut self, barrier: &Barrier) -> Result<(), TaskError> {
        if barrier.drain
            && let Merged::Advanced(watermark) = self.watermarks.end()
        {
            self.task.advance(watermark).await?;
        }
        let splits = self.splits(barrier.checkpoint)?;
        self.task
            .checkpoint(barrier, splits, Alignment::default())
            .await
    }

    fn splits(&mut self, checkpoint: CheckpointId) -> Result<Vec<SplitState>, TaskError> {
        let snapshot = self.input.source.snapshot(checkpoint);
        let splits = snapshot.map_err(|source| self.source_error(source))?;
        let split = |s: tidemill_connectors::SplitState| SplitState {
            split: s.split,
            state: s.state,
        };
        Ok(splits.into_iter().map(split).collect())
    }

    fn pass_time(&mut self, time: Duration) {
        for split in self.silence.pass(time) {
            let number = u32::try_from(split).expect("sources number their splits by 32 bits");
            // Its records may still be on their way, after a restart for example.
            if !self.input.source.is_behind(number) {
                self.watermarks.set_idle(split, true);
            }
        }
    }

    async fn send_watermark(&mut self) -> Result<(), TaskError> {
        if self.watermark_sent.elapsed() < self.watermark_interval {
            return Ok(());
        }
        self.watermark_sent = Instant::now();
        if let Merged::Advanced(watermark) = self.watermarks.merge() {
            self.task.advance(watermark).await?;
        }
        // Between two splits a source is not idle: the next one may hold earlier records.
        let idle = self.watermarks.all_idle() && (self.caught_up || !self.watermarks.is_empty());
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

    async fn take_metrics(&mut self) {
        if self.metrics_taken.elapsed() < METRICS_INTERVAL {
            return;
        }
        self.metrics_taken = Instant::now();
        let name = self.input.binding.name.replace(' ', "_");
        let own = self.input.source.metrics().into_iter();
        let mut metrics: Vec<_> = own
            .map(|(m, value)| (format!("{name}.{m}"), value))
            .collect();
        metrics.extend(self.task.shared.outputs.lock().await.metrics());
        self.task.shared.metrics.set_connector(metrics);
        self.task.shared.metrics.input_queue_bytes.store(0, Relaxed);
    }

    async fn finish(mut self) -> Result<SubtaskState, TaskError> {
        let splits = self.splits(CheckpointId(0))?;
        if let Merged::Advanced(watermark) = self.watermarks.end() {
            self.task.advance(watermark).await?;
        }
        self.task.end_of_input(0)?;
        self.task.finish(splits).await
    }

    fn source_error(&self, source: ConnectorError) -> TaskError {
        TaskError::Source {
            name: self.input.binding.name.clone(),
            source,
        }
    }
}
