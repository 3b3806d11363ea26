//! Every key there is.

use std::time::Duration;

use super::{
    CheckpointMode, CheckpointRetention, ConfigValue, Key, KeyInfo, MemorySize, RejectedRecords,
    RestartStrategyKind,
};

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $scope:ident $name:ident: $t:ty = $key:literal, $default:literal;)*) => {
        $($(#[doc = $doc])+ pub const $name: Key<$t> = Key::new($key, $default);)*

        /// Every key, in the order of this file.
        pub const ALL: &[KeyInfo] = &[$(KeyInfo {
            name: $key,
            default: $default,
            doc: concat!($($doc),+),
            per_job: keys!(@per_job $scope),
            check: |text| <$t as ConfigValue>::parse(text).map(drop),
        }),*];
    };
    (@per_job job) => { true };
    (@per_job cluster) => { false };
}

keys! {
    /// Port of the REST API and the web UI. 0 picks a free one.
    cluster REST_PORT: u16 = "rest.port", "8081";
    /// Address that the REST API listens on. Other than loopback needs authentication.
    cluster REST_BIND_ADDRESS: String = "rest.bind-address", "127.0.0.1";
    /// Address that clients use to reach the REST API.
    cluster REST_ADDRESS: String = "rest.address", "127.0.0.1";
    /// The largest upload that is accepted.
    cluster REST_MAX_CONTENT_LENGTH: MemorySize = "rest.server.max-content-length", "100 mb";
    /// How long the result of an asynchronous operation can be asked for.
    cluster REST_ASYNC_STORE_DURATION: Duration = "rest.async.store-duration", "5 min";
    /// How often the web UI refreshes, in milliseconds.
    cluster WEB_REFRESH_INTERVAL: Duration = "web.refresh-interval", "3000 ms";
    /// Whether modules may be uploaded and run over REST.
    cluster WEB_SUBMIT_ENABLE: bool = "web.submit.enable", "true";
    /// Whether jobs may be cancelled from the web UI.
    cluster WEB_CANCEL_ENABLE: bool = "web.cancel.enable", "true";
    /// Where uploaded modules are kept. Empty: under the working directory of the coordinator.
    cluster WEB_UPLOAD_DIR: String = "web.upload.dir", "";
    /// How many checkpoints the REST API remembers of each job.
    cluster WEB_CHECKPOINTS_HISTORY: usize = "web.checkpoints.history", "10";
    /// How many failures the REST API remembers of each job.
    cluster WEB_EXCEPTION_HISTORY_SIZE: usize = "web.exception-history-size", "16";
    /// Address of the coordinator that workers and the CLI connect to.
    cluster JOBMANAGER_RPC_ADDRESS: String = "jobmanager.rpc.address", "127.0.0.1";
    /// Port of the coordinator that workers connect to.
    cluster JOBMANAGER_RPC_PORT: u16 = "jobmanager.rpc.port", "6123";
    /// Address that the coordinator's RPC port listens on.
    cluster JOBMANAGER_BIND_HOST: String = "jobmanager.bind-host", "127.0.0.1";
    /// How many finished jobs the coordinator remembers.
    cluster JOBSTORE_MAX_CAPACITY: usize = "jobstore.max-capacity", "1000";
    /// Address that other workers use to reach a worker.
    cluster TASKMANAGER_HOST: String = "taskmanager.host", "127.0.0.1";
    /// Address that a worker's data port listens on.
    cluster TASKMANAGER_BIND_HOST: String = "taskmanager.bind-host", "127.0.0.1";
    /// Port for data between workers. 0 picks a free one.
    cluster TASKMANAGER_DATA_PORT: u16 = "taskmanager.data.port", "0";
    /// Slots that a worker offers.
    cluster SLOTS: u32 = "taskmanager.numberOfTaskSlots", "1";
    /// How often a worker and the coordinator assure each other that they are alive.
    cluster HEARTBEAT_INTERVAL: Duration = "heartbeat.interval", "2 s";
    /// After how long a silent peer is given up. A closed connection is noticed at once.
    cluster HEARTBEAT_TIMEOUT: Duration = "heartbeat.timeout", "10 s";
    /// How long a job waits for slots before it fails.
    cluster SLOT_REQUEST_TIMEOUT: Duration = "slot.request.timeout", "5 min";
    /// Directory for temporary files and compiled code. Empty: the system's.
    cluster TMP_DIRS: String = "io.tmp.dirs", "";
    /// Parallelism of jobs that do not set one.
    job PARALLELISM: u32 = "parallelism.default", "1";
    /// The number of key groups; bounds the parallelism that state can be rescaled to.
    job MAX_PARALLELISM: u32 = "pipeline.max-parallelism", "128";
    /// Name of the job, in place of the one the module plans.
    job PIPELINE_NAME: Option<String> = "pipeline.name", "";
    /// Whether operators are chained where they can be.
    job OPERATOR_CHAINING: bool = "pipeline.operator-chaining.enabled", "true";
    /// How often watermarks are sent on. 0: with every batch.
    job AUTO_WATERMARK_INTERVAL: Duration = "pipeline.auto-watermark-interval", "200 ms";
    /// How long a record may wait in an output buffer for others to join it.
    job BUFFER_TIMEOUT: Duration = "execution.buffer-timeout.interval", "10 ms";
    /// Time between checkpoints. Empty: none.
    job CHECKPOINT_INTERVAL_OPTIONAL: Option<Duration> = "execution.checkpointing.interval", "";
    /// `EXACTLY_ONCE` aligns barriers, `AT_LEAST_ONCE` does not wait for them.
    job CHECKPOINT_MODE: CheckpointMode = "execution.checkpointing.mode", "EXACTLY_ONCE";
    /// After how long a checkpoint is given up.
    job CHECKPOINT_TIMEOUT: Duration = "execution.checkpointing.timeout", "10 min";
    /// Least time between the end of a checkpoint and the start of the next.
    job CHECKPOINT_MIN_PAUSE: Duration = "execution.checkpointing.min-pause", "0 ms";
    /// How many checkpoints may be under way at once.
    job CHECKPOINT_MAX_CONCURRENT: u32 = "execution.checkpointing.max-concurrent-checkpoints", "1";
    /// How many checkpoints in a row may fail before the job does.
    job CHECKPOINT_TOLERABLE_FAILURES: u32 = "execution.checkpointing.tolerable-failed-checkpoints", "0";
    /// How many completed checkpoints are kept.
    job CHECKPOINT_RETAINED: usize = "execution.checkpointing.num-retained", "1";
    /// What happens to checkpoints when a job is cancelled: `RETAIN_ON_CANCELLATION`, `DELETE_ON_CANCELLATION` or `NO_EXTERNALIZED_CHECKPOINTS`.
    job CHECKPOINT_RETENTION: CheckpointRetention = "execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION";
    /// Where checkpoints go: a path or URI. Empty: under the coordinator's working directory.
    job CHECKPOINTS_DIR: String = "execution.checkpointing.dir", "";
    /// Where savepoints go unless a directory is named.
    job SAVEPOINTS_DIR: String = "execution.checkpointing.savepoint-dir", "";
    /// What to do when a task fails: `none`, `fixed-delay`, `exponential-delay`, `failure-rate`.
    job RESTART_STRATEGY: Option<RestartStrategyKind> = "restart-strategy.type", "";
    /// How often the fixed-delay strategy restarts a job. Empty: without end.
    job RESTART_ATTEMPTS: Option<u32> = "restart-strategy.fixed-delay.attempts", "";
    /// How long the fixed-delay strategy waits.
    job RESTART_DELAY: Duration = "restart-strategy.fixed-delay.delay", "1 s";
    /// The first delay of the exponential-delay strategy.
    job RESTART_INITIAL_BACKOFF: Duration = "restart-strategy.exponential-delay.initial-backoff", "1 s";
    /// The longest delay of the exponential-delay strategy.
    job RESTART_MAX_BACKOFF: Duration = "restart-strategy.exponential-delay.max-backoff", "1 min";
    /// By how much the delay of the exponential-delay strategy grows with each failure.
    job RESTART_BACKOFF_MULTIPLIER: f64 = "restart-strategy.exponential-delay.backoff-multiplier", "1.5";
    /// After how long without failure the exponential-delay strategy starts from its first delay.
    job RESTART_RESET_BACKOFF_THRESHOLD: Duration = "restart-strategy.exponential-delay.reset-backoff-threshold", "1 h";
    /// Share of the delay of the exponential-delay strategy that is random, from 0 to 1.
    job RESTART_JITTER_FACTOR: f64 = "restart-strategy.exponential-delay.jitter-factor", "0.1";
    /// How often in a row the exponential-delay strategy restarts a job. Empty: without end.
    job RESTART_ATTEMPTS_BEFORE_RESET: Option<u32> = "restart-strategy.exponential-delay.attempts-before-reset-backoff", "";
    /// How many failures within its interval the failure-rate strategy bears.
    job RESTART_MAX_FAILURES_PER_INTERVAL: u32 = "restart-strategy.failure-rate.max-failures-per-interval", "1";
    /// The interval of the failure-rate strategy.
    job RESTART_FAILURE_RATE_INTERVAL: Duration = "restart-strategy.failure-rate.failure-rate-interval", "1 min";
    /// How long the failure-rate strategy waits.
    job RESTART_FAILURE_RATE_DELAY: Duration = "restart-strategy.failure-rate.delay", "1 s";
    /// Memory that one subtask's guest may use.
    job GUEST_MEMORY: MemorySize = "tidemill.guest.memory", "128 mb";
    /// Memory that the keyed state of one subtask may take in the worker.
    job STATE_MEMORY_LIMIT: MemorySize = "tidemill.state.memory-limit", "8 gb";
    /// Time that one call into a guest may take, without its waiting for the host.
    job GUEST_CALL_TIMEOUT: Duration = "tidemill.guest.call-timeout", "30 s";
    /// What happens to a record that an operator rejects: `fail` or `skip` (and count).
    job REJECTED_RECORDS: RejectedRecords = "tidemill.rejected-records", "fail";
    /// Whether windows are combined before the exchange where that cannot change results.
    job COMBINE: bool = "tidemill.pipeline.combine", "true";
    /// Bytes that may be under way in one channel between two subtasks.
    job CHANNEL_BYTES: MemorySize = "tidemill.network.channel-bytes", "128 kb";
    /// Time that one call into a guest is aimed at; batches are sized by it.
    job BATCH_TIME: Duration = "tidemill.batch.target-time", "5 ms";
    /// The most that a job may set `tidemill.guest.memory` to.
    cluster GUEST_MEMORY_MAX: MemorySize = "tidemill.guest.memory-max", "1 gb";
    /// The most that a job may set `tidemill.guest.call-timeout` to.
    cluster GUEST_CALL_TIMEOUT_MAX: Duration = "tidemill.guest.call-timeout-max", "10 min";
    /// The most that a job may set `tidemill.state.memory-limit` to.
    cluster STATE_MEMORY_LIMIT_MAX: MemorySize = "tidemill.state.memory-limit-max", "8 gb";
    /// The most that a job may set `tidemill.network.channel-bytes` to.
    cluster CHANNEL_BYTES_MAX: MemorySize = "tidemill.network.channel-bytes-max", "16 mb";
    /// Directory for compiled code. Empty: under `io.tmp.dirs`.
    cluster CODE_CACHE_DIR: String = "tidemill.code-cache.dir", "";
    /// Directory of everything the coordinator must keep. Empty: under `io.tmp.dirs`.
    cluster STORAGE_DIR: String = "tidemill.storage.dir", "";
    /// Time that compiling a module may take.
    cluster COMPILE_TIMEOUT: Duration = "tidemill.compile.timeout", "60 s";
    /// Time that planning a job may take.
    cluster PLAN_TIMEOUT: Duration = "tidemill.plan.timeout", "10 s";
    /// How guests are interrupted: `page` (Linux), `epoch`, or empty for the best there is.
    cluster INTERRUPTION: String = "tidemill.guest.interruption", "";
    /// How long a worker without a coordinator goes on before it stops its tasks.
    cluster COORDINATOR_LOSS_TIMEOUT: Duration = "tidemill.worker.coordinator-loss-timeout", "60 s";
}

/// [`CHECKPOINT_INTERVAL_OPTIONAL`] with a default for where one is needed.
pub const CHECKPOINT_INTERVAL: Key<Duration> = Key::new("execution.checkpointing.interval", "1 s");

/// Older or alternative spellings.
const ALIASES: &[(&str, &str)] = &[
    ("state.checkpoints.dir", "execution.checkpointing.dir"),
    (
        "state.savepoints.dir",
        "execution.checkpointing.savepoint-dir",
    ),
    (
        "state.checkpoints.num-retained",
        "execution.checkpointing.num-retained",
    ),
    ("restart-strategy", "restart-strategy.type"),
    (
        "execution.buffer-timeout",
        "execution.buffer-timeout.interval",
    ),
    (
        "pipeline.operator-chaining",
        "pipeline.operator-chaining.enabled",
    ),
    (
        "execution.checkpointing.externalized-checkpoint-retention.mode",
        "execution.checkpointing.externalized-checkpoint-retention",
    ),
];

/// Keys of Flink's that are accepted and do nothing: exact names, or families that end in a dot.
const WITHOUT_MEANING: &[&str] = &[
    "jobmanager.memory.",
    "taskmanager.memory.",
    "taskmanager.network.",
    "jobmanager.heap.size",
    "taskmanager.heap.size",
    "env.",
    "akka.",
    "pekko.",
    "blob.",
    "classloader.",
    "jmx.",
    "metrics.",
    "prom.class",
    "state.backend.",
    "state.backend",
    "jobmanager.execution.failover-strategy",
    "jobmanager.scheduler",
    "execution.target",
    "execution.attached",
    "rest.flamegraph.enabled",
    "rest.profiling.enabled",
    "rest.bind-port",
    "web.access-control-allow-origin",
    "web.tmpdir",
    "taskmanager.rpc.port",
    "security.kerberos.",
    "yarn.",
    "zookeeper.",
    "pipeline.object-reuse",
    "pipeline.jars",
    "pipeline.classpaths",
    "pipeline.serialization-config",
    "parallelism.max",
];

/// Families whose members are passed on as they are (credentials of storage).
const OPEN_ENDED: &[&str] = &["s3.", "s3a.", "fs.", "gs.", "azure."];

/// The key with this name or alias.
#[must_use]
pub fn find(name: &str) -> Option<&'static KeyInfo> {
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, name)| name);
    ALL.iter().find(|info| info.name == name)
}

pub(super) fn is_without_meaning(name: &str) -> bool {
    WITHOUT_MEANING
        .iter()
        .any(|known| *known == name || (known.ends_with('.') && name.starts_with(known)))
}

pub(super) fn is_open_ended(name: &str) -> bool {
    OPEN_ENDED
        .iter()
        .any(|prefix| name.starts_with(prefix) && name.len() > prefix.len())
}

pub(super) fn nearest(name: &str) -> Option<String> {
    let known = ALL
        .iter()
        .map(|info| info.name)
        .chain(ALIASES.iter().map(|(alias, _)| *alias));
    known
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned())
}
