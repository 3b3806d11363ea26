//! Keyed state: it belongs to the host and is cached here.
//!
//! A [`Store`] is the cache of one operator: one slot for each (key, sub-key) that is at hand, and
//! for each declared state a [`Column`] with one typed cell a slot. Looking up a record's key is one
//! hash of its bytes; all states of the operator are then reached by the slot's number.
//!
//! # Invariants
//!
//! 1. A call first resolves the keys of all its records, then reads what is missing with one
//!    `get-many` per state, and only then runs user code. Slots stay where they are until the call
//!    ends; eviction happens between calls.
//! 2. A cell that differs from the host's entry is dirty, and dirty cells are written before they
//!    are forgotten and before a snapshot ends.
//! 3. As long as a state was neither restored nor written, there is nothing to read.

mod column;
mod slots;
mod store;
mod value;

pub(crate) use column::Column;
pub(crate) use slots::SlotIndex;
pub(crate) use store::Store;
pub use value::{States, ValueState};
