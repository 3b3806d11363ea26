//! Hand-made guests: a core module in text form, wrapped as a component of the job world.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test target uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

pub mod job;
pub mod task;

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use tempfile::TempDir;
use tidemill_runtime::{
    Entries, Guest, GuestEnv, GuestError, HostError, Interruption, Level, Limits, Runtime,
    RuntimeConfig, TaskHost,
};
use tidemill_types::{Batch, BatchBuilder, Column, JobId, TimerBatch};

/// Both mechanisms; every test runs under each.
pub const MECHANISMS: [Interruption; 2] = [Interruption::Page, Interruption::Epoch];

const FUNCTIONS: [(&str, &str); 12] = [
    ("planner@0.1.0#plan", "(param i32 i32 i32 i32) (result i32)"),
    (
        "task@0.1.0#open",
        "(param i32 i32 i32 i32 i32 i64 i32) (result i32)",
    ),
    ("task@0.1.0#restore", "(param i32 i32) (result i32)"),
    ("task@0.1.0#process", "(param $p i32) (result i32)"),
    ("task@0.1.0#watermark", "(param i64) (result i32)"),
    ("task@0.1.0#fire-timers", "(param $p i32) (result i32)"),
    ("task@0.1.0#end-of-input", "(param i32) (result i32)"),
    ("task@0.1.0#snapshot", "(param i64) (result i32)"),
    ("task@0.1.0#checkpoint-complete", "(param i64) (result i32)"),
    ("task@0.1.0#checkpoint-aborted", "(param i64) (result i32)"),
    ("task@0.1.0#poll-source", "(param i32) (result i32)"),
    (
        "task@0.1.0#completions",
        "(param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)",
    ),
];

/// What every guest has: imports, an allocator, and 1 KiB of zeros at 1024, which reads as "ok".
const PRELUDE: &str = r#"
  (import "tidemill:job/output@0.1.0" "emit" (func $emit (param i32)))
  (import "tidemill:job/state@0.1.0" "get-many" (func $get_many
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "tidemill:job/state@0.1.0" "put-many" (func $put_many (param i32)))
  (import "tidemill:job/timers@0.1.0" "set-many" (func $set_timers
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "tidemill:job/metrics@0.1.0" "add" (func $add_metric (param i32 i32 i32 i64)))
  (import "tidemill:job/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "tidemill:job/logging@0.1.0" "panicked" (func $panicked (param i32 i32 i32 i32)))
  (global $top (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow (i32.add (i32.const 1)
        (i32.div_u (local.get 3) (i32.const 65536)))))))
    (local.get $at))
"#;

/// A guest whose exports do nothing, except for those given by (export, body), and with further
/// definitions. Within a body, `ok` is the address of a successful empty result.
pub fn guest(bodies: &[(&str, &str)], extra: &str) -> Vec<u8> {
    guest_with_memory(bodies, extra, r#"(memory (export "memory") 4)"#)
}

pub fn guest_with_memory(bodies: &[(&str, &str)], extra: &str, memory: &str) -> Vec<u8> {
    let mut text = format!("(module {PRELUDE} {memory} {extra}\n");
    for (export, signature) in FUNCTIONS {
        let body = bodies
            .iter()
            .find(|(name, _)| export.ends_with(&format!("#{name}")));
        let body = body
            .map_or("ok", |(_, body)| body)
            .replace("ok", "(i32.const 1024)");
        let short = export.split('#').next_back().unwrap();
        text += &format!("(func ${short} (export \"tidemill:job/{export}\") {signature} {body})\n");
    }
    text += ")";
    component(&text, &[])
}

/// Wraps a core module. `worlds` are further WIT packages (path, text) it may import from.
pub fn component(module: &str, _worlds: &[(&str, &str)]) -> Vec<u8> {
    let mut module = wat::parse_str(module).expect("the test's module is well-formed");
    let mut resolve = wit_parser::Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/job.wit");
    let package = resolve.push_file(wit).unwrap();
    let world = resolve.select_world(&[package], Some("job")).unwrap();
    wit_component::embed_component_metadata(
        &mut module,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
    )
    .unwrap();
    let mut encoder = wit_component::ComponentEncoder::default()
        .module(&module)
        .unwrap();
    encoder.encode().unwrap()
}

/// What a guest did to its host.
#[derive(Debug, Default)]
pub struct Seen {
    pub emitted: Vec<(u32, Batch)>,
    pub logs: Vec<(Level, String)>,
    pub timers: usize,
    pub metrics: Vec<(u32, String, u64)>,
}

/// Records everything; can make `emit` wait for ever.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    pub seen: Arc<Mutex<Seen>>,
    pub emit_blocks: bool,
}

#[async_trait::async_trait]
impl TaskHost for Recorder {
    async fn emit(&mut self, port: u32, batch: Batch) -> Result<(), HostError> {
        if self.emit_blocks {
            std::future::pending::<()>().await;
        }
        if port > 1 {
            return Err(HostError::Violation(format!("port {port} of 2")));
        }
        let mut seen = self.seen.lock();
        // Floods are counted, not kept.
        if seen.emitted.len() < 100 {
            seen.emitted.push((port, batch));
        }
        Ok(())
    }

    fn get_many(&mut self, state: u32, keys: &Column, _: &Column) -> Result<Column, HostError> {
        if state > 0 {
            return Err(HostError::Violation(format!("state {state} of 1")));
        }
        let mut values = Column::default();
        (0..keys.len()).for_each(|_| values.push(None));
        Ok(values)
    }

    fn put_many(&mut self, _: u32, _: Entries) -> Result<(), HostError> {
        Ok(())
    }

    fn scan(&mut self, _: u32, _: &[u8], _: Option<&[u8]>, _: u32) -> Result<Entries, HostError> {
        Ok(Entries::default())
    }

    fn set_timers(&mut self, timers: TimerBatch) -> Result<(), HostError> {
        self.seen.lock().timers += timers.len();
        Ok(())
    }

    fn delete_timers(&mut self, _: TimerBatch) -> Result<(), HostError> {
        Ok(())
    }

    fn current_watermark(&self) -> i64 {
        tidemill_types::NO_WATERMARK
    }

    fn add_metric(&mut self, operator: u32, name: &str, delta: u64) {
        self.seen
            .lock()
            .metrics
            .push((operator, name.to_owned(), delta));
    }

    fn set_metric(&mut self, _: u32, _: &str, _: f64) {}

    fn log(&mut self, level: Level, _: Option<u32>, message: &str) {
        self.seen.lock().logs.push((level, message.to_owned()));
    }
}

/// A runtime with a cache of its own.
pub struct Bench {
    pub runtime: Runtime,
    pub dir: TempDir,
}

impl Bench {
    pub fn new(interruption: Interruption) -> Self {
        let dir = TempDir::new().unwrap();
        let config = RuntimeConfig {
            interruption,
            ..RuntimeConfig::new(dir.path().join("code"))
        };
        Self {
            runtime: Runtime::new(config).unwrap(),
            dir,
        }
    }

    /// Compiles and instantiates.
    pub async fn start(
        &self,
        component: &[u8],
        limits: Limits,
        host: &Recorder,
    ) -> Result<Guest, GuestError> {
        let hash = self
            .runtime
            .compile(component)
            .unwrap_or_else(|e| panic!("{e}"));
        let module = self
            .runtime
            .load(&hash)
            .unwrap()
            .expect("compiled a moment ago");
        module
            .instantiate(limits, env(), Box::new(host.clone()))
            .await
    }
}

pub fn env() -> GuestEnv {
    GuestEnv {
        job: JobId::from_u128(7),
        submitted_at_ms: 1_700_000_000_000,
    }
}

pub fn open_request() -> tidemill_runtime::OpenRequest {
    tidemill_runtime::OpenRequest {
        vertex: 0,
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        attempt: 0,
        cache_bytes: 1 << 20,
        restored: false,
    }
}

pub fn limits(call_ms: u64) -> Limits {
    Limits {
        call: std::time::Duration::from_millis(call_ms),
        ..Limits::default()
    }
}

pub fn batch(records: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    for record in 0..records {
        let value = format!("record {record}");
        builder.push(record as i64, Some(b"key"), Some(value.as_bytes()));
    }
    builder.take()
}

/// Runs a test on a small tokio runtime, once per mechanism.
pub fn under_each_mechanism(test: impl AsyncFn(Bench)) {
    for mechanism in MECHANISMS {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        executor.block_on(test(Bench::new(mechanism)));
    }
}
