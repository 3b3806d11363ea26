//! A task's half: which inputs to hold back, and when to take the snapshot.
//!
//! A task reads several channels. Every barrier of a checkpoint reaches it once per channel, after
//! the records that belong to the checkpoint and before those that do not. With exactly-once, a
//! channel whose barrier has arrived is held back until the others have caught up; with
//! at-least-once it goes on, and the snapshot may hold records that will be replayed.
//!
//! # Invariants
//!
//! 1. (exactly once) When a checkpoint completes here, the records read from each channel are
//!    exactly those before its barrier, or all of them if the channel has ended.
//! 2. A checkpoint completes at most once, and never after it was aborted.
//! 3. Completed checkpoints ascend.
//! 4. Whoever is blocked is unblocked by the completion or the abort of the same checkpoint.
//! 5. (exactly once) At most one checkpoint is being aligned: a barrier of a newer one means that
//!    the older one was given up somewhere.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_types::CheckpointId;

/// The most checkpoints that are followed at once (at least once) or remembered as cancelled before
/// they began. Older ones are given up; the coordinator allows far fewer.
pub const TRACKED_MAX: usize = 50;

/// Whether channels are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlignmentMode {
    /// They are.
    ExactlyOnce,
    /// They are not.
    AtLeastOnce,
}

/// What the task is to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlignDecision {
    /// Read no more from this channel.
    Block {
        /// The channel.
        channel: usize,
    },
    /// All barriers are here: take the snapshot and send the barrier on **before** reading any
    /// further, then read from these channels again.
    Complete {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The channels whose barrier had arrived (the last of them was not held back).
        unblock: Vec<usize>,
    },
    /// The checkpoint was given up: read from these channels again. Nothing is sent on downstream:
    /// the coordinator tells every task of the attempt itself.
    Abort {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The channels that were held back.
        unblock: Vec<usize>,
    },
}

/// Aligns the barriers of one task. Channels are numbered from 0.
#[derive(Debug)]
pub struct Aligner {
    mode: AlignmentMode,
    ended: Vec<bool>,
    /// Per checkpoint under way, the channels whose barrier has arrived.
    pending: BTreeMap<CheckpointId, Vec<bool>>,
    /// Cancelled before its first barrier came.
    cancelled: BTreeSet<CheckpointId>,
    /// The newest that has completed or was aborted; barriers up to it are stale.
    floor: Option<CheckpointId>,
}

impl Aligner {
    /// An aligner for a task with this many channels.
    #[must_use]
    pub fn new(channels: usize, mode: AlignmentMode) -> Self {
        Self {
            mode,
            ended: vec![false; channels],
            pending: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            floor: None,
        }
    }

    /// The checkpoint that is being aligned, the newest if there are several.
    #[must_use]
    pub fn aligning(&self) -> Option<CheckpointId> {
        self.pending.keys().next_back().copied()
    }

    /// Whether a channel is held back at the moment.
    #[must_use]
    pub fn is_blocked(&self, channel: usize) -> bool {
        self.mode == AlignmentMode::ExactlyOnce
            && self
                .pending
                .values()
                .any(|arrived| arrived.get(channel) == Some(&true))
    }

    /// A barrier has been read from a channel. Stale ones, and those of channels that do not exist
    /// or have ended, change nothing.
    pub fn barrier(&mut self, channel: usize, checkpoint: CheckpointId) -> Vec<AlignDecision> {
        let mut decisions = Vec::new();
        let usable = self.ended.get(channel) == Some(&false);
        if !usable || self.floor.is_some_and(|floor| checkpoint <= floor) {
            return decisions;
        }
        if self.cancelled.contains(&checkpoint) {
            return decisions;
        }
        self.make_room_for(checkpoint, &mut decisions);
        if self.floor.is_some_and(|floor| checkpoint <= floor) {
            return decisions;
        }
        let channels = self.ended.len();
        let arrived = self
            .pending
            .entry(checkpoint)
            .or_insert_with(|| vec![false; channels]);
        if std::mem::replace(&mut arrived[channel], true) {
            return decisions;
        }
        if !self.complete(checkpoint, &mut decisions) && self.mode == AlignmentMode::ExactlyOnce {
            decisions.push(AlignDecision::Block { channel });
        }
        decisions
    }

    /// A channel has ended: no barrier of it is waited for any more.
    pub fn channel_ended(&mut self, channel: usize) -> Vec<AlignDecision> {
        let mut decisions = Vec::new();
        match self.ended.get_mut(channel) {
            Some(ended) if !*ended => *ended = true,
            _ => return decisions,
        }
        let pending: Vec<_> = self.pending.keys().rev().copied().collect();
        for checkpoint in pending {
            // Completing the newest gives up the older ones, so that the rest may be gone already.
            if self.pending.contains_key(&checkpoint) {
                self.complete(checkpoint, &mut decisions);
            }
        }
        decisions
    }

    /// The checkpoint was given up elsewhere. Its barriers, wherever they are, will be ignored.
    pub fn cancelled(&mut self, checkpoint: CheckpointId) -> Vec<AlignDecision> {
        let mut decisions = Vec::new();
        if self.floor.is_some_and(|floor| checkpoint <= floor) {
            return decisions;
        }
        self.abort(checkpoint, &mut decisions);
        self.cancelled.insert(checkpoint);
        if self.cancelled.len() > TRACKED_MAX {
            self.cancelled.pop_first();
        }
        decisions
    }

    /// Gives up what the barrier of `checkpoint` shows to be lost.
    fn make_room_for(&mut self, checkpoint: CheckpointId, decisions: &mut Vec<AlignDecision>) {
        if self.pending.contains_key(&checkpoint) {
            return;
        }
        match self.mode {
            AlignmentMode::ExactlyOnce => {
                let Some(current) = self.aligning() else {
                    return;
                };
                // Should an older one turn up after a newer one, it is the older that is lost.
                let lost = current.min(checkpoint);
                self.abort(lost, decisions);
                self.raise_floor(lost);
            }
            AlignmentMode::AtLeastOnce => {
                while self.pending.len() >= TRACKED_MAX {
                    let oldest = *self.pending.keys().next().expect("there are that many");
                    self.abort(oldest, decisions);
                    self.raise_floor(oldest);
                }
            }
        }
    }

    /// Completes the checkpoint if nothing is missing.
    fn complete(&mut self, checkpoint: CheckpointId, decisions: &mut Vec<AlignDecision>) -> bool {
        let arrived = &self.pending[&checkpoint];
        let mut both = arrived.iter().zip(&self.ended);
        if !both.all(|(&arrived, &ended)| arrived || ended) {
            return false;
        }
        while let Some(&older) = self.pending.keys().next().filter(|&&id| id < checkpoint) {
            self.abort(older, decisions);
        }
        let unblock = self.unblocked_by(checkpoint);
        self.pending.remove(&checkpoint);
        self.raise_floor(checkpoint);
        decisions.push(AlignDecision::Complete {
            checkpoint,
            unblock,
        });
        true
    }

    fn abort(&mut self, checkpoint: CheckpointId, decisions: &mut Vec<AlignDecision>) {
        if self.pending.contains_key(&checkpoint) {
            let unblock = self.unblocked_by(checkpoint);
            self.pending.remove(&checkpoint);
            decisions.push(AlignDecision::Abort {
                checkpoint,
                unblock,
            });
        }
    }

    fn unblocked_by(&self, checkpoint: CheckpointId) -> Vec<usize> {
        if self.mode == AlignmentMode::AtLeastOnce {
            return Vec::new();
        }
        let arrived = self.pending[&checkpoint].iter().enumerate();
        arrived
            .filter(|(_, arrived)| **arrived)
            .map(|(channel, _)| channel)
            .collect()
    }

    fn raise_floor(&mut self, checkpoint: CheckpointId) {
        assert!(
            self.floor.is_none_or(|floor| floor < checkpoint),
            "invariants 2 and 3"
        );
        self.floor = Some(checkpoint);
        self.cancelled = self.cancelled.split_off(&checkpoint.next());
    }
}

#[cfg(test)]
mod tests;
