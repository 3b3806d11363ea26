//! What can go wrong with state.

use tidemill_types::{ErrorKind, KeyGroup, KeyGroupRange};

use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Why state was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A number that names no state of keys.
    #[error("state {state} does not exist or belongs to no key; the vertex has {states} states")]
    UnknownState {
        /// The number.
        state: u32,
        /// How many there are.
        states: usize,
    },
    /// A number that names no operator.
    #[error("operator {operator} does not exist; the vertex has {operators} operators")]
    UnknownOperator {
        /// The number.
        operator: u32,
        /// How many there are.
        operators: usize,
    },
    /// Columns of one call that do not belong together.
    #[error("{column} has {entries} entries for {keys} keys")]
    Count {
        /// Which column.
        column: &'static str,
        /// Its entries.
        entries: usize,
        /// The keys.
        keys: usize,
    },
    /// State belongs to keys.
    #[error("entry {entry} has no key")]
    NoKey {
        /// Its position.
        entry: usize,
    },
    /// A key or sub-key is too long.
    #[error("a {what} of {len} bytes; at most {KEY_BYTES_MAX} are allowed")]
    KeyTooLong {
        /// Key, sub-key or namespace.
        what: &'static str,
        /// Its length.
        len: usize,
    },
    /// A value is too long.
    #[error(
        "a value of {len} bytes in state \"{state}\"; at most {VALUE_BYTES_MAX} are allowed (use a map or a \
         list state for what grows)"
    )]
    ValueTooLong {
        /// The state's name.
        state: String,
        /// Its length.
        len: usize,
    },
    /// The key belongs to another subtask.
    #[error(
        "a key of key group {group} where {}..{} are owned: a keyed operator may only use the key of the \
         record or timer it is handling", owned.start, owned.end
    )]
    NotOwned {
        /// The key's group.
        group: KeyGroup,
        /// What this subtask owns.
        owned: KeyGroupRange,
    },
    /// There is more state than the task may have.
    #[error(
        "the task's state would take {needed} bytes of the {limit} it may have; raise \
         tidemill.state.memory-limit or the parallelism"
    )]
    Full {
        /// What it would take.
        needed: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Too many timers.
    #[error("more than {limit} timers in one task")]
    TooManyTimers {
        /// What is allowed.
        limit: usize,
    },
    /// Timers with too much in their keys and namespaces.
    #[error("the timers of one task would take {needed} bytes; at most {limit} are allowed")]
    TimersTooLarge {
        /// What they would take.
        needed: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The columns of the result would be too large.
    #[error("the answer would have {bytes} bytes; ask for fewer keys at a time")]
    AnswerTooLarge {
        /// What it would have.
        bytes: usize,
    },
    /// A snapshot holds a state that the vertex does not have.
    #[error(
        "the snapshot holds state \"{state}\" of operator \"{operator}\", which the vertex does not have"
    )]
    NotRestored {
        /// The operator's uid.
        operator: String,
        /// The state's name.
        state: String,
    },
    /// A snapshot was written with another number of key groups.
    #[error("the snapshot has {written} key groups, the vertex has {expected}")]
    MaxParallelism {
        /// In the snapshot.
        written: u32,
        /// Of the vertex.
        expected: u32,
    },
    /// A snapshot is not what was written.
    #[error("state snapshot: {0}")]
    Corrupt(String),
}

impl StateError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRestored { .. } | Self::MaxParallelism { .. } => ErrorKind::Invalid,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            _ => ErrorKind::GuestFault,
        }
    }
}
