//! Writing a snapshot.

use tidemill_types::TimeDomain;
use xxhash_rust::xxh3::xxh3_64;

use super::{HAS_EXPIRY, MAGIC};
use crate::{NEVER, StateError, arena::KeyHash, snapshot::Snapshot};

/// A timer as it is sorted and written: operator, clock, time, hash of the key (not written; it
/// spares most comparisons of keys), key, namespace.
type TimerParts<'a> = (u16, u8, i64, u32, &'a [u8], &'a [u8]);

/// Encodes a snapshot.
pub(crate) fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, StateError> {
    let timers = timers_by_group(snapshot);
    let expected: usize = snapshot.groups.iter().map(|g| g.bytes()).sum();
    let mut out = Vec::with_capacity(expected + timers.iter().map(Vec::len).sum::<usize>() + 1024);
    out.extend_from_slice(MAGIC);
    let mut index = Vec::new();
    index.extend_from_slice(&snapshot.max_parallelism.to_le_bytes());
    index.extend_from_slice(&snapshot.range.start.to_le_bytes());
    index.extend_from_slice(&snapshot.range.end.to_le_bytes());
    write_names(snapshot, &mut index)?;
    for (group, timers) in snapshot.groups.iter().zip(timers) {
        let start = out.len();
        let entries = group
            .ordered()
            .into_iter()
            .filter_map(|position| group.at(position));
        for entry in entries.filter(|entry| entry.expiry > snapshot.now_ms) {
            out.extend_from_slice(&entry.id.state.to_le_bytes());
            write_short(entry.id.key, &mut out)?;
            write_short(entry.id.subkey, &mut out)?;
            let expires = entry.expiry != NEVER;
            out.push(if expires { HAS_EXPIRY } else { 0 });
            if expires {
                out.extend_from_slice(&entry.expiry.to_le_bytes());
            }
            write_long(entry.value, &mut out)?;
        }
        let entries_end = out.len();
        out.extend_from_slice(&timers);
        for number in [start, entries_end - start, out.len() - entries_end] {
            index.extend_from_slice(&(number as u64).to_le_bytes());
        }
        index.extend_from_slice(&xxh3_64(&out[start..]).to_le_bytes());
    }
    let index_at = out.len() as u64;
    out.extend_from_slice(&index);
    out.extend_from_slice(&index_at.to_le_bytes());
    out.extend_from_slice(&(index.len() as u64).to_le_bytes());
    out.extend_from_slice(&xxh3_64(&index).to_le_bytes());
    out.extend_from_slice(MAGIC);
    Ok(out)
}

/// Timers of each group, encoded. They are kept by time, so that they have to be divided first.
fn timers_by_group(snapshot: &Snapshot) -> Vec<Vec<u8>> {
    let mut groups: Vec<Vec<TimerParts<'_>>> = vec![Vec::new(); snapshot.groups.len()];
    snapshot
        .timers
        .for_each(|operator, domain, at, key, namespace| {
            let hash = KeyHash::of(key);
            let group = hash.group(snapshot.max_parallelism);
            debug_assert!(
                snapshot.range.contains(group),
                "only owned keys have timers"
            );
            let operator = u16::try_from(operator).expect("a vertex has few operators");
            let domain = match domain {
                TimeDomain::EventTime => 0,
                TimeDomain::ProcessingTime => 1,
            };
            let place = (group.0 - snapshot.range.start) as usize;
            groups[place].push((operator, domain, at, hash.with(0, b""), key, namespace));
        });
    groups.into_iter().map(encode_timers).collect()
}

fn encode_timers(mut timers: Vec<TimerParts<'_>>) -> Vec<u8> {
    timers.sort_unstable();
    let mut out = Vec::new();
    for (operator, domain, at, _, key, namespace) in timers {
        out.extend_from_slice(&operator.to_le_bytes());
        out.push(domain);
        out.extend_from_slice(&at.to_le_bytes());
        for part in [key, namespace] {
            let len =
                u16::try_from(part.len()).expect("keys of timers are checked when they are set");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn write_names(snapshot: &Snapshot, out: &mut Vec<u8>) -> Result<(), StateError> {
    let names = &snapshot.names;
    for count in [names.operators().len(), names.states().len()] {
        let count = u32::try_from(count).map_err(|_wide| StateError::Full {
            needed: count,
            limit: u32::MAX as usize,
        })?;
        out.extend_from_slice(&count.to_le_bytes());
    }
    for operator in names.operators() {
        write_long(operator.as_bytes(), out)?;
    }
    for state in names.states() {
        out.extend_from_slice(&state.operator.to_le_bytes());
        write_long(state.name.as_bytes(), out)?;
    }
    Ok(())
}

fn write_short(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), StateError> {
    let len = u16::try_from(bytes.len()).map_err(|_long| StateError::KeyTooLong {
        what: "key",
        len: bytes.len(),
    })?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn write_long(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), StateError> {
    let len = u32::try_from(bytes.len()).map_err(|_long| StateError::Full {
        needed: bytes.len(),
        limit: u32::MAX as usize,
    })?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
