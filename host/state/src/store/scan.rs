//! Reading the entries of one key in the order of their sub-keys.
//!
//! Tables have no order. It is kept beside them, for states that are scanned at all.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use super::{ANSWER_BYTES_MAX, Entries, KeyedStore, StateId};
use crate::{
    NEVER, StateError,
    arena::{Id, KeyHash},
};

/// The sub-keys of every key of a state.
pub(super) type Order = HashMap<Box<[u8]>, BTreeSet<Box<[u8]>>>;

impl KeyedStore {
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
    #[expect(
        clippy::too_many_arguments,
        reason = "as in the contract, and the time"
    )]
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
        let order = self.orders[state as usize]
            .as_ref()
            .expect("it is kept from now on");
        let mut entries = Entries::default();
        let Some(subkeys) = order.get(key) else {
            return Ok(entries);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut expires = false;
        for subkey in subkeys.range::<[u8], _>((start, Bound::Unbounded)) {
            let id = Id { state, key, subkey };
            let entry = self.groups[group].get(hash.with(state, subkey), id);
            let Some(entry) = entry.filter(|e| e.expiry > now_ms) else {
                continue;
            };
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

    fn keep_order(&mut self, state: u16) {
        let order = &mut self.orders[state as usize];
        if order.is_some() {
            return;
        }
        let mut built = Order::new();
        for (_, entry) in self.groups.iter().flat_map(|group| group.iter()) {
            if entry.id.state == state {
                built
                    .entry(entry.id.key.into())
                    .or_default()
                    .insert(entry.id.subkey.into());
            }
        }
        *order = Some(built);
    }
}
