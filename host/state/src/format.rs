//! The bytes of a snapshot: sorted by key group and readable by range.
//!
//! ```text
//! "TMSTATE1"
//! for each key group: its entries, then its timers
//! index: key groups, names of operators and states, and for each group where it is and its xxh3
//! where the index is (8 bytes), its length (8), its xxh3 (8), "TMSTATE1"
//! ```
//!
//! All numbers are little-endian. States and operators are numbered within the file and named in
//! its index. A reader needs the last 32 bytes, the index, and the groups that it is after.
//!
//! # Invariants
//!
//! 1. Nothing is trusted: every length is checked against what is left, every block against its
//!    hash, every key against its group. What is wrong is [`crate::StateError::Corrupt`].
//! 2. The same state gives the same bytes, whatever its history.

use tidemill_types::TimeDomain;

use crate::KEY_BYTES_MAX;

mod cursor;
mod read;
mod write;

pub use read::SnapshotReader;
pub(crate) use write::encode;

const MAGIC: &[u8; 8] = b"TMSTATE1";
const TRAILER: usize = 32;
const HAS_EXPIRY: u8 = 1;

/// One thing in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRecord<'a> {
    /// An entry of a state.
    Entry {
        /// The state's number in the file.
        state: u16,
        /// Its key.
        key: &'a [u8],
        /// Its sub-key.
        subkey: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When it expires.
        expiry: i64,
    },
    /// A timer.
    Timer {
        /// The operator's number in the file.
        operator: u16,
        /// Its clock.
        domain: TimeDomain,
        /// When it is due.
        timestamp: i64,
        /// Its key.
        key: &'a [u8],
        /// Its namespace.
        namespace: &'a [u8],
    },
}

const _: () = assert!(
    KEY_BYTES_MAX == u16::MAX as usize,
    "lengths of keys are 16 bits wide"
);
