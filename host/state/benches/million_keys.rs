//! What a million keys cost: `cargo bench -p tidemill-state`.

#![expect(
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "a measurement"
)]

use std::time::Instant;

use tidemill_state::{KeyedState, StateId, UnknownState};
use tidemill_types::{
    Column, KeyGroupRange, Operator, StateDecl, StateKind, TimeDomain, TimerBatch, Vertex,
};

const KEYS: u64 = 1_000_000;
const BATCH: u64 = 1_000;
const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 128 };

fn vertex() -> Vertex {
    Vertex {
        uid: "v".into(),
        name: "v".into(),
        parallelism: None,
        max_parallelism: None,
        source: None,
        operators: vec![Operator {
            uid: "o".into(),
            name: "o".into(),
            description: "o".into(),
        }],
        sinks: Vec::new(),
        states: vec![StateDecl {
            name: "counts".into(),
            operator: 0,
            kind: StateKind::Value,
            key_schema: String::new(),
            subkey_schema: String::new(),
            value_schema: String::new(),
            ttl_ms: None,
        }],
        wants_watermarks: false,
        makes_watermarks: false,
    }
}

/// Keys in an order without locality.
fn keys(first: u64) -> Column {
    let mut column = Column::default();
    for n in first..first + BATCH {
        let scattered = (n * 7_368_787) % KEYS;
        column.push(Some(format!("/page/{scattered:08}").as_bytes()));
    }
    column
}

fn values(round: u64) -> Column {
    let mut column = Column::default();
    (0..BATCH).for_each(|n| column.push(Some(&(n + round).to_le_bytes())));
    column
}

/// What this thread has had of a processor, so that a busy machine does not count; the clock where
/// that is not known.
fn now_ns(origin: Instant) -> f64 {
    let used = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let used = used.and_then(|text| text.split(' ').next()?.parse().ok());
    used.unwrap_or_else(|| origin.elapsed().as_nanos() as f64)
}

fn start() -> (Instant, f64) {
    let origin = Instant::now();
    (origin, now_ns(origin))
}

fn each(what: &str, mut call: impl FnMut(&Column, u64)) {
    let batches: Vec<Column> = (0..KEYS / BATCH).map(|n| keys(n * BATCH)).collect();
    let (origin, start) = start();
    for (n, batch) in (0u64..).zip(&batches) {
        call(batch, n);
    }
    println!(
        "{what:<44} {:>8.1} ns an entry",
        (now_ns(origin) - start) / KEYS as f64
    );
}

fn once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let (origin, start) = start();
    let result = call();
    println!("{what:<44} {:>8.1} ms", (now_ns(origin) - start) / 1e6);
    result
}

fn timers(keys: &Column) -> TimerBatch {
    let mut batch = TimerBatch::new(TimeDomain::EventTime, 0);
    for key in keys.iter().flatten() {
        batch.push(15_000, key, b"\0\0\0\0\0\0\0\0");
    }
    batch
}

fn main() {
    let mut state = KeyedState::new(ALL, 128, &vertex());
    let none = Column::default();
    let counts = StateId(0);
    each("put_many, new keys", |keys, n| {
        state
            .store
            .put_many(counts, keys, &none, &values(n), &[], 0)
            .unwrap();
    });
    println!(
        "{:<44} {:>8.1} bytes an entry",
        "memory",
        state.store.byte_size() as f64 / KEYS as f64
    );
    each("get_many", |keys, _| {
        let found = state.store.get_many(counts, keys, &none, 0).unwrap();
        assert!(found.nulls.is_empty());
    });
    each("put_many, keys that exist", |keys, n| {
        state
            .store
            .put_many(counts, keys, &none, &values(n + 1), &[], 0)
            .unwrap();
    });
    let hot = keys(0);
    each("get_many, the same thousand keys", |_, _| {
        state.store.get_many(counts, &hot, &none, 0).unwrap();
    });
    each("set timers, all due together", |keys, _| {
        state.timers.set_many(&timers(keys)).unwrap();
    });
    let snapshot = once("snapshot: take", || state.snapshot(0));
    each("put_many, while the snapshot is held", |keys, n| {
        state
            .store
            .put_many(counts, keys, &none, &values(n + 2), &[], 0)
            .unwrap();
    });
    let bytes = once("snapshot: encode", || snapshot.encode().unwrap());
    println!(
        "{:<44} {:>8.1} bytes an entry and timer",
        "snapshot",
        bytes.len() as f64 / KEYS as f64
    );
    drop(snapshot);
    once("restore", || {
        let mut restored = KeyedState::new(ALL, 128, &vertex());
        restored.restore(&bytes, UnknownState::Refuse).unwrap();
        assert_eq!(restored.store.len() as u64, KEYS);
    });
    once("fire all timers, 4,096 at a time", || {
        while state.timers.pop_due_event(i64::MAX - 1, 4_096).is_some() {}
    });
    each("delete", |keys, _| {
        let mut nulls = Column::default();
        (0..BATCH).for_each(|_| nulls.push(None));
        state
            .store
            .put_many(counts, keys, &none, &nulls, &[], 0)
            .unwrap();
    });
    assert!(state.is_empty());
}
