//! One subtask, from its deployment to its final state.
//!
//! [`run`] sets everything up (module, guest, state, connectors, channels), then hands over to
//! `source_loop` or `gate_loop`; what both do to a guest and its outputs is in `running`.
//!
//! A call into the guest runs under `block_in_place`, so that the other tasks of the thread move
//! to another one: however long a guest computes, its neighbours go on.

mod batch_size;
mod checkpoint;
mod error;
mod gate_loop;
mod host;
mod outputs;
mod running;
mod setup;
mod source_loop;
mod spec;
mod topology;
mod watermarks;

use std::sync::Arc;

use tidemill_checkpoint::SubtaskState;
use tidemill_connectors::Registry;
use tidemill_protocol::control::{WorkerMessage, coordinator_client::CoordinatorClient};
use tidemill_types::CheckpointId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub(crate) use error::TaskError;
pub(crate) use host::now_ms;
pub(crate) use spec::{JobSpec, TaskSpec};

use crate::{
    exchange::{Barrier, ExchangeService},
    metrics::TaskMetrics,
    modules::Modules,
};

/// What a task is told while it runs.
#[derive(Debug, Clone)]
pub(crate) enum Control {
    /// To sources: start this checkpoint.
    Trigger(Barrier),
    /// A checkpoint is durable.
    Complete(CheckpointId),
    /// A checkpoint will never be.
    Aborted(CheckpointId),
}

/// What a task needs of its worker.
#[derive(Clone)]
pub(crate) struct TaskContext {
    pub(crate) spec: TaskSpec,
    pub(crate) worker_id: Arc<str>,
    pub(crate) modules: Arc<Modules>,
    pub(crate) coordinator: CoordinatorClient<Channel>,
    pub(crate) exchange: Arc<ExchangeService>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<TaskMetrics>,
    /// To the coordinator.
    pub(crate) events: mpsc::Sender<WorkerMessage>,
    pub(crate) cancel: CancellationToken,
}

/// How a task ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its input is at its end and everything is written.
    Finished(Box<SubtaskState>),
    /// It was told to stop.
    Canceled,
    /// Something went wrong.
    Failed(TaskError),
}

/// Runs a task to its end. `running` is called when everything is set up.
pub(crate) async fn run(
    cx: TaskContext,
    control: mpsc::Receiver<Control>,
    running: impl AsyncFnOnce(),
) -> Outcome {
    let cancel = cx.cancel.clone();
    match run_to_end(cx, control, running).await {
        Ok(state) => Outcome::Finished(Box::new(state)),
        Err(_) if cancel.is_cancelled() => Outcome::Canceled,
        Err(TaskError::Cancelled) => Outcome::Canceled,
        Err(error) => Outcome::Failed(error),
    }
}

async fn run_to_end(
    cx: TaskContext,
    control: mpsc::Receiver<Control>,
    running: impl AsyncFnOnce(),
) -> Result<SubtaskState, TaskError> {
    let cancel = cx.cancel.clone();
    let (task, input) = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(TaskError::Cancelled),
        ready = setup::set_up(cx, control) => ready?,
    };
    running().await;
    match input {
        setup::Input::Source(source) => source_loop::SourceLoop::new(task, source).run().await,
        setup::Input::Gate(gate) => gate_loop::GateLoop::new(task, gate).run().await,
    }
}
