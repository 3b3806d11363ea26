//! Where a task's records go: sinks, and exchanges to other tasks.
//!
//! Each port of the guest leads to one sink or to any number of edges. Records for an edge are
//! partitioned and gathered per target; a target's batch leaves when it is large enough, when the
//! task would otherwise idle, or when the buffer time-out has passed.
//!
//! # Invariants
//!
//! 1. Barriers, watermarks and ends follow everything emitted before them, on every channel.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tidemill_checkpoint::SinkState;
use tidemill_connectors::Sink;
use tidemill_types::{Batch, CheckpointId, Watermark};
use tokio_util::sync::CancellationToken;

use super::{TaskError, error::Port};
use crate::{
    exchange::{ChannelSender, Element, Partitioner},
    metrics::TaskMetrics,
};

/// All outputs of a task.
pub(crate) struct Outputs {
    ports: Vec<Output>,
    /// When the oldest record that has not left came in.
    gathering_since: Option<Instant>,
    metrics: Arc<TaskMetrics>,
    cancel: CancellationToken,
}

enum Output {
    Unconnected,
    Sink(SinkOutput),
    Edges(Vec<EdgeOutput>),
}

pub(crate) struct SinkOutput {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) sink: Box<dyn Sink>,
}

pub(crate) struct EdgeOutput {
    pub(crate) partitioner: Partitioner,
    pub(crate) channels: Vec<ChannelSender>,
}

impl Outputs {
    pub(crate) fn new(metrics: Arc<TaskMetrics>, cancel: CancellationToken) -> Self {
        Self {
            ports: Vec::new(),
            gathering_since: None,
            metrics,
            cancel,
        }
    }

    pub(crate) fn add_sink(&mut self, port: u32, sink: SinkOutput) {
        *self.slot(port) = Output::Sink(sink);
    }

    pub(crate) fn add_edge(&mut self, port: u32, edge: EdgeOutput) {
        match self.slot(port) {
            Output::Edges(edges) => edges.push(edge),
            slot => *slot = Output::Edges(vec![edge]),
        }
    }

    fn slot(&mut self, port: u32) -> &mut Output {
        let port = port as usize;
        while self.ports.len() <= port {
            self.ports.push(Output::Unconnected);
        }
        &mut self.ports[port]
    }

    /// Takes records from the guest; waits when there is no room.
    ///
    /// # Errors
    ///
    /// [`TaskError::NoSuchPort`] when the guest made the port up.
    pub(crate) async fn emit(&mut self, port: u32, batch: Batch) -> Result<(), TaskError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.metrics
            .records_out
            .fetch_add(batch.len() as u64, Relaxed);
        self.metrics
            .bytes_out
            .fetch_add(batch.byte_size() as u64, Relaxed);
        match self.ports.get_mut(port as usize) {
            Some(Output::Sink(output)) => {
                let write = output.sink.write(batch);
                waiting(&self.metrics, &self.cancel, write)
                    .await?
                    .map_err(|source| TaskError::Sink {
                        name: output.name.clone(),
                        source,
                    })
            }
            Some(Output::Edges(edges)) => {
                let last = edges.len() - 1;
                for edge in &mut edges[..last] {
                    edge.accept(batch.clone(), &self.metrics, &self.cancel)
                        .await?;
                }
                edges[last]
                    .accept(batch, &self.metrics, &self.cancel)
                    .await?;
                self.gathering_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            Some(Output::Unconnected) | None => Err(TaskError::NoSuchPort(Port(port))),
        }
    }

    /// Sends what has gathered, if the oldest of it has waited for `timeout`.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the other side is gone.
    pub(crate) async fn flush_after(&mut self, timeout: Duration) -> Result<(), TaskError> {
        match self.gathering_since {
            Some(since) if since.elapsed() >= timeout => self.flush().await,
            _ => Ok(()),
        }
    }

    /// Sends everything that has gathered.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the other side is gone.
    pub(crate) async fn flush(&mut self) -> Result<(), TaskError> {
        if self.gathering_since.take().is_none() {
            return Ok(());
        }
        for port in &mut self.ports {
            let Output::Edges(edges) = port else { continue };
            for edge in edges {
                edge.send_all(&self.metrics, &self.cancel).await?;
            }
        }
        Ok(())
    }

    /// Sends an element to every channel, after everything that was emitted before.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the other side is gone.
    pub(crate) async fn broadcast(&mut self, element: &Element) -> Result<(), TaskError> {
        self.flush().await?;
        if let Element::Watermark(watermark) = element {
            self.metrics.output_watermark.store(*watermark, Relaxed);
        }
        for port in &mut self.ports {
            let Output::Edges(edges) = port else { continue };
            for channel in edges.iter_mut().flat_map(|edge| &mut edge.channels) {
                let send = channel.send(element.clone());
                waiting(&self.metrics, &self.cancel, send).await??;
            }
        }
        Ok(())
    }

    /// Makes everything that was written to sinks part of the checkpoint.
    ///
    /// # Errors
    ///
    /// [`TaskError::Sink`] when a sink could not write.
    pub(crate) async fn prepare(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<Vec<SinkState>, TaskError> {
        let mut states = Vec::new();
        for port in &mut self.ports {
            let Output::Sink(output) = port else { continue };
            let prepared = waiting(&self.metrics, &self.cancel, output.sink.prepare(checkpoint));
            let committables = prepared.await?.map_err(|source| TaskError::Sink {
                name: output.name.clone(),
                source,
            })?;
            if !committables.is_empty() {
                states.push(SinkState {
                    uid: output.uid.clone(),
                    committables,
                });
            }
        }
        Ok(states)
    }

    /// Makes visible what was prepared.
    ///
    /// # Errors
    ///
    /// [`TaskError::Sink`] when a sink could not commit.
    pub(crate) async fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        for port in &mut self.ports {
            let Output::Sink(output) = port else { continue };
            output
                .sink
                .commit(checkpoint)
                .await
                .map_err(|source| TaskError::Sink {
                    name: output.name.clone(),
                    source,
                })?;
        }
        Ok(())
    }

    /// The input is at its end: the last watermark is behind us, nothing more will be emitted.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when what is left cannot be sent or written.
    pub(crate) async fn finish(&mut self) -> Result<(), TaskError> {
        self.broadcast(&Element::EndOfInput).await?;
        for port in &mut self.ports {
            let Output::Sink(output) = port else { continue };
            let finished = waiting(&self.metrics, &self.cancel, output.sink.finish());
            finished.await?.map_err(|source| TaskError::Sink {
                name: output.name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Metrics of the sinks.
    pub(crate) fn metrics(&self) -> Vec<(String, f64)> {
        let sinks = self.ports.iter().filter_map(|port| match port {
            Output::Sink(output) => Some(output),
            Output::Unconnected | Output::Edges(_) => None,
        });
        sinks
            .flat_map(|output| {
                let name = output.name.replace(' ', "_");
                output
                    .sink
                    .metrics()
                    .into_iter()
                    .map(move |(metric, v)| (format!("{name}.{metric}"), v))
            })
            .collect()
    }

    /// Sends a watermark on.
    ///
    /// # Errors
    ///
    /// [`TaskError`] when the other side is gone.
    pub(crate) async fn watermark(&mut self, watermark: Watermark) -> Result<(), TaskError> {
        self.broadcast(&Element::Watermark(watermark)).await
    }
}

impl EdgeOutput {
    async fn accept(
        &mut self,
        batch: Batch,
        metrics: &TaskMetrics,
        cancel: &CancellationToken,
    ) -> Result<(), TaskError> {
        self.partitioner.accumulate(batch)?;
        while let Some((target, batch)) = self.partitioner.take_ready() {
            let send = self.channels[target].send(Element::Batch(batch));
            waiting(metrics, cancel, send).await??;
        }
        Ok(())
    }

    async fn send_all(
        &mut self,
        metrics: &TaskMetrics,
        cancel: &CancellationToken,
    ) -> Result<(), TaskError> {
        for (target, batch) in self.partitioner.take_all() {
            let send = self.channels[target].send(Element::Batch(batch));
            waiting(metrics, cancel, send).await??;
        }
        Ok(())
    }
}

/// Waits for room, counts the time as backpressure, and gives up when the task is cancelled.
async fn waiting<T>(
    metrics: &TaskMetrics,
    cancel: &CancellationToken,
    future: impl Future<Output = T>,
) -> Result<T, TaskError> {
    let mut future = std::pin::pin!(future);
    if let std::task::Poll::Ready(done) = futures::poll!(future.as_mut()) {
        return Ok(done);
    }
    let start = Instant::now();
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(TaskError::Cancelled),
        done = future => Ok(done),
    };
    metrics.add_backpressured(start.elapsed());
    result
}
