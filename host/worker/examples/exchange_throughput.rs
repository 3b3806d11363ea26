//! How fast the data plane is: records through a channel within the process, over TCP on this
//! machine, and through the partitioner.
//!
//! `cargo run --release -p tidemill-worker --example exchange_throughput`, or with `local` or `tcp`,
//! channels and records a batch as arguments for one case only.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark at a terminal"
)]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use tidemill_types::{Attempt, Batch, BatchBuilder, JobId, ShipStrategy};
use tidemill_worker::exchange::{
    ChannelId, DEFAULT_CAPACITY_BYTES, Element, ExchangeService, InputGate, Partitioner,
};

/// Value bytes of a record; with key, timestamp and ends about 64 bytes in all.
const VALUE_BYTES: usize = 36;
const TIME: Duration = Duration::from_secs(2);

fn batch(records: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    for record in 0..records {
        let key = format!("page-{:07}", record * 7919 % 100_003);
        builder.push(0, Some(key.as_bytes()), Some(&[b'v'; VALUE_BYTES]));
    }
    builder.take()
}

async fn drain(mut gate: InputGate) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut records = 0;
    let mut live = gate.channels().len();
    while live > 0 {
        match gate.next().await?.1 {
            Element::Batch(batch) => records += batch.len() as u64,
            Element::EndOfInput => live -= 1,
            _ => {}
        }
    }
    Ok(records)
}

/// Sends batches of `records` over `channels` channels for a while.
async fn channels(
    name: &str,
    (up, down): (&ExchangeService, &ExchangeService),
    channels: u32,
    records: usize,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let job = JobId::random();
    let ids: Vec<_> = (0..channels)
        .map(|from| ChannelId {
            job,
            attempt: Attempt(0),
            edge: 0,
            from,
            to: 0,
        })
        .collect();
    let draining = tokio::spawn(drain(down.receivers(ids.clone(), DEFAULT_CAPACITY_BYTES)));
    let start = Instant::now();
    let cpu = cpu_time();
    let template = batch(records);
    let bytes = template.byte_size();
    let mut sending = Vec::new();
    for id in ids {
        let target = down.local_address().to_string();
        let mut sender = up.sender(id, &target, DEFAULT_CAPACITY_BYTES);
        let template = template.clone();
        sending.push(tokio::spawn(async move {
            while start.elapsed() < TIME {
                sender.send(Element::Batch(template.clone())).await?;
            }
            sender.send(Element::EndOfInput).await
        }));
    }
    for task in sending {
        task.await??;
    }
    let received = draining.await??;
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
    let batches = received as f64 / records as f64;
    println!(
        "{name:>9} {channels:>4} channels {records:>6} records/batch: {:>8.2} M records/s {:>8.0} MB/s {:>8.2} us/batch, {:>6.1} CPU-ns/record",
        received as f64 / elapsed / 1e6,
        batches * bytes as f64 / elapsed / 1e6,
        elapsed * 1e6 / batches,
        cpu * 1e9 / received as f64,
    );
    up.release(job, Attempt(0));
    down.release(job, Attempt(0));
    Ok(())
}

/// CPU seconds of this process, by the kernel's count of ticks.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn partition(
    strategy: ShipStrategy,
    targets: usize,
    records: usize,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut partitioner = Partitioner::new(strategy, targets, 128);
    let batches: Vec<_> = (0..(8192 / records)).map(|_| batch(records)).collect();
    let (mut spent, mut moved) = (0, 0);
    while spent < 300_000_000 {
        let round = batches.clone();
        let start = thread_time();
        for batch in round {
            moved += batch.len() as u64;
            partitioner.accumulate(batch)?;
            while let Some(ready) = partitioner.take_ready() {
                std::hint::black_box(ready);
            }
        }
        spent += thread_time() - start;
    }
    println!(
        "partition {strategy:?} {targets:>4} targets {records:>6} records/batch: {:>6.1} CPU-ns/record",
        spent as f64 / moved as f64
    );
    Ok(())
}

/// CPU nanoseconds of the main thread.
fn thread_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or_default()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let here = ExchangeService::bind("127.0.0.1:0").await?;
    let there = ExchangeService::bind("127.0.0.1:0").await?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [name, count, records] = args.as_slice() {
        let to = if name == "tcp" { &there } else { &here };
        return channels(name, (&here, to), count.parse()?, records.parse()?).await;
    }
    for (name, pair) in [("local", (&here, &here)), ("tcp", (&here, &there))] {
        for (count, records) in [(1, 1), (1, 512), (1, 1024), (8, 512), (64, 512), (64, 32)] {
            channels(name, pair, count, records).await?;
        }
    }
    for (strategy, targets) in [
        (ShipStrategy::Forward, 1),
        (ShipStrategy::Hash, 2),
        (ShipStrategy::Hash, 16),
        (ShipStrategy::Hash, 128),
        (ShipStrategy::Rebalance, 4),
    ] {
        for records in [64, 4096] {
            partition(strategy, targets, records)?;
        }
    }
    Ok(())
}
