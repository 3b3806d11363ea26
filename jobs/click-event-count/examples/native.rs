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
use tidemill::testing::planner::PlanRequest;
use tidemill::testing::task::OpenRequest;
use tidemill::testing::types::{Batch, Column};
use tidemill::testing::{Instance, MemoryHost, with_host};

const ARGS: [&str; 6] = [
    "--event-time",
    "--chaining",
    "--source",
    "datagen",
    "--sink",
    "blackhole",
];
const BATCHES: usize = 50;
const BATCH_RECORDS: usize = 8_000;
const ROUNDS: usize = 15;

fn column() -> Column {
    Column {
        data: Vec::new(),
        ends: Vec::new(),
        nulls: Vec::new(),
    }
}

fn clicks(batch: usize) -> Batch {
    let pages = ["/help", "/index", "/shop", "/jobs", "/about", "/news"];
    let mut values = column();
    for event in batch * BATCH_RECORDS..(batch + 1) * BATCH_RECORDS {
        let json = format!(
            r#"{{"timestamp":{},"page":"{}"}}"#,
            event / 6 * 15,
            pages[event % 6]
        );
        values.data.extend_from_slice(json.as_bytes());
        values
            .ends
            .push(u32::try_from(values.data.len()).expect("a batch is small"));
    }
    let timestamps = vec![i64::MIN; BATCH_RECORDS];
    Batch {
        timestamps,
        keys: column(),
        values,
        headers: Vec::new(),
    }
}

fn open(vertex: u32) -> Instance {
    let mut instance = Instance::default();
    let request = PlanRequest {
        args: ARGS.map(str::to_owned).into(),
        config: Vec::new(),
    };
    instance
        .plan("native", click_event_count, request)
        .expect("the job can be planned");
    let request = OpenRequest {
        vertex,
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        attempt: 0,
        cache_bytes: 32 << 20,
        restored: false,
    };
    instance.open(&request).expect("the vertex can be opened");
    instance
}

/// Both tasks of the job, one after the other: the batches that the first sends out are handed to
/// the second as they are.
fn run(batches: &[Batch]) -> u128 {
    let host = MemoryHost::default();
    let (mut source, mut counter) = (open(0), open(1));
    let start = Instant::now();
    let (_, ()) = with_host(Box::new(host.clone()), || {
        for batch in batches {
            source.process(0, 0, batch).expect("clicks can be read");
            for (_, sent) in host.take_emitted() {
                counter.process(0, 0, &sent).expect("clicks can be counted");
            }
        }
    });
    start.elapsed().as_nanos()
}

fn main() {
    let batches: Vec<_> = (0..BATCHES).map(clicks).collect();
    let best = (0..ROUNDS).map(|_| run(&batches)).min().unwrap_or_default();
    println!("{}", best / (BATCHES * BATCH_RECORDS) as u128);
}
