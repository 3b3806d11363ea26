//! The keyed entries of one task, by key group.
//!
//! # Invariants
//!
//! 1. Every entry lies in the table of its key's group, and the group is in the task's range.
//! 2. An entry whose time has passed is never seen, whether it was removed already or not.
//! 3. The order of sub-keys is kept only for states that were scanned at least once, and then for
//!    all of their entries.

use std::sync::Arc;

use tidemill_types::{Column, KeyGroup, KeyGroupRange};

use crate::{
    KEY_BYTES_MAX, StateError,
    arena::{Arena, DEAD, EntryRef, Id, KeyHash},
    keyed::StateNames,
};

mod scan;
mod write;

use scan::Order;

/// The largest answer to one read, in bytes: the ends of a column are 32 bits wide, and no guest
/// has more memory than a few times this.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How much state a task may have if nothing else is said, in bytes.
pub const STATE_BYTES_DEFAULT: usize = 8 << 30;

/// How many reads of a batch wait for memory together.
const LOOKAHEAD: usize = 32;

/// Where an entry may be.
#[derive(Debug, Clone, Copy, Default)]
struct Candidate {
    group: usize,
    hash: u32,
    position: Option<u32>,
}

/// A state: its position in the vertex's list of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub u32);

/// Entries of one state, column by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Keys.
    pub keys: Column,
    /// Sub-keys; absent or empty for states without.
    pub subkeys: Column,
    /// Values; a null deletes the entry.
    pub values: Column,
    /// When each entry expires, in milliseconds since the epoch; empty if none does.
    pub expiries: Vec<i64>,
}

/// Keyed state in memory.
#[derive(Debug)]
pub struct KeyedStore {
    range: KeyGroupRange,
    max_parallelism: u32,
    names: Arc<StateNames>,
    groups: Vec<Arc<Arena>>,
    /// By state; `None` until its first scan.
    orders: Vec<Option<Order>>,
    bytes: usize,
    bytes_max: usize,
    /// Whether any entry was ever given an expiry.
    expiring: bool,
    sweep: (usize, u32),
}

impl KeyedStore {
    /// An empty store for these key groups.
    #[must_use]
    pub fn new(range: KeyGroupRange, max_parallelism: u32, names: Arc<StateNames>) -> Self {
        Self {
            range,
            max_parallelism,
            groups: (range.start..range.end).map(|_| Arc::default()).collect(),
            orders: names.states().iter().map(|_| None).collect(),
            names,
            bytes: 0,
            bytes_max: STATE_BYTES_DEFAULT,
            expiring: false,
            sweep: (0, 0),
        }
    }

    /// Limits the memory that entries may take.
    #[must_use]
    pub const fn with_limit(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// The number of entries, including expired ones that have not been removed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.is_empty())
    }

    /// The memory that entries take, in bytes.
    #[must_use]
    pub const fn byte_size(&self) -> usize {
        self.bytes
    }

    pub(crate) fn groups(&self) -> &[Arc<Arena>] {
        &self.groups
    }

    /// Reads one entry. A state without sub-keys has an empty one.
    ///
    /// # Errors
    ///
    /// [`StateError`] when there is no such state or the key is not this task's.
    pub fn get(
        &self,
        state: StateId,
        key: &[u8],
        subkey: &[u8],
        now_ms: i64,
    ) -> Result<Option<&[u8]>, StateError> {
        let state = self.check_state(state)?;
        Ok(self
            .entry(state, key, subkey)?
            .filter(|e| e.expiry > now_ms)
            .map(|e| e.value))
    }

    /// Reads the entries of (key, sub-key) pairs. What does not exist or has expired is null.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the columns do not fit together, there is no such state, or a key is not
    /// this task's.
    pub fn get_many(
        &self,
        state: StateId,
        keys: &Column,
        subkeys: &Column,
        now_ms: i64,
    ) -> Result<Column, StateError> {
        let state = self.check_state(state)?;
        check_count("sub-keys", subkeys, keys.len())?;
        let mut found = Column::default();
        found.ends.reserve(keys.len());
        let mut candidates = [Candidate::default(); LOOKAHEAD];
        for first in (0..keys.len()).step_by(LOOKAHEAD) {
            let chunk = first..keys.len().min(first + LOOKAHEAD);
            for (index, candidate) in chunk.clone().zip(&mut candidates) {
                let key = keys.get(index).ok_or(StateError::NoKey { entry: index })?;
                let subkey = subkeys.get(index).unwrap_or_default();
                *candidate = self.candidate(state, key, subkey)?;
            }
            for (index, candidate) in chunk.zip(&candidates) {
                let (key, subkey) = (keys.bytes(index), subkeys.get(index).unwrap_or_default());
                let entry = self.confirm(*candidate, Id { state, key, subkey });
                let value = entry.filter(|e| e.expiry > now_ms).map(|e| e.value);
                let bytes = found.data.len() + value.map_or(0, <[u8]>::len);
                if bytes > ANSWER_BYTES_MAX {
                    return Err(StateError::AnswerTooLarge { bytes });
                }
                found.push(value);
            }
        }
        Ok(found)
    }

    #[inline]
    fn check_state(&self, state: StateId) -> Result<u16, StateError> {
        let known = u16::try_from(state.0).ok().filter(|&number| {
            number != DEAD
                && self
                    .names
                    .states()
                    .get(number as usize)
                    .is_some_and(|s| s.keyed)
        });
        known.ok_or(StateError::UnknownState {
            state: state.0,
            states: self.names.states().len(),
        })
    }

    #[inline]
    fn group_of(&self, hash: KeyHash) -> Result<usize, StateError> {
        let group = hash.group(self.max_parallelism);
        if self.range.contains(group) {
            Ok((group.0 - self.range.start) as usize)
        } else {
            Err(StateError::NotOwned {
                group,
                owned: self.range,
            })
        }
    }

    #[inline]
    fn entry(
        &self,
        state: u16,
        key: &[u8],
        subkey: &[u8],
    ) -> Result<Option<EntryRef<'_>>, StateError> {
        let hash = KeyHash::of(key);
        let group = self.group_of(hash)?;
        Ok(self.groups[group].get(hash.with(state, subkey), Id { state, key, subkey }))
    }

    #[inline]
    fn candidate(&self, state: u16, key: &[u8], subkey: &[u8]) -> Result<Candidate, StateError> {
        let key = KeyHash::of(key);
        let group = self.group_of(key)?;
        let hash = key.with(state, subkey);
        Ok(Candidate {
            group,
            hash,
            position: self.groups[group].candidate(hash),
        })
    }

    #[inline]
    fn confirm(&self, candidate: Candidate, id: Id<'_>) -> Option<EntryRef<'_>> {
        let Candidate {
            group,
            hash,
            position,
        } = candidate;
        self.groups[group].get_at(position?, hash, id)
    }

    /// The key groups it owns.
    #[must_use]
    pub const fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// The number of key groups of the vertex.
    #[must_use]
    pub const fn max_parallelism(&self) -> u32 {
        self.max_parallelism
    }

    /// Whether the key belongs to this task.
    #[must_use]
    pub fn owns(&self, key: &[u8]) -> bool {
        self.range.contains(KeyGroup::of(key, self.max_parallelism))
    }
}

fn check_count(column: &'static str, entries: &Column, keys: usize) -> Result<(), StateError> {
    if entries.len() == keys || entries.is_empty() {
        Ok(())
    } else {
        Err(StateError::Count {
            column,
            entries: entries.len(),
            keys,
        })
    }
}

#[inline]
pub(crate) fn check_key(what: &'static str, key: &[u8]) -> Result<(), StateError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StateError::KeyTooLong {
            what,
            len: key.len(),
        });
    }
    Ok(())
}
