//! Which (key, sub-key) has which slot.

use hashbrown::HashTable;

use crate::hash::hash;

/// A slot's number.
pub(crate) type SlotIndex = u32;

/// What a slot costs besides its bytes: its own fields and its place in the table.
const SLOT_OVERHEAD_BYTES: usize = 48;

#[derive(Debug)]
struct Slot {
    hash: u64,
    /// The key followed by the sub-key.
    bytes: Box<[u8]>,
    key_len: u32,
    /// Used since the eviction's hand last came by.
    hot: bool,
    live: bool,
}

/// The slots of a store.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    table: HashTable<SlotIndex>,
    slots: Vec<Slot>,
    free: Vec<SlotIndex>,
    hand: usize,
    bytes: usize,
}

impl Slots {
    /// The slot of (key, sub-key), and whether it is new.
    #[inline]
    pub(crate) fn resolve(&mut self, key: &[u8], subkey: &[u8]) -> (SlotIndex, bool) {
        let hash = hash_of(key, subkey);
        let found = self.table.find(hash, |slot| {
            let slot = &self.slots[*slot as usize];
            slot.hash == hash && is(slot, key, subkey)
        });
        if let Some(found) = found {
            self.slots[*found as usize].hot = true;
            return (*found, false);
        }
        (self.insert(hash, key, subkey), true)
    }

    #[cold]
    fn insert(&mut self, hash: u64, key: &[u8], subkey: &[u8]) -> SlotIndex {
        let mut bytes = Vec::with_capacity(key.len() + subkey.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(subkey);
        self.bytes += bytes.len() + SLOT_OVERHEAD_BYTES;
        let key_len = u32::try_from(key.len()).expect("a key is smaller than a guest's memory");
        let slot = Slot {
            hash,
            bytes: bytes.into(),
            key_len,
            hot: true,
            live: true,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer slots than bytes")
            }
        };
        let slots = &self.slots;
        self.table
            .insert_unique(hash, index, |slot| slots[*slot as usize].hash);
        index
    }

    pub(crate) fn release(&mut self, index: SlotIndex) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.live, "a slot is released once");
        let hash = slot.hash;
        self.bytes -= slot.bytes.len() + SLOT_OVERHEAD_BYTES;
        slot.live = false;
        slot.bytes = Box::default();
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        self.free.push(index);
    }

    pub(crate) fn key(&self, index: SlotIndex) -> &[u8] {
        let slot = &self.slots[index as usize];
        &slot.bytes[..slot.key_len as usize]
    }

    pub(crate) fn subkey(&self, index: SlotIndex) -> &[u8] {
        let slot = &self.slots[index as usize];
        &slot.bytes[slot.key_len as usize..]
    }

    pub(crate) fn is_live(&self, index: SlotIndex) -> bool {
        self.slots[index as usize].live
    }

    /// How many slots there are, live or free: cells are needed for all of them.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn live(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A slot that has not been used for a while, by the clock algorithm.
    pub(crate) fn coldest(&mut self) -> Option<SlotIndex> {
        if self.table.is_empty() {
            return None;
        }
        // The first round may find all hot and cools them, so the second one finds one.
        for _ in 0..=self.slots.len() * 2 {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.live && !slot.hot {
                return u32::try_from(self.hand).ok();
            }
            slot.hot = false;
        }
        None
    }
}

#[inline]
fn is(slot: &Slot, key: &[u8], subkey: &[u8]) -> bool {
    let (own_key, own_subkey) = slot.bytes.split_at(slot.key_len as usize);
    own_key == key && own_subkey == subkey
}

#[inline]
fn hash_of(key: &[u8], subkey: &[u8]) -> u64 {
    let then = if subkey.is_empty() {
        0
    } else {
        hash(subkey, 0)
    };
    hash(key, then)
}
