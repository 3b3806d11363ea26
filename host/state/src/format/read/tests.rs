//! Damaged snapshots are refused.

use tidemill_types::{Operator, Vertex};

use super::*;
use crate::{KeyedState, StateId, UnknownState};

fn vertex() -> Vertex {
    let json = r#"{"uid":"v","name":"v","parallelism":null,"max_parallelism":null,"source":null,
        "operators":[],"sinks":[],"states":[{"name":"s","operator":0,"kind":"value","key_schema":"",
        "subkey_schema":"","value_schema":"","ttl_ms":null}],"wants_watermarks":false,"makes_watermarks":false}"#;
    let mut vertex: Vertex = serde_json::from_str(json).unwrap();
    vertex.operators = vec![Operator {
        uid: "o".into(),
        name: "o".into(),
        description: String::new(),
    }];
    vertex
}

fn restored(bytes: &[u8]) -> Result<KeyedState, StateError> {
    let mut state = KeyedState::new(KeyGroupRange { start: 0, end: 8 }, 8, &vertex());
    state.restore(bytes, UnknownState::Refuse).map(|()| state)
}

fn sample() -> Vec<u8> {
    let mut state = KeyedState::new(KeyGroupRange { start: 0, end: 8 }, 8, &vertex());
    for n in 0..20u8 {
        let expiry = if n % 2 == 0 { NEVER } else { 1_000 };
        state
            .store
            .put(StateId(0), &[n], &[n; 3], Some(&[n; 5]), expiry)
            .unwrap();
        state
            .timers
            .set(TimeDomain::EventTime, 0, i64::from(n), &[n], b"ns")
            .unwrap();
    }
    state.snapshot(0).encode().unwrap()
}

#[test]
fn truncated_anywhere_it_is_refused() {
    let bytes = sample();
    restored(&bytes).unwrap();
    for len in 0..bytes.len() {
        let error = restored(&bytes[..len]).unwrap_err();
        assert!(
            matches!(error, StateError::Corrupt(_)),
            "cut to {len}: {error}"
        );
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let bytes = sample();
    for at in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let error = restored(&damaged).unwrap_err();
            assert!(
                matches!(error, StateError::Corrupt(_)),
                "byte {at}: {error}"
            );
        }
    }
}

#[test]
fn an_empty_snapshot_is_read_as_one() {
    let state = KeyedState::new(KeyGroupRange { start: 2, end: 5 }, 8, &vertex());
    assert!(state.snapshot(0).is_empty());
    let bytes = state.snapshot(0).encode().unwrap();
    assert!(restored(&bytes).unwrap().is_empty());
    let reader = SnapshotReader::open(&bytes).unwrap();
    assert_eq!(reader.range(), KeyGroupRange { start: 2, end: 5 });
    assert_eq!(
        reader.group(KeyGroup(7)).unwrap().count(),
        0,
        "groups that are not in it are empty"
    );
}

#[test]
fn lengths_that_lie_are_refused_even_with_a_matching_checksum() {
    let bytes = sample();
    let reader = SnapshotReader::open(&bytes).unwrap();
    let block = reader
        .groups
        .iter()
        .find(|block| block.entries > 0)
        .unwrap();
    let start = usize::try_from(block.start).unwrap();
    let end = start + usize::try_from(block.entries + block.timers).unwrap();
    // The key's length is the second number of the first entry.
    let mut forged = bytes.clone();
    forged[start + 2..start + 4].copy_from_slice(&u16::MAX.to_le_bytes());
    let old = xxh3_64(&bytes[start..end]).to_le_bytes();
    let new = xxh3_64(&forged[start..end]).to_le_bytes();
    let at = forged.windows(8).position(|window| window == old).unwrap();
    forged[at..at + 8].copy_from_slice(&new);
    let index = index_of(&bytes).unwrap();
    let index_at = bytes.len() - TRAILER - index.len();
    let checksum = xxh3_64(&forged[index_at..bytes.len() - TRAILER]).to_le_bytes();
    let at = bytes.len() - 16;
    forged[at..at + 8].copy_from_slice(&checksum);
    let error = restored(&forged).unwrap_err();
    assert_eq!(
        error,
        StateError::Corrupt("an entry ends in the middle".into())
    );
}
