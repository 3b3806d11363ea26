//! The keyed entries of one task, by key group.
//!
//! # Invariants
//!
//! 1. Every entry lies in the table of its key's group, and the group is in the task's range.
//! 2. An entry whose time has passed is never seen, whether it was removed already or not.
//! 3. The order of sub-keys is kept only for states that were scanned at least once, and then for
//!    all of their entries.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use tidemill_types::{Column, KeyGroup, KeyGroupRange};

use crate::{
    KEY_BYTES_MAX, NEVER, StateError, VALUE_BYTES_MAX,
    arena::{Arena, DEAD, EntryRef, INDEX_BYTES, Id, KeyHash, Written},
    keyed::StateNames,
};

/// The largest answer to one read, in bytes: the ends of a column are 32 bits wide, and no guest
/// has more memory than a few times this.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How much state a task may have if nothing else is said, in bytes.
pub const STATE_BYTES_DEFAULT: usize = 8 << 30;

/// How many entries are looked at for expiry per entry written.
const SWEEP_PER_WRITE: usize = 2;

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

/// An ordered list of the sub-keys of every key.
type Order = HashMap<Box<[u8]>, BTreeSet<Box<[u8]>>>;

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
        Ok(self.entry(state, key, subkey)?.filter(|e| e.expiry > now_ms).map(|e| e.value))
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
        for index in 0..keys.len() {
            let key = keys.get(index).ok_or(StateError::NoKey { entry: index })?;
            let subkey = subkeys.get(index).unwrap_or_default();
            let value = self.entry(state, key, subkey)?.filter(|e| e.expiry > now_ms).map(|e| e.value);
            let bytes = found.data.len() + value.map_or(0, <[u8]>::len);
            if bytes > ANSWER_BYTES_MAX {
                return Err(StateError::AnswerTooLarge { bytes });
            }
            found.push(value);
        }
        Ok(found)
    }

    /// Writes entries: a null value deletes. `expiries` has one time per key, or none.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the columns do not fit together, there is no such state, a key is not
    /// this task's, or something is too large. Entries before the offending one are written.
    pub fn put_many(
        &mut self,
        state: StateId,
        keys: &Column,
        subkeys: &Column,
        values: &Column,
        expiries: &[i64],
        now_ms: i64,
    ) -> Result<(), StateError> {
        let state = self.check_state(state)?;
        check_count("sub-keys", subkeys, keys.len())?;
        check_count("values", values, keys.len())?;
        if !expiries.is_empty() && expiries.len() != keys.len() {
            let (entries, keys) = (expiries.len(), keys.len());
            return Err(StateError::Count { column: "expiries", entries, keys });
        }
        for index in 0..keys.len() {
            let key = keys.get(index).ok_or(StateError::NoKey { entry: index })?;
            let subkey = subkeys.get(index).unwrap_or_default();
            let expiry = expiries.get(index).copied().unwrap_or(NEVER);
            let value = values.get(index).filter(|_| expiry > now_ms);
            self.write(Id { state, key, subkey }, value, expiry)?;
        }
        if self.expiring {
            self.sweep(now_ms, keys.len().saturating_mul(SWEEP_PER_WRITE));
        }
        Ok(())
    }

    /// Writes one entry, or deletes it.
    ///
    /// # Errors
    ///
    /// As [`KeyedStore::put_many`].
    pub fn put(
        &mut self,
        state: StateId,
        key: &[u8],
        subkey: &[u8],
        value: Option<&[u8]>,
        expiry: i64,
    ) -> Result<(), StateError> {
        let state = self.check_state(state)?;
        self.write(Id { state, key, subkey }, value, expiry)
    }

    /// The entries of one key with a sub-key greater than `after`, in order of the sub-keys' bytes,
    /// up to about `max_bytes` of them (at least one).
    ///
    /// # Errors
    ///
    /// [`StateError`] when there is no such state or the key is not this task's.
    ///
    /// # Panics
    ///
    /// Never: a scanned state has an order.
    pub fn scan(
        &mut self,
        state: StateId,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
        now_ms: i64,
    ) -> Result<Entries, StateError> {
        let state = self.check_state(state)?;
        let hash = KeyHash::of(key);
        let group = self.group_of(hash)?;
        self.keep_order(state);
        let order = self.orders[state as usize].as_ref().expect("it is kept from now on");
        let mut entries = Entries::default();
        let Some(subkeys) = order.get(key) else { return Ok(entries) };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut expires = false;
        for subkey in subkeys.range::<[u8], _>((start, Bound::Unbounded)) {
            let id = Id { state, key, subkey };
            let entry = self.groups[group].get(hash.with(state, subkey), id);
            let Some(entry) = entry.filter(|e| e.expiry > now_ms) else { continue };
            bytes += key.len() + subkey.len() + entry.value.len();
            let limit = (max_bytes as usize).min(ANSWER_BYTES_MAX);
            if bytes > limit && !entries.keys.is_empty() {
                break;
            }
            entries.keys.push(Some(key));
            entries.subkeys.push(Some(subkey));
            entries.values.push(Some(entry.value));
            entries.expiries.push(entry.expiry);
            expires |= entry.expiry != NEVER;
        }
        if !expires {
            entries.expiries.clear();
        }
        Ok(entries)
    }

    /// Looks at up to `budget` entries and removes those that have expired. Writing does this too, a
    /// little at a time.
    pub fn sweep(&mut self, now_ms: i64, budget: usize) {
        let mut left = budget;
        for _ in 0..self.groups.len() {
            if left == 0 {
                return;
            }
            let (group, position) = self.sweep;
            let mut expired = Vec::new();
            let (seen, next) = self.groups[group].sweep(position, now_ms, left, |entry| {
                let EntryRef { id, .. } = entry;
                expired.push((id.state, id.key.to_vec(), id.subkey.to_vec()));
            });
            for (state, key, subkey) in &expired {
                let id = Id { state: *state, key, subkey };
                self.delete(group, KeyHash::of(key), id);
            }
            left -= seen;
            let moved = !expired.is_empty() && self.compact(group);
            self.sweep = match next {
                0 => ((group + 1) % self.groups.len(), 0),
                _ if moved => (group, 0),
                next => (group, next),
            };
        }
    }

    #[inline]
    fn check_state(&self, state: StateId) -> Result<u16, StateError> {
        let known = u16::try_from(state.0).ok().filter(|&number| {
            number != DEAD && self.names.states().get(number as usize).is_some_and(|s| s.keyed)
        });
        known.ok_or(StateError::UnknownState { state: state.0, states: self.names.states().len() })
    }

    #[inline]
    fn group_of(&self, hash: KeyHash) -> Result<usize, StateError> {
        let group = hash.group(self.max_parallelism);
        if self.range.contains(group) {
            Ok((group.0 - self.range.start) as usize)
        } else {
            Err(StateError::NotOwned { group, owned: self.range })
        }
    }

    #[inline]
    fn entry(&self, state: u16, key: &[u8], subkey: &[u8]) -> Result<Option<EntryRef<'_>>, StateError> {
        let hash = KeyHash::of(key);
        let group = self.group_of(hash)?;
        Ok(self.groups[group].get(hash.with(state, subkey), Id { state, key, subkey }))
    }

    /// Writes or deletes an entry of a state that exists.
    pub(crate) fn write(
        &mut self,
        id: Id<'_>,
        value: Option<&[u8]>,
        expiry: i64,
    ) -> Result<(), StateError> {
        check_key("key", id.key)?;
        check_key("sub-key", id.subkey)?;
        let hash = KeyHash::of(id.key);
        let group = self.group_of(hash)?;
        let Some(value) = value else {
            self.delete(group, hash, id);
            self.compact(group);
            return Ok(());
        };
        if value.len() > VALUE_BYTES_MAX {
            let state = self.names.states()[id.state as usize].name.clone();
            return Err(StateError::ValueTooLong { state, len: value.len() });
        }
        let needed = self.bytes + INDEX_BYTES + id.key.len() + id.subkey.len() + value.len();
        if needed > self.bytes_max {
            return Err(StateError::Full { needed, limit: self.bytes_max });
        }
        self.expiring |= expiry != NEVER;
        let arena = Arc::make_mut(&mut self.groups[group]);
        let before = arena.bytes();
        let written = arena.put(hash.with(id.state, id.subkey), id, value, expiry);
        let written = written.map_err(|_full| StateError::Full { needed, limit: u32::MAX as usize })?;
        self.bytes = self.bytes + arena.bytes() - before;
        if written == Written::New
            && let Some(order) = self.orders[id.state as usize].as_mut()
        {
            order.entry(id.key.into()).or_default().insert(id.subkey.into());
        }
        self.compact(group);
        Ok(())
    }

    fn delete(&mut self, group: usize, hash: KeyHash, id: Id<'_>) {
        let hash = hash.with(id.state, id.subkey);
        // Looked up first: deleting what is not there must not copy a shared group.
        if self.groups[group].position(hash, id).is_none() {
            return;
        }
        let arena = Arc::make_mut(&mut self.groups[group]);
        let before = arena.bytes();
        arena.remove(hash, id);
        self.bytes = self.bytes + arena.bytes() - before;
        if let Some(order) = self.orders[id.state as usize].as_mut()
            && let Some(subkeys) = order.get_mut(id.key)
        {
            subkeys.remove(id.subkey);
            if subkeys.is_empty() {
                order.remove(id.key);
            }
        }
    }

    /// Compacts a group if it is worth it; returns whether entries have moved.
    fn compact(&mut self, group: usize) -> bool {
        let Some(arena) = Arc::get_mut(&mut self.groups[group]) else { return false };
        let before = arena.bytes();
        let moved = arena.compact();
        self.bytes = self.bytes + arena.bytes() - before;
        if moved && self.sweep.0 == group {
            self.sweep.1 = 0;
        }
        moved
    }

    fn keep_order(&mut self, state: u16) {
        let order = &mut self.orders[state as usize];
        if order.is_some() {
            return;
        }
        let mut built = Order::new();
        for (_, entry) in self.groups.iter().flat_map(|group| group.iter()) {
            if entry.id.state == state {
                built.entry(entry.id.key.into()).or_default().insert(entry.id.subkey.into());
            }
        }
        *order = Some(built);
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

fn check_count(
    column: &'static str,
    entries: &Column,
    keys: usize,
) -> Result<(), StateError> {
    if entries.len() == keys || entries.is_empty() {
        Ok(())
    } else {
        Err(StateError::Count { column, entries: entries.len(), keys })
    }
}

#[inline]
pub(crate) fn check_key(what: &'static str, key: &[u8]) -> Result<(), StateError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StateError::KeyTooLong { what, len: key.len() });
    }
    Ok(())
}
