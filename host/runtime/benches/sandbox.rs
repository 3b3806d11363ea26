//! What the sandbox costs: `cargo bench -p tidemill-runtime [-- crossing|job|start]`.
//!
//! * Crossing: nanoseconds a record for a guest that only takes a batch, and for one that gives it
//!   back, by records in a batch.
//! * Job: nanoseconds a record of click-event-count from JSON bytes to counts, both of its tasks,
//!   beside the same code natively if `native` of that job was built before
//!   (`cargo build --profile job -p click-event-count --example native`).
//! * Start: compiling, loading, instantiating.
//!
//! Figures are the best of several rounds: the machine's noise only ever adds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement prints and reads the clock"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use support::{Bench, Recorder, guest, job, limits, open_request};
use tidemill_runtime::{Interruption, Limits};

const ROUNDS: usize = 11;
/// As many as a worker hands over at a time when records are as cheap as these.
const BATCH_RECORDS: u64 = 8_000;
const BATCHES: u64 = 50;
const ARGS: [&str; 6] = [
    "--event-time",
    "--chaining",
    "--source",
    "datagen",
    "--sink",
    "blackhole",
];

fn main() {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    executor.block_on(async {
        if wanted("crossing") {
            crossing().await;
        }
        if wanted("job") {
            click_event_count().await;
        }
        if wanted("start") {
            start().await;
        }
    });
}

fn nanos(elapsed: Duration, per: u64) -> f64 {
    elapsed.as_secs_f64() * 1e9 / per as f64
}

async fn crossing() {
    println!("crossing (values of 40 bytes, keys of 5)");
    println!(
        "{:>8} {:>14} {:>14} {:>16} {:>16}",
        "records", "in ns/call", "in ns/record", "both ns/call", "both ns/record"
    );
    let reset = "(global.set $top (i32.const 65536))";
    let echo = format!(
        "(memory.copy (i32.const 2052) (i32.add (local.get $p) (i32.const 8)) (i32.const 64))
         (i32.store (i32.const 2048) (i32.const 1)) (call $emit (i32.const 2048)) {reset} ok"
    );
    let bench = Bench::new(Interruption::Page);
    let sinks = guest(&[("process", &format!("{reset} ok"))], "");
    let echoes = guest(&[("process", &echo)], "");
    for records in [1, 64, 512, 4096] {
        let mut builder = tidemill_types::BatchBuilder::new();
        for record in 0..records {
            builder.push(record as i64, Some(b"/shop"), Some(&[b'x'; 40]));
        }
        let batch = builder.take();
        let mut best = [f64::MAX; 2];
        for (best, component) in best.iter_mut().zip([&sinks, &echoes]) {
            let host = Recorder::default();
            let mut guest = bench.start(component, limits(60_000), &host).await.unwrap();
            guest.open(&open_request()).await.unwrap();
            let calls = 400_000 / (records + 40);
            for _ in 0..ROUNDS {
                let start = Instant::now();
                for _ in 0..calls {
                    guest.process(0, 0, &batch).await.unwrap();
                }
                *best = best.min(nanos(start.elapsed(), calls));
            }
        }
        let [taken, both] = best;
        let per = records as f64;
        println!(
            "{records:>8} {taken:>14.0} {:>14.1} {both:>16.0} {:>16.1}",
            taken / per,
            both / per
        );
    }
}

async fn click_event_count() {
    println!("\nclick-event-count, JSON to counts, ns/record");
    let native = native();
    println!(
        "{:>24} {}",
        "native",
        native.map_or("not built".into(), |ns| format!("{ns:.0}"))
    );
    let batches: Vec<_> = (0..BATCHES)
        .map(|n| job::clicks(n * BATCH_RECORDS..(n + 1) * BATCH_RECORDS))
        .collect();
    for interruption in support::MECHANISMS {
        let bench = Bench::new(interruption);
        let module = job::load(&bench.runtime, "click_event_count");
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let (mut source, source_task) = job::opened(&module, &ARGS, 0).await;
            let (mut counter, counter_task) = job::opened(&module, &ARGS, 1).await;
            counter_task.0.lock().blackhole = true;
            let start = Instant::now();
            for batch in &batches {
                let watermark = source.process(0, 0, batch).await.unwrap().watermark;
                let emitted = std::mem::take(&mut source_task.0.lock().emitted);
                for (_, batch) in &emitted {
                    counter.process(0, 0, batch).await.unwrap();
                }
                loop {
                    let due = counter_task.0.lock().take_due(watermark);
                    let Some(due) = due else { break };
                    counter.fire_timers(&due, watermark).await.unwrap();
                }
                counter_task.0.lock().watermark = Some(watermark);
                counter.watermark(watermark).await.unwrap();
            }
            best = best.min(nanos(start.elapsed(), BATCHES * BATCH_RECORDS));
        }
        let ratio = native.map_or(String::new(), |ns| {
            format!("  {:.2} times native", best / ns)
        });
        println!(
            "{:>24} {best:.0}{ratio}",
            format!("sandbox, {interruption:?}")
        );
    }
}

/// What the job's own example says, if it was built.
fn native() -> Option<f64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = root.join("target/job/examples/native");
    let output = Command::new(program).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

async fn start() {
    println!("\nstart of click-event-count");
    let bytes = job::bytes("click_event_count");
    let bench = Bench::new(Interruption::default());
    let begin = Instant::now();
    let hash = bench.runtime.compile(&bytes).unwrap();
    println!(
        "{:>24} {:.1} ms ({} KiB)",
        "compile",
        begin.elapsed().as_secs_f64() * 1e3,
        bytes.len() >> 10
    );
    let begin = Instant::now();
    let module = bench.runtime.load(&hash).unwrap().unwrap();
    println!(
        "{:>24} {:.2} ms",
        "load from the cache",
        begin.elapsed().as_secs_f64() * 1e3
    );
    let mut best = f64::MAX;
    for _ in 0..50 {
        let begin = Instant::now();
        let host = Box::new(Recorder::default());
        drop(
            module
                .instantiate(Limits::default(), support::env(), host)
                .await
                .unwrap(),
        );
        best = best.min(begin.elapsed().as_secs_f64() * 1e6);
    }
    println!("{:>24} {best:.0} µs", "instantiate and drop");
}
