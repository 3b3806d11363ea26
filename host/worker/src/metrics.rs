//! What a task counts, and the names under which it is reported.
//!
//! Counters are plain atomics, written by the task and read once a second by the session. Names
//! are Flink's where there is one.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tidemill_protocol::control::Metric;
use tidemill_types::NO_WATERMARK;

/// The most metrics of its own that a guest may have in one task.
const GUEST_METRICS_MAX: usize = 200;

/// The figures of one task.
#[derive(Debug)]
pub(crate) struct TaskMetrics {
    operators: Vec<OperatorMetrics>,
    /// Records that came in, from a source or over an exchange.
    pub(crate) records_in: AtomicU64,
    /// Records that went out, to a sink or over an exchange.
    pub(crate) records_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Records that an operator rejected and the job's policy skipped.
    pub(crate) rejected: AtomicU64,
    pub(crate) input_watermark: AtomicI64,
    pub(crate) output_watermark: AtomicI64,
    pub(crate) guest_memory: AtomicU64,
    pub(crate) input_queue_bytes: AtomicU64,
    pub(crate) fired_timers: AtomicU64,
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    backpressured_ns: AtomicU64,
    guest: Mutex<BTreeMap<String, f64>>,
    connector: Mutex<Vec<(String, f64)>>,
    last: Mutex<Option<Totals>>,
}

#[derive(Debug)]
struct OperatorMetrics {
    name: String,
    records_in: AtomicU64,
    records_out: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    at: Instant,
    busy_ns: u64,
    idle_ns: u64,
    backpressured_ns: u64,
    records_in: u64,
    records_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl TaskMetrics {
    pub(crate) fn new(operators: impl Iterator<Item = String>) -> Self {
        let operator = |name: String| OperatorMetrics {
            name: name.replace(' ', "_"),
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
        };
        Self {
            operators: operators.map(operator).collect(),
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            input_watermark: AtomicI64::new(NO_WATERMARK),
            output_watermark: AtomicI64::new(NO_WATERMARK),
            guest_memory: AtomicU64::new(0),
            input_queue_bytes: AtomicU64::new(0),
            fired_timers: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            idle_ns: AtomicU64::new(0),
            backpressured_ns: AtomicU64::new(0),
            guest: Mutex::new(BTreeMap::new()),
            connector: Mutex::new(Vec::new()),
            last: Mutex::new(None),
        }
    }

    /// Adds the counts that a guest returned: in, out, in, out, … What does not fit is dropped.
    pub(crate) fn count_operators(&self, counts: &[u64]) {
        for (operator, pair) in self.operators.iter().zip(counts.chunks_exact(2)) {
            operator.records_in.fetch_add(pair[0], Relaxed);
            operator.records_out.fetch_add(pair[1], Relaxed);
        }
    }

    pub(crate) fn add_busy(&self, time: Duration) {
        self.busy_ns.fetch_add(nanos(time), Relaxed);
    }

    pub(crate) fn add_idle(&self, time: Duration) {
        self.idle_ns.fetch_add(nanos(time), Relaxed);
    }

    pub(crate) fn add_backpressured(&self, time: Duration) {
        self.backpressured_ns.fetch_add(nanos(time), Relaxed);
    }

    /// Time spent waiting for room in outputs so far.
    pub(crate) fn backpressured(&self) -> Duration {
        Duration::from_nanos(self.backpressured_ns.load(Relaxed))
    }

    pub(crate) fn set_connector(&self, metrics: Vec<(String, f64)>) {
        *self.connector.lock() = metrics;
    }

    /// Changes a metric of the guest's own; beyond the limit new ones are dropped.
    pub(crate) fn guest_metric(&self, operator: u32, name: &str, change: impl FnOnce(&mut f64)) {
        let Some(operator) = self.operators.get(operator as usize) else {
            return;
        };
        let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        let key = format!("{}.{name}", operator.name);
        let mut metrics = self.guest.lock();
        if metrics.len() < GUEST_METRICS_MAX || metrics.contains_key(&key) {
            change(metrics.entry(key).or_insert(0.0));
        }
    }

    /// All figures as they are now, with rates since the last call.
    pub(crate) fn report(&self) -> Vec<Metric> {
        let now = self.totals();
        let mut report = Report::default();
        report.count("numRecordsIn", now.records_in);
        report.count("numRecordsOut", now.records_out);
        report.count("numBytesIn", now.bytes_in);
        report.count("numBytesOut", now.bytes_out);
        report.count("numRecordsInErrors", self.rejected.load(Relaxed));
        report.count("numFiredTimers", self.fired_timers.load(Relaxed));
        report.count("inputQueueBytes", self.input_queue_bytes.load(Relaxed));
        report.count("guestMemoryBytes", self.guest_memory.load(Relaxed));
        report.put("currentInputWatermark", watermark(&self.input_watermark));
        report.put("currentOutputWatermark", watermark(&self.output_watermark));
        report.count("accumulateBusyTimeMs", now.busy_ns / 1_000_000);
        report.count("accumulateIdleTimeMs", now.idle_ns / 1_000_000);
        report.count(
            "accumulateBackPressuredTimeMs",
            now.backpressured_ns / 1_000_000,
        );
        if let Some(before) = self.last.lock().replace(now) {
            report.rates(&before, &now);
        }
        for operator in &self.operators {
            let name = &operator.name;
            report.count(
                &format!("{name}.numRecordsIn"),
                operator.records_in.load(Relaxed),
            );
            report.count(
                &format!("{name}.numRecordsOut"),
                operator.records_out.load(Relaxed),
            );
        }
        for (name, value) in self.guest.lock().iter() {
            report.put(name, *value);
        }
        for (name, value) in self.connector.lock().iter() {
            report.put(name, *value);
        }
        report.0
    }

    fn totals(&self) -> Totals {
        Totals {
            at: Instant::now(),
            busy_ns: self.busy_ns.load(Relaxed),
            idle_ns: self.idle_ns.load(Relaxed),
            backpressured_ns: self.backpressured_ns.load(Relaxed),
            records_in: self.records_in.load(Relaxed),
            records_out: self.records_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

/// Metrics being collected.
#[derive(Default)]
struct Report(Vec<Metric>);

impl Report {
    fn put(&mut self, name: &str, value: f64) {
        self.0.push(Metric {
            name: name.to_owned(),
            value,
        });
    }

    fn count(&mut self, name: &str, value: u64) {
        self.put(name, float(value));
    }

    fn rates(&mut self, before: &Totals, now: &Totals) {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, before: u64| float(now.saturating_sub(before)) / seconds;
        let ms = |now: u64, before: u64| (rate(now, before) / 1e6).min(1000.0);
        self.put(
            "numRecordsInPerSecond",
            rate(now.records_in, before.records_in),
        );
        self.put(
            "numRecordsOutPerSecond",
            rate(now.records_out, before.records_out),
        );
        self.put("numBytesInPerSecond", rate(now.bytes_in, before.bytes_in));
        self.put(
            "numBytesOutPerSecond",
            rate(now.bytes_out, before.bytes_out),
        );
        self.put("busyTimeMsPerSecond", ms(now.busy_ns, before.busy_ns));
        self.put("idleTimeMsPerSecond", ms(now.idle_ns, before.idle_ns));
        let backpressured = ms(now.backpressured_ns, before.backpressured_ns);
        self.put("backPressuredTimeMsPerSecond", backpressured);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are approximate beyond 2^53"
)]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are approximate beyond 2^53"
)]
fn watermark(value: &AtomicI64) -> f64 {
    value.load(Relaxed) as f64
}
