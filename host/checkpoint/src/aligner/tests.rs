//! Claims about alignment, and random interleavings of barriers.

use std::collections::{HashMap, VecDeque};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

fn id(n: u64) -> CheckpointId {
    CheckpointId(n)
}

fn complete(n: u64, unblock: &[usize]) -> AlignDecision {
    AlignDecision::Complete {
        checkpoint: id(n),
        unblock: unblock.to_vec(),
    }
}

#[test]
fn a_single_channel_is_never_blocked() {
    let mut aligner = Aligner::new(1, AlignmentMode::ExactlyOnce);
    assert_eq!(aligner.barrier(0, id(1)), [complete(1, &[0])]);
    assert!(!aligner.is_blocked(0));
    assert_eq!(aligner.barrier(0, id(1)), [], "a barrier counts once");
}

#[test]
fn channels_wait_for_each_other() {
    let mut aligner = Aligner::new(3, AlignmentMode::ExactlyOnce);
    assert_eq!(
        aligner.barrier(1, id(1)),
        [AlignDecision::Block { channel: 1 }]
    );
    assert!(aligner.is_blocked(1) && !aligner.is_blocked(0));
    assert_eq!(
        aligner.barrier(0, id(1)),
        [AlignDecision::Block { channel: 0 }]
    );
    assert_eq!(aligner.barrier(2, id(1)), [complete(1, &[0, 1, 2])]);
    assert!((0..3).all(|channel| !aligner.is_blocked(channel)));
}

#[test]
fn an_ended_channel_is_not_waited_for() {
    let mut aligner = Aligner::new(2, AlignmentMode::ExactlyOnce);
    aligner.barrier(0, id(1));
    assert_eq!(aligner.channel_ended(1), [complete(1, &[0])]);
    assert_eq!(aligner.barrier(0, id(2)), [complete(2, &[0])]);
    assert_eq!(aligner.channel_ended(1), []);
    assert_eq!(aligner.channel_ended(9), []);
    assert_eq!(aligner.barrier(9, id(3)), []);
}

#[test]
fn a_newer_barrier_gives_the_older_checkpoint_up() {
    let mut aligner = Aligner::new(2, AlignmentMode::ExactlyOnce);
    aligner.barrier(0, id(1));
    let decisions = aligner.barrier(1, id(2));
    let abort = AlignDecision::Abort {
        checkpoint: id(1),
        unblock: vec![0],
    };
    assert_eq!(decisions, [abort, AlignDecision::Block { channel: 1 }]);
    assert_eq!(aligner.barrier(0, id(1)), [], "stale");
    assert_eq!(aligner.barrier(0, id(2)), [complete(2, &[0, 1])]);
}

#[test]
fn a_cancelled_checkpoint_blocks_nobody() {
    let mut aligner = Aligner::new(2, AlignmentMode::ExactlyOnce);
    aligner.barrier(0, id(1));
    let abort = AlignDecision::Abort {
        checkpoint: id(1),
        unblock: vec![0],
    };
    assert_eq!(aligner.cancelled(id(1)), [abort]);
    assert_eq!(aligner.cancelled(id(1)), []);
    assert_eq!(aligner.barrier(1, id(1)), []);
    assert_eq!(aligner.cancelled(id(3)), [], "before any of its barriers");
    assert_eq!(
        aligner.barrier(1, id(2)),
        [AlignDecision::Block { channel: 1 }]
    );
    assert_eq!(aligner.barrier(0, id(2)), [complete(2, &[0, 1])]);
    assert_eq!(aligner.barrier(0, id(3)), []);
    assert_eq!(aligner.barrier(1, id(3)), []);
    assert_eq!(
        aligner.barrier(0, id(4)),
        [AlignDecision::Block { channel: 0 }]
    );
}

#[test]
fn at_least_once_blocks_nobody_and_follows_several() {
    let mut aligner = Aligner::new(2, AlignmentMode::AtLeastOnce);
    assert_eq!(aligner.barrier(0, id(1)), []);
    assert_eq!(aligner.barrier(0, id(2)), []);
    assert_eq!(aligner.barrier(1, id(1)), [complete(1, &[])]);
    assert_eq!(aligner.barrier(1, id(2)), [complete(2, &[])]);
    for n in 3..1_000 {
        aligner.barrier(0, id(n));
    }
    assert!(aligner.pending.len() <= TRACKED_MAX);
}

#[derive(Debug, Clone, Copy)]
enum Element {
    Record,
    Barrier(u64),
}

/// What the driver of an aligner does, with channels of its own.
struct Model {
    aligner: Aligner,
    channels: Vec<VecDeque<Element>>,
    read: Vec<u64>,
    blocked: Vec<bool>,
    ended: Vec<bool>,
    /// Records before each barrier of each channel.
    before: HashMap<(usize, u64), u64>,
    written: Vec<u64>,
    finished: Vec<u64>,
    aborted: Vec<u64>,
}

impl Model {
    fn new(rng: &mut StdRng, mode: AlignmentMode) -> Self {
        let channels = rng.random_range(1..5);
        let mut model = Self {
            aligner: Aligner::new(channels, mode),
            channels: vec![VecDeque::new(); channels],
            read: vec![0; channels],
            blocked: vec![false; channels],
            ended: vec![false; channels],
            before: HashMap::new(),
            written: vec![0; channels],
            finished: Vec::new(),
            aborted: Vec::new(),
        };
        let checkpoints = rng.random_range(1..6);
        for channel in 0..channels {
            // A channel may end before the last barriers.
            let last = if rng.random_bool(0.2) {
                rng.random_range(0..=checkpoints)
            } else {
                checkpoints
            };
            for checkpoint in 1..=last {
                model.write_records(rng, channel);
                model
                    .before
                    .insert((channel, checkpoint), model.written[channel]);
                // One barrier may be lost, as when its sender gave the checkpoint up.
                if rng.random_bool(0.97) {
                    model.channels[channel].push_back(Element::Barrier(checkpoint));
                }
            }
            model.write_records(rng, channel);
        }
        model
    }

    fn write_records(&mut self, rng: &mut StdRng, channel: usize) {
        for _ in 0..rng.random_range(0..4) {
            self.channels[channel].push_back(Element::Record);
            self.written[channel] += 1;
        }
    }

    fn step(&mut self, rng: &mut StdRng) -> bool {
        let open: Vec<_> = (0..self.channels.len())
            .filter(|&c| !self.blocked[c] && !self.ended[c])
            .collect();
        if open.is_empty() {
            return false;
        }
        if rng.random_bool(0.01) {
            let victim = rng.random_range(1..6);
            let decisions = self.aligner.cancelled(id(victim));
            self.carry_out(decisions);
            return true;
        }
        let channel = open[rng.random_range(0..open.len())];
        match self.channels[channel].pop_front() {
            Some(Element::Record) => self.read[channel] += 1,
            Some(Element::Barrier(n)) => {
                let decisions = self.aligner.barrier(channel, id(n));
                self.carry_out(decisions);
            }
            None => {
                self.ended[channel] = true;
                let decisions = self.aligner.channel_ended(channel);
                self.carry_out(decisions);
            }
        }
        true
    }

    fn carry_out(&mut self, decisions: Vec<AlignDecision>) {
        for decision in decisions {
            match decision {
                AlignDecision::Block { channel } => {
                    assert!(!self.blocked[channel], "blocked twice");
                    self.blocked[channel] = true;
                }
                AlignDecision::Abort {
                    checkpoint,
                    unblock,
                } => {
                    self.aborted.push(checkpoint.0);
                    unblock
                        .into_iter()
                        .for_each(|channel| self.blocked[channel] = false);
                }
                AlignDecision::Complete {
                    checkpoint,
                    unblock,
                } => {
                    self.check_snapshot(checkpoint.0);
                    self.finished.push(checkpoint.0);
                    unblock
                        .into_iter()
                        .for_each(|channel| self.blocked[channel] = false);
                }
            }
        }
        for channel in 0..self.channels.len() {
            assert_eq!(
                self.blocked[channel],
                self.aligner.is_blocked(channel),
                "channel {channel}"
            );
        }
    }

    fn check_snapshot(&self, checkpoint: u64) {
        for channel in 0..self.channels.len() {
            let expected = match self.before.get(&(channel, checkpoint)) {
                Some(&before) => before,
                None => self.written[channel],
            };
            let exact = self.aligner.mode == AlignmentMode::ExactlyOnce && !self.ended[channel];
            if exact {
                assert_eq!(
                    self.read[channel], expected,
                    "channel {channel}, checkpoint {checkpoint}"
                );
            } else {
                assert!(
                    self.read[channel] >= expected,
                    "records before the barrier are never missing"
                );
            }
        }
    }
}

#[test]
fn every_interleaving_snapshots_exactly_the_records_before_each_barrier() {
    let mut completed = 0;
    for seed in 0..20_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mode = if seed % 4 == 0 {
            AlignmentMode::AtLeastOnce
        } else {
            AlignmentMode::ExactlyOnce
        };
        let mut model = Model::new(&mut rng, mode);
        while model.step(&mut rng) {}
        assert!(model.ended.iter().all(|&ended| ended), "seed {seed}: stuck");
        assert!(
            model.finished.is_sorted_by(|a, b| a < b),
            "seed {seed}: {:?}",
            model.finished
        );
        assert!(
            model.finished.iter().all(|n| !model.aborted.contains(n)),
            "seed {seed}"
        );
        completed += model.finished.len();
    }
    assert!(
        completed > 20_000,
        "only {completed} checkpoints completed: the test tests nothing"
    );
}
