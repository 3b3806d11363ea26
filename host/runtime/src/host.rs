//! What a guest may ask of its host, and the shapes that cross between worker and runtime.

use std::time::Duration;

use tidemill_types::{Batch, Column, JobId, TimerBatch};

/// What one task gives its guest. The worker implements it; every call comes from inside a call
/// of the guest, and its arguments are checked for shape (columns are valid, sizes are bounded)
/// but not for meaning: ports, state ids and keys are the implementation's to check.
#[async_trait::async_trait]
pub trait TaskHost: Send + 'static {
    /// Sends records out by a port, waiting for room. The wait does not count as the guest's
    /// time, and the future may be dropped when the call is interrupted.
    async fn emit(&mut self, port: u32, batch: Batch) -> Result<(), HostError>;

    /// Reads the entries of (key, sub-key) pairs; `subkeys` may be absent.
    fn get_many(
        &mut self,
        state: u32,
        keys: &Column,
        subkeys: &Column,
    ) -> Result<Column, HostError>;

    /// Writes entries. `expiries` is empty or has one per key.
    fn put_many(&mut self, state: u32, entries: Entries) -> Result<(), HostError>;

    /// The entries of one key after a sub-key.
    fn scan(
        &mut self,
        state: u32,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
    ) -> Result<Entries, HostError>;

    /// Sets timers.
    fn set_timers(&mut self, timers: TimerBatch) -> Result<(), HostError>;

    /// Deletes timers.
    fn delete_timers(&mut self, timers: TimerBatch) -> Result<(), HostError>;

    /// The task's watermark.
    fn current_watermark(&self) -> i64;

    /// Adds to a counter.
    fn add_metric(&mut self, operator: u32, name: &str, delta: u64);

    /// Sets a gauge.
    fn set_metric(&mut self, operator: u32, name: &str, value: f64);

    /// Writes a line to the task's log. The runtime has bounded the volume already.
    fn log(&mut self, level: Level, operator: Option<u32>, message: &str);
}

/// Why a host function did not do what the guest asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The guest broke the contract; the job fails.
    #[error("{0}")]
    Violation(String),
    /// The task is being cancelled.
    #[error("the task is cancelled")]
    Cancelled,
    /// The host itself failed (a connection, a store).
    #[error("{0}")]
    Failed(String),
}

/// Entries of one state, column by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Keys.
    pub keys: Column,
    /// Sub-keys; absent for states without.
    pub subkeys: Column,
    /// Values; a null deletes.
    pub values: Column,
    /// When each entry expires; empty if none does.
    pub expiries: Vec<i64>,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Trace,
    /// Details.
    Debug,
    /// Once in a while.
    Info,
    /// Healing.
    Warn,
    /// Someone must act.
    Error,
}

/// What a job is planned with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanRequest {
    /// Program arguments.
    pub args: Vec<String>,
    /// Configuration as submitted.
    pub config: Vec<(String, String)>,
}

/// Which subtask an instance becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRequest {
    /// Position in the planned graph.
    pub vertex: u32,
    /// The subtask.
    pub subtask: u32,
    /// How many there are.
    pub parallelism: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// 0 for the first run.
    pub attempt: u32,
    /// How much keyed state the guest may cache.
    pub cache_bytes: u64,
    /// Whether there is earlier state.
    pub restored: bool,
}

/// A record that an operator could not handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Position in the batch, below its length.
    pub record: u32,
    /// The operator, as the guest says.
    pub operator: u32,
    /// Why; bounded, without control characters.
    pub message: String,
}

/// What came of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The split's watermark.
    pub watermark: i64,
    /// Rejected records.
    pub rejected: Vec<Rejected>,
    /// Records in and out of each operator during the call: in, out, in, out, …
    pub counts: Vec<u64>,
}

/// State of an operator that belongs to no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorState {
    /// Position in the vertex's list of states.
    pub state: u32,
    /// Items that may be redistributed one by one.
    pub items: Vec<Vec<u8>>,
}

/// What one instance may use. Each limit has a test that reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memories and tables together.
    pub memory_bytes: u64,
    /// The guest's own time in one call, without its waiting in `emit`.
    pub call: Duration,
    /// What a guest may hand over in one call or one result.
    pub output_bytes: usize,
    /// Log lines and standard output per second; what exceeds it is dropped and counted.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            call: Duration::from_secs(30),
            output_bytes: tidemill_types::batch::BATCH_BYTES_MAX,
            log_bytes: 64 << 10,
        }
    }
}

/// What an instance sees of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestEnv {
    /// Seeds randomness until `open`.
    pub job: JobId,
    /// The clock until `open`, in milliseconds since the epoch.
    pub submitted_at_ms: i64,
}
