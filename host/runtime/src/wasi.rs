//! What a guest sees of WASI: nothing of the host.
//!
//! No environment, arguments, files, network or standard input. Until `open`, the clock stands at
//! the job's submission and randomness follows from the job's id, so that each run of the same
//! module plans the same graph; from `open` on, both are real.

use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, random::Deterministic,
};

use crate::{host::GuestEnv, log::Pipe};

/// How much fixed randomness there is before it repeats.
const FIXED_RANDOM_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct FixedClock(Duration);

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for FixedClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// The world while the graph is being planned.
pub(crate) fn fixed(env: &GuestEnv, output: &Pipe) -> WasiCtx {
    let clock = FixedClock(Duration::from_millis(
        u64::try_from(env.submitted_at_ms).unwrap_or(0),
    ));
    let mut builder = closed(env, output);
    builder
        .wall_clock(clock)
        .monotonic_clock(clock)
        .secure_random(Deterministic::new(random_bytes(env, "secure")))
        .insecure_random(Deterministic::new(random_bytes(env, "insecure")));
    builder.build()
}

/// The world from `open` on.
pub(crate) fn real(env: &GuestEnv, output: &Pipe) -> WasiCtx {
    closed(env, output).build()
}

fn closed(env: &GuestEnv, output: &Pipe) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stdout(output.clone())
        .stderr(output.clone())
        .insecure_random_seed(env.job.as_u128())
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    builder
}

fn random_bytes(env: &GuestEnv, purpose: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_RANDOM_BYTES);
    let mut counter = 0u64;
    while bytes.len() < FIXED_RANDOM_BYTES {
        let mut hash = Sha256::new();
        hash.update(env.job.as_u128().to_le_bytes());
        hash.update(counter.to_le_bytes());
        hash.update(purpose);
        bytes.extend_from_slice(&hash.finalize());
        counter += 1;
    }
    bytes
}
