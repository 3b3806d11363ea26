//! One state of an operator: a typed cell for each slot of its store.

use std::any::Any;
use std::collections::VecDeque;

use crate::batch::{ColumnExt, Entries, empty};
use crate::bindings::tidemill::job::state::Entries as StateEntries;
use crate::state::slots::{SlotIndex, Slots};
use crate::{avro, host};

/// How much is read or written in one call of the host.
const CALL_ENTRIES_MAX: usize = 4096;

#[derive(Debug)]
struct Cell<V> {
    value: Option<V>,
    /// Differs from the host's entry.
    dirty: bool,
    /// The host has, or may have, an entry.
    stored: bool,
    /// How long the value was when last read or written: what it weighs in the cache.
    encoded_len: u32,
}

impl<V> Default for Cell<V> {
    fn default() -> Self {
        Self {
            value: None,
            dirty: false,
            stored: false,
            encoded_len: 0,
        }
    }
}

/// The cells of a state.
#[derive(Debug)]
pub(crate) struct Column<V> {
    state: u32,
    cells: Vec<Cell<V>>,
    /// Slots whose cells became dirty, oldest first; some may be clean again.
    dirty: VecDeque<SlotIndex>,
    /// Whether the host may have entries at all.
    has_entries: bool,
    weight: usize,
    /// Slots whose entries were deleted by writing.
    emptied: Vec<SlotIndex>,
}

/// A column of any type, for what happens to all states of an operator alike.
pub(crate) trait AnyColumn: Any {
    /// The task starts.
    fn open(&mut self, restored: bool);
    /// Makes cells for all slots.
    fn grow(&mut self, slots: usize);
    /// Reads the host's entries of these slots.
    fn load(&mut self, slots: &Slots, which: &[SlotIndex]) -> Result<(), String>;
    /// Writes up to `max` dirty cells, the oldest first.
    fn write_back(&mut self, slots: &Slots, max: usize) -> Result<(), String>;
    /// How many cells wait to be written, at most.
    fn dirty(&self) -> usize;
    /// Whether a slot's cell holds nothing and owes nothing.
    fn is_vacant(&self, slot: SlotIndex) -> bool;
    /// Whether a slot's cell can be forgotten without loss.
    fn is_clean(&self, slot: SlotIndex) -> bool;
    /// Forgets a slot's cell.
    fn forget(&mut self, slot: SlotIndex);
    /// What the cells of so many live slots weigh, in bytes.
    fn weight(&self, live: usize) -> usize;
    /// Hands over the slots whose entries were deleted by writing since the last time.
    fn take_emptied(&mut self) -> Vec<SlotIndex>;
}

impl<V: crate::StateValue> Column<V> {
    pub(crate) fn new(state: u32) -> Self {
        Self {
            state,
            cells: Vec::new(),
            dirty: VecDeque::new(),
            has_entries: false,
            weight: 0,
            emptied: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: SlotIndex) -> Option<&V> {
        self.cells[slot as usize].value.as_ref()
    }

    /// The value, to be changed in place: the cell counts as changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: SlotIndex) -> &mut Option<V> {
        let cell = &mut self.cells[slot as usize];
        if !cell.dirty {
            cell.dirty = true;
            self.dirty.push_back(slot);
        }
        &mut cell.value
    }

    /// Takes the value out and leaves nothing.
    pub(crate) fn take(&mut self, slot: SlotIndex) -> Option<V> {
        let cell = &mut self.cells[slot as usize];
        let value = cell.value.take();
        if cell.stored && !cell.dirty {
            self.dirty.push_back(slot);
        }
        // What the host never had needs no deletion.
        cell.dirty = cell.stored;
        self.weight -= cell.encoded_len as usize;
        cell.encoded_len = 0;
        value
    }

    fn write(&mut self, slots: &Slots, which: &[SlotIndex]) -> Result<(), String> {
        let mut entries = StateEntries {
            keys: empty(),
            subkeys: empty(),
            values: empty(),
            expiries: Vec::new(),
        };
        for slot in which {
            let cell = &mut self.cells[*slot as usize];
            let before = entries.values.data.len();
            match &cell.value {
                Some(value) => {
                    avro::write(value, &mut entries.values.data)
                        .map_err(|error| format!("a state's value cannot be written: {error}"))?;
                    let end = crate::batch::end_of(&entries.values.data);
                    entries.values.ends.push(end);
                }
                None => {
                    entries.values.push_null();
                    self.emptied.push(*slot);
                }
            }
            let len = u32::try_from(entries.values.data.len() - before).unwrap_or(u32::MAX);
            self.weight = self.weight + len as usize - cell.encoded_len as usize;
            cell.encoded_len = len;
            cell.dirty = false;
            cell.stored = cell.value.is_some();
            push_address(&mut entries.keys, &mut entries.subkeys, slots, *slot);
        }
        self.has_entries = true;
        host::state_put_many(self.state, &entries);
        Ok(())
    }
}

/// States without sub-keys leave that column away.
fn push_address(
    keys: &mut crate::bindings::tidemill::job::types::Column,
    subkeys: &mut crate::bindings::tidemill::job::types::Column,
    slots: &Slots,
    slot: SlotIndex,
) {
    keys.push(slots.key(slot));
    let subkey = slots.subkey(slot);
    if !subkey.is_empty() {
        subkeys.push(subkey);
    }
}

impl<V: crate::StateValue> AnyColumn for Column<V> {
    fn open(&mut self, restored: bool) {
        self.has_entries = restored;
    }

    fn grow(&mut self, slots: usize) {
        if self.cells.len() < slots {
            self.cells.resize_with(slots, Cell::default);
        }
    }

    fn load(&mut self, slots: &Slots, which: &[SlotIndex]) -> Result<(), String> {
        if !self.has_entries {
            return Ok(());
        }
        for some in which.chunks(CALL_ENTRIES_MAX) {
            let (mut keys, mut subkeys) = (empty(), empty());
            for slot in some {
                push_address(&mut keys, &mut subkeys, slots, *slot);
            }
            let values = host::state_get_many(self.state, &keys, &subkeys);
            let mut entries = Entries::of(&values);
            for (i, slot) in some.iter().enumerate() {
                let Some(bytes) = entries.at(i) else { continue };
                let value = avro::read(bytes)
                    .map_err(|error| format!("a state's value cannot be read: {error}"))?;
                let cell = &mut self.cells[*slot as usize];
                let encoded_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                *cell = Cell {
                    value: Some(value),
                    dirty: false,
                    stored: true,
                    encoded_len,
                };
                self.weight += encoded_len as usize;
            }
        }
        Ok(())
    }

    fn write_back(&mut self, slots: &Slots, max: usize) -> Result<(), String> {
        let mut left = max;
        while left > 0 && !self.dirty.is_empty() {
            let mut which = Vec::new();
            while which.len() < left.min(CALL_ENTRIES_MAX) {
                let Some(slot) = self.dirty.pop_front() else {
                    break;
                };
                let cell = &mut self.cells[slot as usize];
                // Marked clean at once, so that a slot that is queued twice is written once.
                if std::mem::take(&mut cell.dirty) && (cell.value.is_some() || cell.stored) {
                    which.push(slot);
                }
            }
            left -= which.len();
            if which.is_empty() {
                return Ok(());
            }
            self.write(slots, &which)?;
        }
        Ok(())
    }

    fn dirty(&self) -> usize {
        self.dirty.len()
    }

    fn is_vacant(&self, slot: SlotIndex) -> bool {
        let cell = &self.cells[slot as usize];
        cell.value.is_none() && !cell.dirty
    }

    fn is_clean(&self, slot: SlotIndex) -> bool {
        !self.cells[slot as usize].dirty
    }

    fn forget(&mut self, slot: SlotIndex) {
        let cell = &mut self.cells[slot as usize];
        debug_assert!(!cell.dirty, "a cell is written before it is forgotten");
        self.weight -= cell.encoded_len as usize;
        *cell = Cell::default();
    }

    fn weight(&self, live: usize) -> usize {
        self.weight + live * size_of::<Cell<V>>()
    }

    fn take_emptied(&mut self) -> Vec<SlotIndex> {
        std::mem::take(&mut self.emptied)
    }
}
