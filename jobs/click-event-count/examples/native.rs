//! The job's own code natively, for comparison with the sandbox: nanoseconds a record from JSON
//! bytes to counts, over the same events as `benches/sandbox.rs` of the runtime.
//!
//! Build it as the job is built: `cargo run --profile job -p click-event-count --example native`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "a measurement prints and reads the clock"
)]

use std::time::Instant;

use click_event_count::click_event_count;
use tidemill::testing::JobTest;

const ARGS: [&str; 6] = [
    "--event-time",
    "--chaining",
    "--source",
    "datagen",
    "--sink",
    "blackhole",
];
const BATCHES: usize = 200;
const BATCH_RECORDS: usize = 1_000;
const ROUNDS: usize = 7;

fn clicks(batch: usize) -> Vec<String> {
    let pages = ["/help", "/index", "/shop", "/jobs", "/about", "/news"];
    let events = batch * BATCH_RECORDS..(batch + 1) * BATCH_RECORDS;
    let json = |event: usize| {
        format!(
            r#"{{"timestamp":{},"page":"{}"}}"#,
            event / 6 * 15,
            pages[event % 6]
        )
    };
    events.map(json).collect()
}

fn main() -> Result<(), tidemill::Error> {
    let batches: Vec<_> = (0..BATCHES).map(clicks).collect();
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let mut job = JobTest::new(click_event_count).args(ARGS).start()?;
        let start = Instant::now();
        for batch in &batches {
            job.send("ClickEvent Source", batch)?;
        }
        best = best.min(start.elapsed().as_nanos());
    }
    println!("{}", best / (BATCHES * BATCH_RECORDS) as u128);
    Ok(())
}
