//! Writing, deleting and expiring entries.

use std::{ops::Range, sync::Arc};

use tidemill_types::Column;

use super::{Candidate, KeyedStore, LOOKAHEAD, StateId, check_count, check_key};
use crate::{
    NEVER, StateError, VALUE_BYTES_MAX,
    arena::{EntryRef, INDEX_BYTES, Id, KeyHash, Written},
};

/// How many entries are looked at for expiry per entry written.
const SWEEP_PER_WRITE: usize = 2;

impl KeyedStore {
    /// Writes entries: a null value deletes. `expiries` has one time per key, or none.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the columns do not fit together, there is no such state, a key is not
    /// this task's, or something is too large. Entries before the offending one are written.
    #[expect(
        clippy::too_many_arguments,
        reason = "columns that callers have one by one"
    )]
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
            return Err(StateError::Count {
                column: "expiries",
                entries,
                keys,
            });
        }
        for index in 0..keys.len() {
            if index % LOOKAHEAD == 0 {
                self.look_ahead(
                    state,
                    keys,
                    subkeys,
                    index..keys.len().min(index + LOOKAHEAD),
                );
            }
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
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of an entry, one by one"
    )]
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
                let id = Id {
                    state: *state,
                    key,
                    subkey,
                };
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
            return Err(StateError::ValueTooLong {
                state,
                len: value.len(),
            });
        }
        let needed = self.bytes + INDEX_BYTES + id.key.len() + id.subkey.len() + value.len();
        if needed > self.bytes_max {
            return Err(StateError::Full {
                needed,
                limit: self.bytes_max,
            });
        }
        self.expiring |= expiry != NEVER;
        let arena = Arc::make_mut(&mut self.groups[group]);
        let before = arena.bytes();
        let written = arena.put(hash.with(id.state, id.subkey), id, value, expiry);
        let written = written.map_err(|_full| StateError::Full {
            needed,
            limit: u32::MAX as usize,
        })?;
        self.bytes = self.bytes + arena.bytes() - before;
        if written == Written::New
            && let Some(order) = self.orders[id.state as usize].as_mut()
        {
            order
                .entry(id.key.into())
                .or_default()
                .insert(id.subkey.into());
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
        let Some(arena) = Arc::get_mut(&mut self.groups[group]) else {
            return false;
        };
        let before = arena.bytes();
        let moved = arena.compact();
        self.bytes = self.bytes + arena.bytes() - before;
        if moved && self.sweep.0 == group {
            self.sweep.1 = 0;
        }
        moved
    }

    /// Brings the memory of entries that are about to be written near. Writing checks everything.
    fn look_ahead(&self, state: u16, keys: &Column, subkeys: &Column, chunk: Range<usize>) {
        let mut candidates = [Candidate::default(); LOOKAHEAD];
        for (index, candidate) in chunk.zip(&mut candidates) {
            let (key, subkey) = (keys.bytes(index), subkeys.get(index).unwrap_or_default());
            *candidate = self.candidate(state, key, subkey).unwrap_or_default();
        }
        for Candidate {
            group, position, ..
        } in candidates
        {
            if let Some(position) = position {
                self.groups[group].touch(position);
            }
        }
    }
}
