//! Keyed state and timers of one task.
//!
//! State belongs to the host: guests cache it, read what they miss ([`KeyedStore::get_many`]) and
//! write back what they changed ([`KeyedStore::put_many`]). [`KeyedState`] is what a task owns: a
//! [`KeyedStore`] and a [`TimerService`], which are snapshotted and restored together.
//!
//! Everything a guest gives (state numbers, keys, lengths) is checked here; what is wrong is a
//! [`StateError`] whose `kind` is a guest fault, never a panic. Batches of columns must have been
//! validated (`Column::validate`) before.
//!
//! A snapshot is cheap to take: groups are shared and copied on the first write that follows. The
//! encoding ([`Snapshot::encode`]) may run on another thread meanwhile. [`mod@format`] is the only place
//! that knows what the bytes look like.

mod arena;
pub mod conformance;
mod error;
pub mod format;
mod keyed;
mod snapshot;
mod store;
mod timers;

pub use error::StateError;
pub use keyed::{KeyedState, StateName, StateNames};
pub use snapshot::{Snapshot, UnknownState};
pub use store::{ANSWER_BYTES_MAX, Entries, KeyedStore, STATE_BYTES_DEFAULT, StateId};
pub use timers::{TIMER_BYTES_MAX, TIMERS_MAX, TimerService};

/// The longest key or sub-key, in bytes. Both are held in memory for every entry and hashed on
/// every access; longer ones are a mistake (a payload used as a key).
pub const KEY_BYTES_MAX: usize = 64 * 1024 - 1;

/// The largest value of one entry, in bytes. Values travel in batches of at most 64 MiB; one that
/// takes a quarter of that still leaves room for its neighbours.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// An entry that never expires.
pub const NEVER: i64 = i64::MAX;
