//! Measures Tidemill and prints tables in Markdown: `make bench`, or after `make build`
//! `target/release/tidemill-bench [throughput] [sandbox] [start] [memory]` for a part.
//!
//! Everything but the sandbox is measured on real processes, a coordinator and a worker, driven
//! over REST. On a machine that does other things as well, CPU seconds mean more than times.
//!
//! | part | question |
//! |---|---|
//! | `throughput` | records per second and CPU per record of click-event-count, datagen to blackhole |
//! | `sandbox` | the same code natively and in the sandbox; the price of crossing its border |
//! | `start` | from the start of a process, and from a request to run a job, to where it runs |
//! | `memory` | memory and threads of coordinator and worker, idle and at work |

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement prints, waits for real processes and reads the clock"
)]

mod cluster;
mod figures;
mod memory;
mod process;
mod sandbox;
mod start;
mod throughput;

use anyhow::{Context, ensure};

/// A part's name and what it does.
const PARTS: [&str; 4] = ["throughput", "sandbox", "start", "memory"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for part in &wanted {
        ensure!(
            PARTS.contains(&part.as_str()),
            "there is no part \"{part}\"; there are {}",
            PARTS.join(", ")
        );
    }
    println!("Machine: {}\n", machine()?);
    for part in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == part) {
            continue;
        }
        match part {
            "throughput" => throughput::measure().await,
            "sandbox" => sandbox::measure(),
            "start" => start::measure().await,
            _ => memory::measure().await,
        }
        .with_context(|| format!("in part \"{part}\""))?;
        println!();
    }
    Ok(())
}

/// What we run on, as far as it matters.
fn machine() -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |m| {
        m.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism()?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!("{model}, {cores} cores, load {load} at the start"))
}
