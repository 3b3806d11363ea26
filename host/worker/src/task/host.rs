//! What a task shares with its guest, and the guest's view of it.
//!
//! The guest runs only while the task waits for a call to return, so the locks here are never
//! contended; they are there to prove it to the compiler.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_runtime::{Entries, HostError, Level, TaskHost};
use tidemill_state::{KeyedState, StateError, StateId};
use tidemill_types::{Batch, Column, NO_WATERMARK, TimerBatch, Watermark};
use tokio::sync::Mutex as AsyncMutex;

use super::{TaskError, outputs::Outputs};
use crate::metrics::TaskMetrics;

/// Keyed state and time of a task.
pub(crate) struct Keyed {
    pub(crate) state: KeyedState,
    pub(crate) watermark: Watermark,
}

/// Everything both a task and its guest touch.
pub(crate) struct Shared {
    pub(crate) outputs: AsyncMutex<Outputs>,
    pub(crate) keyed: Mutex<Keyed>,
    pub(crate) metrics: Arc<TaskMetrics>,
    /// What an import met: the cause of the trap that follows it.
    pub(crate) import_error: Mutex<Option<TaskError>>,
    /// For log lines.
    pub(crate) task_name: String,
}

impl Shared {
    pub(crate) fn new(
        outputs: Outputs,
        state: KeyedState,
        metrics: Arc<TaskMetrics>,
        task_name: String,
    ) -> Self {
        Self {
            outputs: AsyncMutex::new(outputs),
            keyed: Mutex::new(Keyed {
                state,
                watermark: NO_WATERMARK,
            }),
            metrics,
            import_error: Mutex::new(None),
            task_name,
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The guest's imports.
pub(crate) struct Host(pub(crate) Arc<Shared>);

fn violation(error: &StateError) -> HostError {
    HostError::Violation(error.to_string())
}

#[async_trait]
impl TaskHost for Host {
    async fn emit(&mut self, port: u32, batch: Batch) -> Result<(), HostError> {
        let emitted = self.0.outputs.lock().await.emit(port, batch).await;
        emitted.map_err(|error| match error {
            TaskError::Cancelled => HostError::Cancelled,
            error => {
                let text = error.to_string();
                *self.0.import_error.lock() = Some(error);
                HostError::Failed(text)
            }
        })
    }

    fn get_many(
        &mut self,
        state: u32,
        keys: &Column,
        subkeys: &Column,
    ) -> Result<Column, HostError> {
        let keyed = self.0.keyed.lock();
        keyed
            .state
            .store
            .get_many(StateId(state), keys, subkeys, now_ms())
            .map_err(|e| violation(&e))
    }

    fn put_many(&mut self, state: u32, entries: Entries) -> Result<(), HostError> {
        let Entries {
            keys,
            subkeys,
            values,
            expiries,
        } = entries;
        let mut keyed = self.0.keyed.lock();
        let put = keyed.state.store.put_many(
            StateId(state),
            &keys,
            &subkeys,
            &values,
            &expiries,
            now_ms(),
        );
        put.map_err(|e| violation(&e))
    }

    fn scan(
        &mut self,
        state: u32,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
    ) -> Result<Entries, HostError> {
        let mut keyed = self.0.keyed.lock();
        let page = keyed
            .state
            .store
            .scan(StateId(state), key, after, max_bytes, now_ms())
            .map_err(|e| violation(&e))?;
        let mut keys = Column::default();
        for _ in 0..page.subkeys.len() {
            keys.push(Some(key));
        }
        Ok(Entries {
            keys,
            subkeys: page.subkeys,
            values: page.values,
            expiries: page.expiries,
        })
    }

    fn set_timers(&mut self, timers: TimerBatch) -> Result<(), HostError> {
        self.0
            .keyed
            .lock()
            .state
            .timers
            .set_many(&timers)
            .map_err(|e| violation(&e))
    }

    fn delete_timers(&mut self, timers: TimerBatch) -> Result<(), HostError> {
        self.0
            .keyed
            .lock()
            .state
            .timers
            .delete_many(&timers)
            .map_err(|e| violation(&e))
    }

    fn current_watermark(&self) -> i64 {
        self.0.keyed.lock().watermark
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are approximate beyond 2^53"
    )]
    fn add_metric(&mut self, operator: u32, name: &str, delta: u64) {
        self.0
            .metrics
            .guest_metric(operator, name, |value| *value += delta as f64);
    }

    fn set_metric(&mut self, operator: u32, name: &str, value: f64) {
        self.0
            .metrics
            .guest_metric(operator, name, |slot| *slot = value);
    }

    fn log(&mut self, level: Level, operator: Option<u32>, message: &str) {
        let task = &self.0.task_name;
        match level {
            Level::Trace => tracing::trace!(target: "tidemill::guest", task, operator, "{message}"),
            Level::Debug => tracing::debug!(target: "tidemill::guest", task, operator, "{message}"),
            Level::Info => tracing::info!(target: "tidemill::guest", task, operator, "{message}"),
            Level::Warn => tracing::warn!(target: "tidemill::guest", task, operator, "{message}"),
            Level::Error => tracing::error!(target: "tidemill::guest", task, operator, "{message}"),
        }
    }
}
