//! Snapshots and restores of keyed state, also at another parallelism.

use tidemill_types::{Column, Operator, StateDecl, StateKind, TimeDomain};

use super::*;
use crate::{
    Entries, NEVER, StateId,
    conformance::{self, MAX_PARALLELISM, RANGE, Subject},
};

pub(crate) fn vertex() -> Vertex {
    let operator = |uid: &str| Operator {
        uid: uid.into(),
        name: uid.into(),
        description: uid.into(),
    };
    let state = |name: &str, operator, kind| StateDecl {
        name: name.into(),
        operator,
        kind,
        key_schema: String::new(),
        subkey_schema: String::new(),
        value_schema: String::new(),
        ttl_ms: None,
    };
    Vertex {
        uid: "v".into(),
        name: "v".into(),
        parallelism: None,
        max_parallelism: None,
        source: None,
        operators: vec![operator("count"), operator("join")],
        sinks: Vec::new(),
        states: vec![
            state("counts", 0, StateKind::Value),
            state("rows", 1, StateKind::Map),
            state("offsets", 0, StateKind::OperatorList),
        ],
        wants_watermarks: false,
        makes_watermarks: false,
    }
}

fn state_of(range: KeyGroupRange) -> KeyedState {
    KeyedState::new(range, MAX_PARALLELISM, &vertex())
}

fn put_many(
    store: &mut KeyedStore,
    state: StateId,
    entries: &Entries,
    now_ms: i64,
) -> Result<(), StateError> {
    let Entries {
        keys,
        subkeys,
        values,
        expiries,
    } = entries;
    store.put_many(state, keys, subkeys, values, expiries, now_ms)
}

struct InMemory(KeyedState);

impl Subject for InMemory {
    fn get_many(
        &mut self,
        state: StateId,
        keys: &Column,
        subkeys: &Column,
        now_ms: i64,
    ) -> Result<Column, StateError> {
        self.0.store.get_many(state, keys, subkeys, now_ms)
    }

    fn put_many(
        &mut self,
        state: StateId,
        entries: &Entries,
        now_ms: i64,
    ) -> Result<(), StateError> {
        put_many(&mut self.0.store, state, entries, now_ms)
    }

    fn scan(
        &mut self,
        state: StateId,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
        now_ms: i64,
    ) -> Result<Entries, StateError> {
        self.0.store.scan(state, key, after, max_bytes, now_ms)
    }

    fn snapshot_and_restore(&mut self, now_ms: i64) -> Result<(), StateError> {
        let bytes = self.0.snapshot(now_ms).encode()?;
        let mut restored = state_of(RANGE);
        restored.restore(&bytes, UnknownState::Refuse)?;
        assert_eq!(
            restored.snapshot(now_ms).encode()?,
            bytes,
            "same state, same bytes"
        );
        self.0 = restored;
        Ok(())
    }
}

#[test]
fn the_store_in_memory_behaves_as_a_map() {
    for seed in 0..300 {
        conformance::run(&mut InMemory(state_of(RANGE)), seed);
    }
}

const ALL: KeyGroupRange = KeyGroupRange {
    start: 0,
    end: MAX_PARALLELISM,
};

fn filled(range: KeyGroupRange, keys: u32) -> KeyedState {
    let mut state = state_of(range);
    for n in 0..keys {
        let key = n.to_le_bytes();
        if state.store.owns(&key) {
            state
                .store
                .put(StateId(0), &key, b"", Some(&key), NEVER)
                .unwrap();
            state
                .timers
                .set(TimeDomain::EventTime, 0, i64::from(n % 5), &key, b"w")
                .unwrap();
            state
                .timers
                .set(TimeDomain::ProcessingTime, 1, i64::from(n), &key, b"")
                .unwrap();
        }
    }
    state
}

#[test]
fn rescaled_up_and_down_nothing_is_lost_or_doubled() {
    let whole = filled(ALL, 2_000).snapshot(0).encode().unwrap();
    let parts: Vec<_> = (0..3)
        .map(|subtask| {
            let mut part = state_of(KeyGroupRange::of_subtask(subtask, 3, MAX_PARALLELISM));
            part.restore(&whole, UnknownState::Refuse).unwrap();
            part
        })
        .collect();
    assert_eq!(parts.iter().map(|p| p.store.len()).sum::<usize>(), 2_000);
    assert_eq!(parts.iter().map(|p| p.timers.len()).sum::<usize>(), 4_000);
    let mut again = state_of(ALL);
    for part in parts {
        let bytes = part.snapshot(0).encode().unwrap();
        again.restore(&bytes, UnknownState::Refuse).unwrap();
    }
    assert_eq!(again.snapshot(0).encode().unwrap(), whole);
}

#[test]
fn a_snapshot_is_what_was_there_when_it_was_taken() {
    let mut state = filled(ALL, 500);
    let expected = state.snapshot(0).encode().unwrap();
    let snapshot = state.snapshot(0);
    for n in 0..1_000u32 {
        let key = n.to_le_bytes();
        let value = (n % 3 > 0).then_some(&b"changed"[..]);
        state
            .store
            .put(StateId(0), &key, b"", value, NEVER)
            .unwrap();
        state
            .timers
            .set(TimeDomain::EventTime, 1, 3, &key, b"")
            .unwrap();
    }
    while state.timers.pop_due_event(3, 7).is_some() {}
    while state.timers.pop_due_processing(100, 7).is_some() {}
    let encoded = std::thread::spawn(move || snapshot.encode().unwrap())
        .join()
        .unwrap();
    assert_eq!(encoded, expected);
    assert_ne!(state.snapshot(0).encode().unwrap(), expected);
}

#[test]
fn expired_entries_are_not_in_the_snapshot() {
    let mut state = state_of(ALL);
    state
        .store
        .put(StateId(0), b"a", b"", Some(b"1"), 100)
        .unwrap();
    state
        .store
        .put(StateId(0), b"b", b"", Some(b"2"), 200)
        .unwrap();
    let bytes = state.snapshot(100).encode().unwrap();
    let mut restored = state_of(ALL);
    restored.restore(&bytes, UnknownState::Refuse).unwrap();
    assert_eq!(restored.store.len(), 1);
    assert_eq!(
        restored.store.get(StateId(0), b"b", b"", 199),
        Ok(Some(&b"2"[..]))
    );
    assert_eq!(restored.store.get(StateId(0), b"b", b"", 200), Ok(None));
}

#[test]
fn expired_entries_give_their_memory_back_while_others_are_written() {
    let mut state = state_of(ALL);
    let column = |range: std::ops::Range<u32>| {
        let mut column = Column::default();
        range.for_each(|n| column.push(Some(&n.to_le_bytes())));
        column
    };
    let entries = |range: std::ops::Range<u32>, expiry| Entries {
        keys: column(range.clone()),
        values: column(range.clone()),
        expiries: range.map(|_| expiry).collect(),
        ..Entries::default()
    };
    put_many(&mut state.store, StateId(0), &entries(0..50_000, 10), 0).unwrap();
    let full = state.store.byte_size();
    for round in 0..40 {
        put_many(
            &mut state.store,
            StateId(1),
            &entries(0..2_000, NEVER),
            20 + round,
        )
        .unwrap();
    }
    assert_eq!(state.store.len(), 2_000);
    assert!(
        state.store.byte_size() < full / 5,
        "{} of {full}",
        state.store.byte_size()
    );
}

#[test]
fn states_are_matched_by_operator_and_name() {
    let mut state = state_of(ALL);
    state
        .store
        .put(StateId(0), b"k", b"", Some(b"count"), NEVER)
        .unwrap();
    state
        .store
        .put(StateId(1), b"k", b"s", Some(b"row"), NEVER)
        .unwrap();
    state
        .timers
        .set(TimeDomain::EventTime, 1, 9, b"k", b"n")
        .unwrap();
    let bytes = state.snapshot(0).encode().unwrap();

    let mut reordered = vertex();
    reordered.operators.reverse();
    reordered.states.swap(0, 1);
    reordered
        .states
        .iter_mut()
        .for_each(|s| s.operator = 1 - s.operator);
    let mut restored = KeyedState::new(ALL, MAX_PARALLELISM, &reordered);
    restored.restore(&bytes, UnknownState::Refuse).unwrap();
    assert_eq!(
        restored.store.get(StateId(1), b"k", b"", 0),
        Ok(Some(&b"count"[..]))
    );
    assert_eq!(
        restored.store.get(StateId(0), b"k", b"s", 0),
        Ok(Some(&b"row"[..]))
    );
    assert_eq!(restored.timers.pop_due_event(9, 10).unwrap().operator, 0);

    let mut renamed = vertex();
    renamed.states[1].name = "lines".into();
    let mut restored = KeyedState::new(ALL, MAX_PARALLELISM, &renamed);
    let error = restored.restore(&bytes, UnknownState::Refuse).unwrap_err();
    assert_eq!(
        error,
        StateError::NotRestored {
            operator: "join".into(),
            state: "rows".into()
        }
    );
    let mut restored = KeyedState::new(ALL, MAX_PARALLELISM, &renamed);
    restored.restore(&bytes, UnknownState::Skip).unwrap();
    assert_eq!(restored.store.len(), 1);

    let mut other = KeyedState::new(ALL, 256, &vertex());
    let error = other.restore(&bytes, UnknownState::Skip).unwrap_err();
    assert_eq!(
        error,
        StateError::MaxParallelism {
            written: 128,
            expected: 256
        }
    );
}

#[test]
fn too_much_state_is_refused_by_figures() {
    let names = StateNames::of(&vertex());
    let mut store = KeyedStore::new(ALL, MAX_PARALLELISM, names).with_limit(10_000);
    let error = (0..1_000u32)
        .find_map(|n| {
            store
                .put(StateId(0), &n.to_le_bytes(), b"", Some(&[0; 100]), NEVER)
                .err()
        })
        .unwrap();
    assert!(matches!(error, StateError::Full { limit: 10_000, .. }));
    assert!(store.byte_size() <= 10_200);
}
