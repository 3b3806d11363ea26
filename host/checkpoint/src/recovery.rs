//! Which checkpoint a job starts from, when nobody remembers: after the coordinator has died.
//!
//! The newest stored checkpoint is **not** always right. A write that the dead coordinator had begun
//! may become visible only after its successor has looked, has started the job from the checkpoint
//! before, and has aborted the transactions that belong to the late one. Were it used by the next
//! recovery, their results would be lost.
//!
//! So every attempt leaves a durable record of what it starts from, before any of its tasks does.
//!
//! # Invariants
//!
//! 1. A checkpoint that a later attempt has passed over is never used.
//! 2. A checkpoint that was ever announced as complete, or that an attempt has started from, is
//!    never passed over by invariant 1 unless a newer one is there too: it was visible before.

use serde::{Deserialize, Serialize};
use tidemill_types::{Attempt, CheckpointId};

/// What an attempt of a job started from. Stored, created only if absent, before its tasks start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The attempt.
    pub attempt: Attempt,
    /// Its checkpoint; `None` for a start without state.
    pub restored_from: Option<CheckpointId>,
}

/// The stored checkpoints that a job may start from, best first. Each is given with the attempt that
/// took it (`Manifest::attempt`). The first whose files are sound is to be used.
#[must_use]
pub fn candidates(
    stored: impl IntoIterator<Item = (CheckpointId, Attempt)>,
    records: &[AttemptRecord],
) -> Vec<CheckpointId> {
    let passed_over = |checkpoint: CheckpointId, taken_by: Attempt| {
        records
            .iter()
            .any(|r| r.attempt > taken_by && r.restored_from.is_none_or(|from| from < checkpoint))
    };
    let mut candidates: Vec<CheckpointId> = stored
        .into_iter()
        .filter(|&(checkpoint, taken_by)| !passed_over(checkpoint, taken_by))
        .map(|(checkpoint, _)| checkpoint)
        .collect();
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    candidates.dedup();
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(attempt: u32, restored_from: Option<u64>) -> AttemptRecord {
        AttemptRecord {
            attempt: Attempt(attempt),
            restored_from: restored_from.map(CheckpointId),
        }
    }

    fn chosen(stored: &[(u64, u32)], records: &[AttemptRecord]) -> Vec<u64> {
        let stored = stored
            .iter()
            .map(|&(id, by)| (CheckpointId(id), Attempt(by)));
        candidates(stored, records)
            .into_iter()
            .map(|id| id.0)
            .collect()
    }

    #[test]
    fn the_newest_comes_first() {
        let records = [record(0, None), record(1, Some(2))];
        assert_eq!(chosen(&[(1, 0), (2, 0), (3, 1)], &records), [3, 2, 1]);
        assert!(chosen(&[], &records).is_empty());
    }

    #[test]
    fn what_a_later_attempt_passed_over_is_not_used() {
        let records = [record(0, None), record(1, Some(2))];
        assert_eq!(chosen(&[(1, 0), (2, 0), (3, 0)], &records), [2, 1]);
        // Nor when it started from nothing, or when the numbers have gone past.
        assert!(chosen(&[(3, 0)], &[record(1, None)]).is_empty());
        let records = [record(1, Some(2)), record(2, Some(5))];
        assert_eq!(chosen(&[(2, 0), (3, 0), (5, 1)], &records), [5, 2]);
    }
}
