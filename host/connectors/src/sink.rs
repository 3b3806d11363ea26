//! What a task drives to get records out.
//!
//! # Order of calls
//!
//! `write`* , then at a barrier `prepare`, later `commit` of that checkpoint (or of a later one,
//! which includes it), in between more `write`s. At the end of the input `finish`, after which
//! only `prepare` and `commit` may follow. Without checkpoints there is only `write` and `finish`.

use async_trait::async_trait;
use tidemill_types::{Attempt, Batch, CheckpointId, JobId, TenantId};

use crate::ConnectorError;

/// Who writes.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The job.
    pub job: JobId,
    /// Its owner.
    pub tenant: TenantId,
    /// The vertex that feeds the sink.
    pub vertex_uid: String,
    /// The sink.
    pub sink_uid: String,
    /// This parallel instance.
    pub subtask: u32,
    /// How many there are.
    pub parallelism: u32,
    /// How many there can be.
    pub max_parallelism: u32,
    /// Which deployment of the job this is.
    pub attempt: Attempt,
}

/// Writes records. One subtask drives one sink.
#[async_trait]
pub trait Sink: Send {
    /// Takes records. Waits while the other side is slower (this is its backpressure).
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when records cannot be written, also ones taken earlier.
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectorError>;

    /// A barrier: everything taken is written and acknowledged when this returns. What is returned
    /// goes into the checkpoint and is needed to commit it, also by another process: all that has
    /// not been committed, also what was prepared for checkpoints that may never be complete.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when anything taken so far was not written.
    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<Vec<u8>>, ConnectorError>;

    /// The checkpoint is durable: makes visible what was prepared for it and for earlier ones.
    /// Repeating it does no harm.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when that cannot be done.
    async fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), ConnectorError>;

    /// The end of the input: everything taken is written and acknowledged when this returns.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] when anything taken so far was not written.
    async fn finish(&mut self) -> Result<(), ConnectorError>;

    /// Metrics by name.
    fn metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}
