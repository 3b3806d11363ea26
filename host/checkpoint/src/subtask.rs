//! What one subtask contributes to a checkpoint, and acknowledges it with.
//!
//! All parts are named by uids, never by positions, so that they find their operator again in a
//! job that was changed, and all can be redistributed: splits and items one by one, keyed state by
//! key group.

use serde::{Deserialize, Serialize};
use tidemill_types::KeyGroupRange;
use xxhash_rust::xxh3::xxh3_64;

use crate::encoding;

/// State below this many bytes goes into `_metadata` itself, as in Flink: a file of its own would
/// cost more than it holds.
pub const INLINE_BYTES_MAX: usize = 20 * 1024;

/// Where a source stands in one of its splits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// The split, as the connector names it.
    pub split: String,
    /// The position, in the connector's own encoding.
    #[serde(with = "encoding::bytes")]
    pub state: Vec<u8>,
}

/// What a sink has prepared and will commit once the checkpoint is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkState {
    /// The sink's uid.
    pub uid: String,
    /// What to commit, in the connector's own encoding.
    #[serde(with = "encoding::byte_strings")]
    pub committables: Vec<Vec<u8>>,
}

/// One subtask's part of an operator state that belongs to no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStatePart {
    /// The operator's uid.
    pub operator_uid: String,
    /// The state's name.
    pub state: String,
    /// Items that may be redistributed one by one.
    #[serde(with = "encoding::byte_strings")]
    pub items: Vec<Vec<u8>>,
}

/// Where bytes of state are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateLocation {
    /// Here.
    Inline(#[serde(with = "encoding::bytes")] Vec<u8>),
    /// In a file.
    File {
        /// Relative to the checkpoint's directory, or an absolute URI.
        path: String,
    },
}

/// Keyed state and timers of some key groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedHandle {
    /// The groups it holds.
    pub key_groups: KeyGroupRange,
    /// Where it is.
    pub location: StateLocation,
    /// Its size.
    pub bytes: u64,
    /// The xxh3 hash (64 bits) of its bytes.
    pub checksum: u64,
}

/// Stored state is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Too short or too long.
    #[error("state of {expected} bytes has {actual}: it was truncated or overwritten")]
    Size {
        /// What was written.
        expected: u64,
        /// What was read.
        actual: u64,
    },
    /// Other bytes.
    #[error("state has the checksum {actual:016x} instead of {expected:016x}: it is damaged")]
    Checksum {
        /// Of what was written.
        expected: u64,
        /// Of what was read.
        actual: u64,
    },
}

impl KeyedHandle {
    /// A handle for bytes that are (or are about to be) at `location`.
    #[must_use]
    pub fn new(key_groups: KeyGroupRange, bytes: &[u8], location: StateLocation) -> Self {
        Self {
            key_groups,
            location,
            bytes: bytes.len() as u64,
            checksum: xxh3_64(bytes),
        }
    }

    /// A handle that holds the bytes itself.
    #[must_use]
    pub fn inline(key_groups: KeyGroupRange, bytes: Vec<u8>) -> Self {
        let checksum = xxh3_64(&bytes);
        let len = bytes.len() as u64;
        Self {
            key_groups,
            location: StateLocation::Inline(bytes),
            bytes: len,
            checksum,
        }
    }

    /// Checks bytes that were read from the location.
    ///
    /// # Errors
    ///
    /// [`Damaged`] when they are not what was written.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), Damaged> {
        let actual = bytes.len() as u64;
        if actual != self.bytes {
            return Err(Damaged::Size {
                expected: self.bytes,
                actual,
            });
        }
        let actual = xxh3_64(bytes);
        if actual != self.checksum {
            return Err(Damaged::Checksum {
                expected: self.checksum,
                actual,
            });
        }
        Ok(())
    }
}

/// What a subtask acknowledges a checkpoint with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubtaskState {
    /// Positions in the splits of its source.
    pub source: Vec<SplitState>,
    /// What its sinks have prepared.
    pub sinks: Vec<SinkState>,
    /// Operator state.
    pub operators: Vec<OperatorStatePart>,
    /// Keyed state and timers.
    pub keyed: Vec<KeyedHandle>,
}

impl SubtaskState {
    /// The bytes of state it stands for, wherever they are.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        let splits: usize = self
            .source
            .iter()
            .map(|s| s.split.len() + s.state.len())
            .sum();
        let sinks: usize = self
            .sinks
            .iter()
            .flat_map(|s| &s.committables)
            .map(Vec::len)
            .sum();
        let operators: usize = self
            .operators
            .iter()
            .flat_map(|o| &o.items)
            .map(Vec::len)
            .sum();
        let keyed: u64 = self.keyed.iter().map(|handle| handle.bytes).sum();
        (splits + sinks + operators) as u64 + keyed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_base64_in_json() {
        let state = SubtaskState {
            source: vec![SplitState {
                split: "0".into(),
                state: vec![0xff, 0],
            }],
            keyed: vec![KeyedHandle::inline(
                KeyGroupRange { start: 0, end: 4 },
                b"abc".to_vec(),
            )],
            ..SubtaskState::default()
        };
        let json = serde_json::to_string(&state).unwrap();
        assert!(json.contains(r#""state":"/wA=""#), "{json}");
        assert!(json.contains(r#"{"inline":"YWJj"}"#), "{json}");
        assert_eq!(serde_json::from_str::<SubtaskState>(&json).unwrap(), state);
        assert!(serde_json::from_str::<SubtaskState>(&json.replace("/wA=", "%%")).is_err());
    }

    #[test]
    fn changed_bytes_are_noticed() {
        let handle = KeyedHandle::inline(KeyGroupRange { start: 0, end: 4 }, b"abc".to_vec());
        handle.verify(b"abc").unwrap();
        assert!(matches!(handle.verify(b"ab"), Err(Damaged::Size { .. })));
        assert!(matches!(
            handle.verify(b"abd"),
            Err(Damaged::Checksum { .. })
        ));
    }
}
