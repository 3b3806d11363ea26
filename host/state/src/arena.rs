//! A hash table whose entries lie one after the other in one block of memory.
//!
//! Small entries by the million are what keyed state is made of. In a block they cost their bytes,
//! a header of 16 bytes (24 with an expiry) and 9 bytes of index, without an allocation each; and a
//! whole table is copied, for a snapshot that is still being encoded, by copying two blocks.
//!
//! # Invariants
//!
//! 1. Every slot of the index points at the header of an entry; live entries have exactly one slot.
//! 2. An entry is changed in place when the new value fits, otherwise appended again and the old
//!    one marked dead. Dead entries have the state number [`DEAD`] and are never found.
//! 3. Only [`Arena::compact`] moves entries; positions are stable otherwise.

use hashbrown::HashTable;
use tidemill_types::KeyGroup;
use xxhash_rust::xxh3::xxh3_64;

use crate::NEVER;

/// The state number of dead entries; live ones are below.
pub(crate) const DEAD: u16 = u16::MAX;

/// Positions are 32 bits wide. One table holds one key group, or the timers of one point in time.
const ARENA_BYTES_MAX: usize = u32::MAX as usize;

const HEADER: usize = 16;
const EXPIRY: usize = 8;
const HAS_EXPIRY: u16 = 1;

/// Less dead weight than this is not worth a copy.
const COMPACT_BYTES_MIN: usize = 4096;

/// What an entry costs beside its bytes in the block: a slot and a control byte.
pub(crate) const INDEX_BYTES: usize = 9;

/// The parts of an entry that identify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id<'a> {
    pub(crate) state: u16,
    pub(crate) key: &'a [u8],
    pub(crate) subkey: &'a [u8],
}

/// The hash of a key, and of a whole identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(xxh3_64(key))
    }

    /// The group of the key: the same as [`KeyGroup::of`].
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is below a u32"
    )]
    pub(crate) const fn group(self, max_parallelism: u32) -> KeyGroup {
        KeyGroup((self.0 % max_parallelism as u64) as u32)
    }

    /// All keys of a group agree in their remainder, so that the bits have to be mixed once more.
    #[inline]
    pub(crate) fn with(self, state: u16, subkey: &[u8]) -> u32 {
        let subkey = if subkey.is_empty() {
            0
        } else {
            xxh3_64(subkey)
        };
        let mixed =
            self.0 ^ subkey.rotate_left(23) ^ u64::from(state).wrapping_mul(0xA24B_AED4_963E_E407);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        (mixed >> 32) as u32
    }
}

/// An entry as it lies in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRef<'a> {
    pub(crate) id: Id<'a>,
    pub(crate) value: &'a [u8],
    /// [`NEVER`] if it does not expire.
    pub(crate) expiry: i64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    position: u32,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arena {
    block: Vec<u8>,
    index: HashTable<Slot>,
    dead_bytes: usize,
}

/// The block cannot hold the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArenaFull;

/// What writing an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    New,
    Replaced,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    state: u16,
    key: usize,
    subkey: usize,
    has_expiry: bool,
    value: usize,
    capacity: usize,
}

impl Header {
    const fn prefix(self) -> usize {
        HEADER + if self.has_expiry { EXPIRY } else { 0 }
    }

    const fn value_at(self) -> usize {
        self.prefix() + self.key + self.subkey
    }

    const fn len(self) -> usize {
        self.value_at() + self.capacity
    }
}

#[inline]
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[inline]
fn header(block: &[u8], position: usize) -> Header {
    let raw: &[u8; HEADER] = block[position..]
        .first_chunk()
        .expect("invariant 1: a header at every position");
    let short = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    Header {
        state: short(0),
        key: short(2) as usize,
        subkey: short(4) as usize,
        has_expiry: short(6) & HAS_EXPIRY != 0,
        value: long(8) as usize,
        capacity: long(12) as usize,
    }
}

#[inline]
fn entry(block: &[u8], position: usize) -> EntryRef<'_> {
    let head = header(block, position);
    let expiry = match block[position + HEADER..].first_chunk::<EXPIRY>() {
        Some(raw) if head.has_expiry => i64::from_le_bytes(*raw),
        _ => NEVER,
    };
    let (key, rest) = block[position + head.prefix()..].split_at(head.key);
    let (subkey, rest) = rest.split_at(head.subkey);
    EntryRef {
        id: Id {
            state: head.state,
            key,
            subkey,
        },
        value: &rest[..head.value],
        expiry,
    }
}

impl Arena {
    /// The live entries.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What the entries take, dead ones included.
    pub(crate) fn bytes(&self) -> usize {
        self.block.len() + INDEX_BYTES * self.index.len()
    }

    fn find(&self, hash: u32, id: Id<'_>) -> Option<usize> {
        let slot = self.index.find(spread(hash), |slot| {
            slot.hash == hash && entry(&self.block, slot.position as usize).id == id
        });
        slot.map(|slot| slot.position as usize)
    }

    pub(crate) fn get(&self, hash: u32, id: Id<'_>) -> Option<EntryRef<'_>> {
        self.find(hash, id)
            .map(|position| entry(&self.block, position))
    }

    /// Where an entry with this hash may be, without looking at it. A batch of reads asks for all of
    /// its candidates first, so that the waits for memory overlap.
    #[inline]
    pub(crate) fn candidate(&self, hash: u32) -> Option<u32> {
        self.index
            .find(spread(hash), |slot| slot.hash == hash)
            .map(|slot| slot.position)
    }

    /// Brings the memory behind a candidate near, so that a write finds it there.
    #[inline]
    pub(crate) fn touch(&self, candidate: u32) {
        std::hint::black_box(self.block.get(candidate as usize + HEADER).copied());
    }

    /// The entry, which is most probably at the candidate's position.
    #[inline]
    pub(crate) fn get_at(&self, candidate: u32, hash: u32, id: Id<'_>) -> Option<EntryRef<'_>> {
        let entry = entry(&self.block, candidate as usize);
        if entry.id == id {
            Some(entry)
        } else {
            self.get(hash, id)
        }
    }

    /// The position of an entry, for [`Arena::at`].
    pub(crate) fn position(&self, hash: u32, id: Id<'_>) -> Option<u32> {
        self.find(hash, id).map(narrow)
    }

    /// The entry at a position, unless it has died since.
    pub(crate) fn at(&self, position: u32) -> Option<EntryRef<'_>> {
        Some(entry(&self.block, position as usize)).filter(|entry| entry.id.state != DEAD)
    }

    /// Writes an entry. Key, sub-key and value are within their limits.
    pub(crate) fn put(
        &mut self,
        hash: u32,
        id: Id<'_>,
        value: &[u8],
        expiry: i64,
    ) -> Result<Written, ArenaFull> {
        debug_assert!(id.state != DEAD, "invariant 2");
        let Some(position) = self.find(hash, id) else {
            let position = self.append(id, value, expiry, value.len())?;
            let slot = Slot { hash, position };
            self.index
                .insert_unique(spread(hash), slot, |slot| spread(slot.hash));
            return Ok(Written::New);
        };
        let head = header(&self.block, position);
        if value.len() <= head.capacity && (head.has_expiry || expiry == NEVER) {
            self.overwrite(position, head, value, expiry);
            return Ok(Written::Replaced);
        }
        // It has outgrown its place and may do so again.
        let capacity = (value.len() + value.len() / 4).next_multiple_of(8);
        let moved = self.append(id, value, expiry, capacity)?;
        self.mark_dead(position);
        let same = |slot: &Slot| slot.position as usize == position;
        let slot = self
            .index
            .find_mut(spread(hash), same)
            .expect("invariant 1: a live entry has a slot");
        slot.position = moved;
        Ok(Written::Replaced)
    }

    /// Removes an entry; returns whether there was one.
    pub(crate) fn remove(&mut self, hash: u32, id: Id<'_>) -> bool {
        let block = &self.block;
        let found = self.index.find_entry(spread(hash), |slot| {
            slot.hash == hash && entry(block, slot.position as usize).id == id
        });
        let Ok(found) = found else { return false };
        let position = found.remove().0.position as usize;
        self.mark_dead(position);
        true
    }

    /// Removes the live entry at a position.
    pub(crate) fn remove_at(&mut self, position: u32) {
        let id = entry(&self.block, position as usize).id;
        let hash = KeyHash::of(id.key).with(id.state, id.subkey);
        let same = |slot: &Slot| slot.position == position;
        if let Ok(found) = self.index.find_entry(spread(hash), same) {
            found.remove();
            self.mark_dead(position as usize);
        }
    }

    /// All live entries with their positions, in the order in which they were written.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, EntryRef<'_>)> {
        self.iter_from(0)
            .filter(|(_, entry)| entry.id.state != DEAD)
    }

    /// The positions of all live entries, in an order that depends on nothing but their identities.
    /// (By hash: comparing keys would take several times as long.)
    pub(crate) fn ordered(&self) -> Vec<u32> {
        let mut slots: Vec<Slot> = self.index.iter().copied().collect();
        slots.sort_unstable_by(|a, b| {
            let id = |slot: &Slot| entry(&self.block, slot.position as usize).id;
            a.hash.cmp(&b.hash).then_with(|| id(a).cmp(&id(b)))
        });
        slots.into_iter().map(|slot| slot.position).collect()
    }

    /// All entries, dead ones included, from a position on.
    fn iter_from(&self, position: u32) -> impl Iterator<Item = (u32, EntryRef<'_>)> {
        let mut next = position as usize;
        std::iter::from_fn(move || {
            if next >= self.block.len() {
                return None;
            }
            let position = next;
            next += header(&self.block, position).len();
            Some((narrow(position), entry(&self.block, position)))
        })
    }

    /// Looks at up to `budget` entries from a position on: calls `expired` for those that are past
    /// their time. Returns how many it has looked at, and where to go on (0: at the start again).
    pub(crate) fn sweep(
        &self,
        from: u32,
        now_ms: i64,
        budget: usize,
        mut expired: impl FnMut(EntryRef<'_>),
    ) -> (usize, u32) {
        let mut entries = self.iter_from(from);
        let mut seen = 0;
        for (_, entry) in entries.by_ref().take(budget) {
            seen += 1;
            if entry.id.state != DEAD && entry.expiry <= now_ms {
                expired(entry);
            }
        }
        (seen, entries.next().map_or(0, |(position, _)| position))
    }

    /// Gives memory of dead entries back when they have become more than the live ones. Returns
    /// whether entries have moved.
    pub(crate) fn compact(&mut self) -> bool {
        if self.dead_bytes < COMPACT_BYTES_MIN || self.dead_bytes * 2 < self.block.len() {
            return false;
        }
        let mut block = Vec::with_capacity(self.block.len() - self.dead_bytes);
        for slot in self.index.iter_mut() {
            let from = slot.position as usize;
            let len = header(&self.block, from).len();
            slot.position = narrow(block.len());
            block.extend_from_slice(&self.block[from..from + len]);
        }
        self.block = block;
        self.dead_bytes = 0;
        if self.index.capacity() > 4 * self.index.len() {
            self.index.shrink_to_fit(|slot| spread(slot.hash));
        }
        true
    }

    fn append(
        &mut self,
        id: Id<'_>,
        value: &[u8],
        expiry: i64,
        capacity: usize,
    ) -> Result<u32, ArenaFull> {
        let position = self.block.len();
        let has_expiry = expiry != NEVER;
        let head = Header {
            state: id.state,
            key: id.key.len(),
            subkey: id.subkey.len(),
            has_expiry,
            value: value.len(),
            capacity,
        };
        if position + head.len() > ARENA_BYTES_MAX {
            return Err(ArenaFull);
        }
        let mut raw = [0; HEADER];
        raw[0..2].copy_from_slice(&id.state.to_le_bytes());
        raw[2..4].copy_from_slice(&short(id.key.len()).to_le_bytes());
        raw[4..6].copy_from_slice(&short(id.subkey.len()).to_le_bytes());
        raw[6..8].copy_from_slice(&u16::from(has_expiry).to_le_bytes());
        raw[8..12].copy_from_slice(&narrow(value.len()).to_le_bytes());
        raw[12..16].copy_from_slice(&narrow(capacity).to_le_bytes());
        self.block.extend_from_slice(&raw);
        if has_expiry {
            self.block.extend_from_slice(&expiry.to_le_bytes());
        }
        self.block.extend_from_slice(id.key);
        self.block.extend_from_slice(id.subkey);
        self.block.extend_from_slice(value);
        self.block.resize(position + head.len(), 0);
        Ok(narrow(position))
    }

    fn overwrite(&mut self, position: usize, head: Header, value: &[u8], expiry: i64) {
        self.block[position + 8..position + 12].copy_from_slice(&narrow(value.len()).to_le_bytes());
        if head.has_expiry {
            let at = position + HEADER;
            self.block[at..at + EXPIRY].copy_from_slice(&expiry.to_le_bytes());
        }
        let at = position + head.value_at();
        self.block[at..at + value.len()].copy_from_slice(value);
    }

    fn mark_dead(&mut self, position: usize) {
        self.dead_bytes += header(&self.block, position).len();
        self.block[position..position + 2].copy_from_slice(&DEAD.to_le_bytes());
    }
}

fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("blocks and values are below 4 GiB")
}

fn short(len: usize) -> u16 {
    u16::try_from(len).expect("keys and sub-keys are below 64 KiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &[u8]) -> (u32, Id<'_>) {
        (
            KeyHash::of(key).with(3, b"s"),
            Id {
                state: 3,
                key,
                subkey: b"s",
            },
        )
    }

    #[test]
    fn values_grow_shrink_and_move() {
        let mut arena = Arena::default();
        let (hash, key) = id(b"k");
        let other = id(b"other");
        arena.put(other.0, other.1, b"unchanged", NEVER).unwrap();
        for len in [0, 5, 3, 200, 0, 1000, 7] {
            let value = vec![7; len];
            arena.put(hash, key, &value, NEVER).unwrap();
            assert_eq!(arena.get(hash, key).unwrap().value, value);
            assert_eq!(arena.len(), 2);
        }
        arena.put(hash, key, b"x", 77).unwrap();
        assert_eq!(arena.get(hash, key).unwrap().expiry, 77);
        arena.put(hash, key, b"x", NEVER).unwrap();
        assert_eq!(arena.get(hash, key).unwrap().expiry, NEVER);
        assert_eq!(arena.get(other.0, other.1).unwrap().value, b"unchanged");
    }

    #[test]
    fn compaction_keeps_what_lives() {
        let mut arena = Arena::default();
        for n in 0u32..10_000 {
            let key = n.to_le_bytes();
            let (hash, id) = id(&key);
            arena.put(hash, id, &key, NEVER).unwrap();
        }
        for n in (0u32..10_000).filter(|n| n % 10 != 0) {
            let key = n.to_le_bytes();
            let (hash, id) = id(&key);
            assert!(arena.remove(hash, id));
            assert!(!arena.remove(hash, id));
        }
        let before = arena.bytes();
        assert!(arena.compact());
        assert!(arena.bytes() * 5 < before);
        assert_eq!(arena.iter().count(), 1_000);
        for n in 0u32..10_000 {
            let key = n.to_le_bytes();
            let (hash, id) = id(&key);
            assert_eq!(
                arena.get(hash, id).map(|e| e.value),
                (n % 10 == 0).then_some(&key[..])
            );
        }
    }
}
