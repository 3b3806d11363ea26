//! Key groups: the unit in which keyed state is owned, stored and moved.
//!
//! A key belongs to one of `max_parallelism` groups by a hash of its bytes, and a subtask owns a
//! contiguous range of groups. Both formulas are part of every checkpoint's meaning and must never
//! change: the hash is xxh3 (64 bits, no seed), the ranges are Flink's.

use serde::{Deserialize, Serialize};

/// The number of key groups of a job that does not set one.
pub const DEFAULT_MAX_PARALLELISM: u32 = 128;

/// The largest number of key groups, as in Flink.
pub const MAX_PARALLELISM_BOUND: u32 = 32_768;

/// A key group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGroup(pub u32);

impl KeyGroup {
    /// The group of a key.
    ///
    /// # Panics
    ///
    /// If `max_parallelism` is 0.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is below a u32"
    )]
    pub fn of(key: &[u8], max_parallelism: u32) -> Self {
        let (hash, groups) = (xxhash_rust::xxh3::xxh3_64(key), u64::from(max_parallelism));
        // The same remainder; a division takes longer than the hash.
        let group = if groups.is_power_of_two() {
            hash & (groups - 1)
        } else {
            hash % groups
        };
        Self(group as u32)
    }

    /// The subtask that owns this group.
    #[must_use]
    pub const fn owner(self, parallelism: u32, max_parallelism: u32) -> u32 {
        self.0 * parallelism / max_parallelism
    }
}

impl std::fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// The key groups `start..end` of a subtask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first group.
    pub start: u32,
    /// The group after the last.
    pub end: u32,
}

impl KeyGroupRange {
    /// The range that `subtask` of `parallelism` owns.
    ///
    /// # Panics
    ///
    /// If the subtask does not exist or there are more subtasks than groups.
    #[must_use]
    pub fn of_subtask(subtask: u32, parallelism: u32, max_parallelism: u32) -> Self {
        assert!(subtask < parallelism, "subtask {subtask} of {parallelism}");
        assert!(
            parallelism <= max_parallelism,
            "{parallelism} subtasks for {max_parallelism} groups"
        );
        Self {
            start: (subtask * max_parallelism).div_ceil(parallelism),
            end: ((subtask + 1) * max_parallelism).div_ceil(parallelism),
        }
    }

    /// Whether the group is in the range.
    #[must_use]
    pub const fn contains(self, group: KeyGroup) -> bool {
        self.start <= group.0 && group.0 < self.end
    }

    /// Whether the two ranges have a group in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The number of groups.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.end - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_remainder_of_the_hash() {
        for max in [1, 2, 100, 128, 4096] {
            for key in [
                &b""[..],
                b"a",
                b"/shop",
                b"a key of more than sixteen bytes",
            ] {
                let expected = xxhash_rust::xxh3::xxh3_64(key) % u64::from(max);
                assert_eq!(u64::from(KeyGroup::of(key, max).0), expected);
            }
        }
    }

    #[test]
    fn every_group_has_exactly_one_owner_at_any_parallelism() {
        for max in [1, 7, 128, 300] {
            for parallelism in 1..=max {
                let ranges: Vec<_> = (0..parallelism)
                    .map(|s| KeyGroupRange::of_subtask(s, parallelism, max))
                    .collect();
                for group in (0..max).map(KeyGroup) {
                    let owner = group.owner(parallelism, max);
                    for (subtask, range) in (0..).zip(&ranges) {
                        assert_eq!(range.contains(group), subtask == owner);
                    }
                }
            }
        }
    }
}
