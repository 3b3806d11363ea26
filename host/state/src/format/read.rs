//! Reading a snapshot, by key group.

use tidemill_types::{KeyGroup, KeyGroupRange, TimeDomain};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    GroupRecord, HAS_EXPIRY, MAGIC, TRAILER,
    cursor::{Cursor, corrupt},
};
use crate::{NEVER, StateError, VALUE_BYTES_MAX};

/// The largest index that is read: names of 65,535 states of 1,000 bytes, and all groups.
const INDEX_BYTES_MAX: usize = 256 << 20;

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
        let range = KeyGroupRange {
            start: index.u32()?,
            end: index.u32()?,
        };
        if range.start > range.end || range.end > max_parallelism {
            return Err(corrupt("its key groups make no sense"));
        }
        let (operators, states) = read_names(&mut index)?;
        let mut groups = Vec::new();
        for _ in range.start..range.end {
            let (start, entries, timers) = (index.u64()?, index.u64()?, index.u64()?);
            groups.push(GroupBlock {
                start,
                entries,
                timers,
                checksum: index.u64()?,
            });
        }
        index.finish()?;
        Ok(Self {
            bytes,
            max_parallelism,
            range,
            operators,
            states,
            groups,
        })
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
        self.operators
            .get(operator as usize)
            .cloned()
            .unwrap_or_default()
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
    ) -> Result<impl Iterator<Item = Result<GroupRecord<'a>, StateError>> + use<'a>, StateError>
    {
        let place = group
            .0
            .checked_sub(self.range.start)
            .map(|place| place as usize);
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
            let record = if entries.rest.is_empty() {
                read_timer(&mut timers)
            } else {
                read_entry(&mut entries)
            };
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
        Ok((
            Cursor::new(entries, "an entry"),
            Cursor::new(timers, "a timer"),
        ))
    }
}

fn index_of(bytes: &[u8]) -> Result<&[u8], StateError> {
    if !bytes.starts_with(MAGIC) {
        return Err(corrupt(
            "it does not begin as a state file of this version does",
        ));
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
        Err(corrupt(format!(
            "a key in group {group} belongs to another"
        )))
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
    Ok(GroupRecord::Entry {
        state,
        key,
        subkey,
        value,
        expiry,
    })
}

fn read_timer<'a>(cursor: &mut Cursor<'a>) -> Result<GroupRecord<'a>, StateError> {
    let operator = cursor.u16()?;
    let domain = match cursor.u8()? {
        0 => TimeDomain::EventTime,
        1 => TimeDomain::ProcessingTime,
        other => {
            return Err(corrupt(format!(
                "a timer goes by the unknown clock {other}"
            )));
        }
    };
    let timestamp = cursor.i64()?;
    let (key, namespace) = (cursor.short()?, cursor.short()?);
    Ok(GroupRecord::Timer {
        operator,
        domain,
        timestamp,
        key,
        namespace,
    })
}

#[cfg(test)]
mod tests;
