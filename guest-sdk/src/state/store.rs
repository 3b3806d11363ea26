//! The cache of one operator's keyed state.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::state::column::AnyColumn;
use crate::state::slots::{SlotIndex, Slots};

/// From so many dirty cells on, each call writes some back, so that a barrier finds few left.
const DIRTY_MAX: usize = 4096;

/// How many cells are written in such a call.
const WRITE_BACK: usize = 1024;

/// A cache over its limit is brought down to this part of it, so that not every call evicts.
const EVICT_TO_PERCENT: usize = 90;

/// See the module above.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) slots: Slots,
    columns: Vec<Rc<RefCell<dyn AnyColumn>>>,
    /// Slots made during this call, which have not been read from the host.
    fresh: Vec<SlotIndex>,
    limit_bytes: usize,
}

impl Store {
    pub(crate) fn add_column(&mut self, column: Rc<RefCell<dyn AnyColumn>>) {
        self.columns.push(column);
    }

    pub(crate) fn open(&mut self, restored: bool, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
        for column in &self.columns {
            column.borrow_mut().open(restored);
        }
    }

    /// The slot of (key, sub-key). Before its cells are used, [`Store::load`] must have run.
    #[inline]
    pub(crate) fn resolve(&mut self, key: &[u8], subkey: &[u8]) -> SlotIndex {
        let (slot, new) = self.slots.resolve(key, subkey);
        if new {
            self.fresh.push(slot);
        }
        slot
    }

    /// Reads the entries of all slots that were resolved for the first time.
    pub(crate) fn load(&mut self) -> Result<(), String> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        for column in &self.columns {
            let mut column = column.borrow_mut();
            column.grow(self.slots.len());
            column.load(&self.slots, &self.fresh)?;
        }
        self.fresh.clear();
        Ok(())
    }

    /// Gives a slot back whose cells are all empty and owe the host nothing.
    pub(crate) fn release_if_vacant(&mut self, slot: SlotIndex) {
        if self
            .columns
            .iter()
            .all(|column| column.borrow().is_vacant(slot))
        {
            self.release(slot);
        }
    }

    fn release(&mut self, slot: SlotIndex) {
        for column in &self.columns {
            column.borrow_mut().forget(slot);
        }
        self.slots.release(slot);
    }

    /// Between calls: writes some back if much is dirty, and keeps the cache within its limit.
    pub(crate) fn maintain(&mut self) -> Result<(), String> {
        for column in &self.columns {
            let mut column = column.borrow_mut();
            if column.dirty() > DIRTY_MAX {
                column.write_back(&self.slots, WRITE_BACK)?;
            }
        }
        self.release_emptied();
        if self.bytes() > self.limit_bytes {
            self.evict()?;
        }
        Ok(())
    }

    /// Writes all back.
    pub(crate) fn write_back(&mut self) -> Result<(), String> {
        for column in &self.columns {
            column.borrow_mut().write_back(&self.slots, usize::MAX)?;
        }
        self.release_emptied();
        Ok(())
    }

    /// What was deleted and is known to be gone need not be remembered.
    fn release_emptied(&mut self) {
        for column in 0..self.columns.len() {
            let emptied = self.columns[column].borrow_mut().take_emptied();
            for slot in emptied {
                if self.slots.is_live(slot) {
                    self.release_if_vacant(slot);
                }
            }
        }
    }

    fn evict(&mut self) -> Result<(), String> {
        // Writing everything at once is simpler than writing just what goes, costs one call for
        // thousands of entries, and leaves the next barrier less to do.
        self.write_back()?;
        let enough = self.limit_bytes / 100 * EVICT_TO_PERCENT;
        let mut bytes = self.slots.bytes() + self.weight();
        let per_slot = self.weight() / self.slots.live().max(1);
        while bytes > enough {
            let before = self.slots.bytes();
            let Some(slot) = self.slots.coldest() else {
                break;
            };
            debug_assert!(
                self.columns
                    .iter()
                    .all(|column| column.borrow().is_clean(slot))
            );
            self.release(slot);
            bytes = bytes.saturating_sub(before - self.slots.bytes() + per_slot);
        }
        Ok(())
    }

    fn weight(&self) -> usize {
        let live = self.slots.live();
        self.columns
            .iter()
            .map(|column| column.borrow().weight(live))
            .sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slots.bytes() + self.weight()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("slots", &self.slots.live())
            .finish_non_exhaustive()
    }
}
