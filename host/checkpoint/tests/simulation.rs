//! Checkpoints and recovery under faults, simulated from a seed.
//!
//! A job reads splits, counts by key, and writes every count into transactions. Clock, network and
//! store belong to the simulation: messages are delayed, lost and doubled; tasks and coordinators
//! die; tasks of older attempts go on; writes fail, are cut short, or become visible later than
//! their writer lives. Whatever happens, the committed output holds each count of each key exactly
//! once, and the job gets to its end.
//!
//! `SIMULATION_SEEDS=100000 SIMULATION_FROM=0 cargo test --release -p tidemill-checkpoint --test
//! simulation` runs more of it. A failure names its seed.

#![expect(clippy::print_stderr, reason = "a test that reports")]

#[path = "simulation/driver.rs"]
mod driver;
#[path = "simulation/job.rs"]
mod job;
#[path = "simulation/outside.rs"]
mod outside;
#[path = "simulation/world.rs"]
mod world;

use world::{Figures, World};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn whatever_fails_every_result_is_committed_exactly_once() {
    let (from, seeds) = (
        number("SIMULATION_FROM", 0),
        number("SIMULATION_SEEDS", 2_000),
    );
    let mut total = Figures::default();
    for seed in from..from + seeds {
        match World::new(seed, true).run() {
            Ok(figures) => total.add(&figures),
            Err(what) => panic!("{what}\nagain with SIMULATION_SEEDS=1 SIMULATION_FROM={seed}"),
        }
    }
    eprintln!("{seeds} seeds: {total:?}");
    if seeds >= 1_000 {
        total.check_that_everything_happened();
    }
}

/// The simulation has teeth: it finds the loss that [`tidemill_checkpoint::recovery`] prevents.
#[test]
fn without_records_of_attempts_a_late_write_loses_results() {
    let failed = (0..20_000).find_map(|seed| World::new(seed, false).run().err());
    let failed = failed.expect("some seed finds the loss");
    assert!(failed.contains("aborted"), "{failed}");
}
