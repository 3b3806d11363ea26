//! The bytes of a snapshot: sorted by key group and readable by range.
//!
//! ```text
//! "TMSTATE1"
//! for each key group: its entries, then its timers
//! index: key groups, names of operators and states, and for each group where it is and its xxh3
//! where the index is (8 bytes), its length (8), its xxh3 (8), "TMSTATE1"
//! ```
//!
//! All numbers are little-endian. States and operators are numbered within the file and named in
//! its index. A reader needs the last 32 bytes, the index, and the groups that it is after.
//!
//! # Invariants
//!
//! 1. Nothing is trusted: every length is checked against what is left, every block against its
//!    hash, every key against its group. What is wrong is [`StateError::Corrupt`].
//! 2. The same state gives the same bytes, whatever its history.

use tidemill_types::{KeyGroup, KeyGroupRange, TimeDomain};
use xxhash_rust::xxh3::xxh3_64;

use crate::{KEY_BYTES_MAX, NEVER, StateError, VALUE_BYTES_MAX, snapshot::Snapshot};

const MAGIC: &[u8; 8] = b"TMSTATE1";
const TRAILER: usize = 32;
const HAS_EXPIRY: u8 = 1;

/// The largest index that is read: names of 65,535 states of 1,000 bytes, and all groups.
const INDEX_BYTES_MAX: usize = 256 << 20;

/// One thing in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRecord<'a> {
    /// An entry of a state.
    Entry {
        /// The state's number in the file.
        state: u16,
        /// Its key.
        key: &'a [u8],
        /// Its sub-key.
        subkey: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When it expires.
        expiry: i64,
    },
    /// A timer.
    Timer {
        /// The operator's number in the file.
        operator: u16,
        /// Its clock.
        domain: TimeDomain,
        /// When it is due.
        timestamp: i64,
        /// Its key.
        key: &'a [u8],
        /// Its namespace.
        namespace: &'a [u8],
    },
}

/// A timer as it is sorted and written: operator, clock, time, key, namespace.
type TimerParts<'a> = (u16, u8, i64, &'a [u8], &'a [u8]);

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
        let mut entries: Vec<_> =
            group.iter().map(|(_, e)| e).filter(|e| e.expiry > snapshot.now_ms).collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        for entry in entries {
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
    snapshot.timers.for_each(|operator, domain, at, key, namespace| {
        let group = KeyGroup::of(key, snapshot.max_parallelism);
        debug_assert!(snapshot.range.contains(group), "only owned keys have timers");
        let operator = u16::try_from(operator).expect("a vertex has few operators");
        let domain = match domain {
            TimeDomain::EventTime => 0,
            TimeDomain::ProcessingTime => 1,
        };
        let place = (group.0 - snapshot.range.start) as usize;
        groups[place].push((operator, domain, at, key, namespace));
    });
    groups.into_iter().map(encode_timers).collect()
}

fn encode_timers(mut timers: Vec<TimerParts<'_>>) -> Vec<u8> {
    timers.sort_unstable();
    let mut out = Vec::new();
    for (operator, domain, at, key, namespace) in timers {
        out.extend_from_slice(&operator.to_le_bytes());
        out.push(domain);
        out.extend_from_slice(&at.to_le_bytes());
        for part in [key, namespace] {
            let len = u16::try_from(part.len()).expect("keys of timers are checked when they are set");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn write_names(snapshot: &Snapshot, out: &mut Vec<u8>) -> Result<(), StateError> {
    let names = &snapshot.names;
    for count in [names.operators().len(), names.states().len()] {
        let count = u32::try_from(count)
            .map_err(|_wide| StateError::Full { needed: count, limit: u32::MAX as usize })?;
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
    let len = u16::try_from(bytes.len())
        .map_err(|_long| StateError::KeyTooLong { what: "key", len: bytes.len() })?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn write_long(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), StateError> {
    let len = u32::try_from(bytes.len())
        .map_err(|_long| StateError::Full { needed: bytes.len(), limit: u32::MAX as usize })?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Reads an encoded snapshot.
#[derive(Debug)]
pub struct SnapshotReader<'a> {
    bytes: &'a [u8],
    max_parallelism: u32,
    range: KeyGroupRange,
    operators: Vec<String>,
    states: Vec<(String, String)>,
    groups: Vec<GroupBlock>,
}

#[derive(Debug, Clone, Copy)]
struct GroupBlock {
    start: u64,
    entries: u64,
    timers: u64,
    checksum: u64,
}

impl<'a> SnapshotReader<'a> {
    /// Reads the index.
    ///
    /// # Errors
    ///
    /// [`StateError::Corrupt`] when the bytes are not those of a snapshot.
    pub fn open(bytes: &'a [u8]) -> Result<Self, StateError> {
        let mut index = Cursor::new(index_of(bytes)?, "the index");
        let max_parallelism = index.u32()?;
        let range = KeyGroupRange { start: index.u32()?, end: index.u32()? };
        if range.start > range.end || range.end > max_parallelism {
            return Err(corrupt("its key groups make no sense"));
        }
        let (operators, states) = read_names(&mut index)?;
        let mut groups = Vec::new();
        for _ in range.start..range.end {
            let (start, entries, timers) = (index.u64()?, index.u64()?, index.u64()?);
            groups.push(GroupBlock { start, entries, timers, checksum: index.u64()? });
        }
        index.finish()?;
        Ok(Self { bytes, max_parallelism, range, operators, states, groups })
    }

    /// The number of key groups of the vertex that wrote it.
    #[must_use]
    pub const fn max_parallelism(&self) -> u32 {
        self.max_parallelism
    }

    /// The key groups in it.
    #[must_use]
    pub const fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// The uids of its operators, by number.
    #[must_use]
    pub fn operators(&self) -> &[String] {
        &self.operators
    }

    /// Operator uid and name of its states, by number.
    #[must_use]
    pub fn states(&self) -> &[(String, String)] {
        &self.states
    }

    pub(crate) fn state_name(&self, state: u16) -> (String, String) {
        self.states.get(state as usize).cloned().unwrap_or_default()
    }

    pub(crate) fn operator_uid(&self, operator: u16) -> String {
        self.operators.get(operator as usize).cloned().unwrap_or_default()
    }

    /// What a group holds; nothing if it is not in the snapshot. A record that is an error is the
    /// last one.
    ///
    /// # Errors
    ///
    /// [`StateError::Corrupt`] when the group's block is damaged.
    pub fn group(
        &self,
        group: KeyGroup,
    ) -> Result<impl Iterator<Item = Result<GroupRecord<'a>, StateError>> + use<'a>, StateError> {
        let place = group.0.checked_sub(self.range.start).map(|place| place as usize);
        let block = place.and_then(|place| self.groups.get(place)).copied();
        let (mut entries, mut timers) = match block {
            None => (Cursor::new(&[], "an entry"), Cursor::new(&[], "a timer")),
            Some(block) => self.cursors(group, block)?,
        };
        let max_parallelism = self.max_parallelism;
        let mut failed = false;
        Ok(std::iter::from_fn(move || {
            if failed || (entries.rest.is_empty() && timers.rest.is_empty()) {
                return None;
            }
            let record =
                if entries.rest.is_empty() { read_timer(&mut timers) } else { read_entry(&mut entries) };
            let record = record.and_then(|record| in_group(record, group, max_parallelism));
            failed = record.is_err();
            Some(record)
        }))
    }

    fn cursors(
        &self,
        group: KeyGroup,
        block: GroupBlock,
    ) -> Result<(Cursor<'a>, Cursor<'a>), StateError> {
        let outside = || corrupt(format!("key group {group} lies outside of the data"));
        let at = |number: u64| usize::try_from(number).ok().ok_or_else(outside);
        let start = at(block.start)?;
        let middle = at(block.entries)?.checked_add(start).ok_or_else(outside)?;
        let end = at(block.timers)?.checked_add(middle).ok_or_else(outside)?;
        let data = self.bytes.get(start..end).ok_or_else(outside)?;
        if xxh3_64(data) != block.checksum {
            return Err(corrupt(format!("key group {group} is damaged (checksum)")));
        }
        let (entries, timers) = data.split_at(middle - start);
        Ok((Cursor::new(entries, "an entry"), Cursor::new(timers, "a timer")))
    }
}

fn index_of(bytes: &[u8]) -> Result<&[u8], StateError> {
    if !bytes.starts_with(MAGIC) {
        return Err(corrupt("it does not begin as a state file of this version does"));
    }
    let truncated = || corrupt("it is truncated: its end is missing");
    let trailer_at = bytes.len().checked_sub(TRAILER).ok_or_else(truncated)?;
    let mut trailer = Cursor::new(&bytes[trailer_at..], "the trailer");
    let (at, len, checksum) = (trailer.u64()?, trailer.u64()?, trailer.u64()?);
    if trailer.rest != MAGIC {
        return Err(truncated());
    }
    let range = usize::try_from(at).ok().zip(usize::try_from(len).ok());
    let index = range
        .filter(|&(_, len)| len <= INDEX_BYTES_MAX)
        .and_then(|(at, len)| bytes[..trailer_at].get(at..at.checked_add(len)?))
        .ok_or_else(|| corrupt("its index lies outside of it"))?;
    if xxh3_64(index) != checksum {
        return Err(corrupt("its index is damaged (checksum)"));
    }
    Ok(index)
}

type Names = (Vec<String>, Vec<(String, String)>);

fn read_names(index: &mut Cursor<'_>) -> Result<Names, StateError> {
    let (operator_count, state_count) = (index.u32()?, index.u32()?);
    let mut operators = Vec::new();
    for _ in 0..operator_count {
        operators.push(index.text()?);
    }
    let mut states = Vec::new();
    for _ in 0..state_count {
        let operator = index.u32()? as usize;
        // A state without an operator has no entries; its name is of no use.
        let operator = operators.get(operator).cloned().unwrap_or_default();
        states.push((operator, index.text()?));
    }
    Ok((operators, states))
}

fn in_group(
    record: GroupRecord<'_>,
    group: KeyGroup,
    max_parallelism: u32,
) -> Result<GroupRecord<'_>, StateError> {
    let (GroupRecord::Entry { key, .. } | GroupRecord::Timer { key, .. }) = record;
    if KeyGroup::of(key, max_parallelism) == group {
        Ok(record)
    } else {
        Err(corrupt(format!("a key in group {group} belongs to another")))
    }
}

fn read_entry<'a>(cursor: &mut Cursor<'a>) -> Result<GroupRecord<'a>, StateError> {
    let state = cursor.u16()?;
    let (key, subkey) = (cursor.short()?, cursor.short()?);
    let expiry = match cursor.u8()? {
        0 => NEVER,
        HAS_EXPIRY => cursor.i64()?,
        other => return Err(corrupt(format!("an entry has the unknown flags {other}"))),
    };
    let value = cursor.long()?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(corrupt("a value is longer than any may be"));
    }
    Ok(GroupRecord::Entry { state, key, subkey, value, expiry })
}

fn read_timer<'a>(cursor: &mut Cursor<'a>) -> Result<GroupRecord<'a>, StateError> {
    let operator = cursor.u16()?;
    let domain = match cursor.u8()? {
        0 => TimeDomain::EventTime,
        1 => TimeDomain::ProcessingTime,
        other => return Err(corrupt(format!("a timer goes by the unknown clock {other}"))),
    };
    let timestamp = cursor.i64()?;
    let (key, namespace) = (cursor.short()?, cursor.short()?);
    Ok(GroupRecord::Timer { operator, domain, timestamp, key, namespace })
}

fn corrupt(what: impl Into<String>) -> StateError {
    StateError::Corrupt(what.into())
}

/// Bytes that are read from the front.
struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| corrupt(format!("{} ends in the middle", self.what)))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, StateError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, StateError> {
        self.array().map(i64::from_le_bytes)
    }

    fn short(&mut self) -> Result<&'a [u8], StateError> {
        let len = self.u16()? as usize;
        self.take(len)
    }

    fn long(&mut self) -> Result<&'a [u8], StateError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn text(&mut self) -> Result<String, StateError> {
        let bytes = self.long()?;
        let text = std::str::from_utf8(bytes).ok();
        text.map(str::to_owned).ok_or_else(|| corrupt("a name is not UTF-8"))
    }

    fn finish(&self) -> Result<(), StateError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(corrupt(format!("{} has {} bytes too many", self.what, self.rest.len())))
        }
    }
}

const _: () = assert!(KEY_BYTES_MAX == u16::MAX as usize, "lengths of keys are 16 bits wide");

#[cfg(test)]
mod tests;
