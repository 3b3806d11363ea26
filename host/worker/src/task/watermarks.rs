//! Watermarks of many inputs, merged into one.
//!
//! # Invariants
//!
//! 1. The merged watermark never goes back.
//! 2. An input that is idle does not hold the others back; when all are idle, so is the merged one.
//!    One that has ended (it is at the largest watermark) counts as little as an idle one, until
//!    all have ended: what an idle one still has to say must not be late because of it.
//! 3. A split becomes idle only by time in which the source could have delivered a record of it:
//!    time spent waiting for room downstream does not count, and one turn of the task counts for
//!    [`TURN_MAX`] at most, so that no single long call makes anything idle.

use std::time::Duration;

use tidemill_types::{MAX_WATERMARK, NO_WATERMARK, Watermark};

/// The most time that one turn of a task adds to its splits' silence.
pub(crate) const TURN_MAX: Duration = Duration::from_millis(200);

/// What merging says after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Nothing new.
    Unchanged,
    /// The merged watermark has advanced.
    Advanced(Watermark),
}

/// One input.
#[derive(Debug, Clone, Copy)]
struct Input {
    watermark: Watermark,
    idle: bool,
}

impl Input {
    fn has_ended(&self) -> bool {
        self.watermark == MAX_WATERMARK
    }
}

/// Watermarks of numbered inputs.
#[derive(Debug)]
pub(crate) struct Watermarks {
    inputs: Vec<Option<Input>>,
    merged: Watermark,
}

impl Watermarks {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            inputs: Vec::new(),
            merged: NO_WATERMARK,
        }
    }

    /// With `inputs` active inputs.
    pub(crate) fn of(inputs: usize) -> Self {
        let input = Input {
            watermark: NO_WATERMARK,
            idle: false,
        };
        Self {
            inputs: vec![Some(input); inputs],
            merged: NO_WATERMARK,
        }
    }

    /// An input comes up. A merged watermark that is ahead of it stays.
    pub(crate) fn add(&mut self, input: usize) {
        while self.inputs.len() <= input {
            self.inputs.push(None);
        }
        self.inputs[input] = Some(Input {
            watermark: NO_WATERMARK,
            idle: false,
        });
    }

    /// An input has ended and holds nothing back any more.
    pub(crate) fn remove(&mut self, input: usize) {
        if let Some(slot) = self.inputs.get_mut(input) {
            *slot = None;
        }
    }

    /// The watermark of an input; one that goes back is ignored. The input is active from here on.
    pub(crate) fn advance(&mut self, input: usize, watermark: Watermark) {
        if let Some(Some(input)) = self.inputs.get_mut(input) {
            input.watermark = input.watermark.max(watermark);
            input.idle = false;
        }
    }

    /// An input becomes idle or active.
    pub(crate) fn set_idle(&mut self, input: usize, idle: bool) {
        if let Some(Some(input)) = self.inputs.get_mut(input) {
            input.idle = idle;
        }
    }

    /// Whether there is no active input, but not because all have ended.
    pub(crate) fn all_idle(&self) -> bool {
        let mut inputs = self.inputs.iter().flatten();
        !self.all_ended() && inputs.all(|input| input.idle || input.has_ended())
    }

    /// Whether there is no input at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.iter().flatten().next().is_none()
    }

    fn all_ended(&self) -> bool {
        let mut inputs = self.inputs.iter().flatten().peekable();
        inputs.peek().is_some() && inputs.all(Input::has_ended)
    }

    /// The watermark of all active inputs together.
    pub(crate) fn merge(&mut self) -> Merged {
        let all_ended = self.all_ended();
        let counts = |input: &&Input| all_ended || !(input.idle || input.has_ended());
        let active = self.inputs.iter().flatten().filter(counts);
        match active.map(|input| input.watermark).min() {
            Some(watermark) if watermark > self.merged => {
                self.merged = watermark;
                Merged::Advanced(watermark)
            }
            _ => Merged::Unchanged,
        }
    }

    /// All inputs have ended.
    pub(crate) fn end(&mut self) -> Merged {
        if self.merged == MAX_WATERMARK {
            return Merged::Unchanged;
        }
        self.merged = MAX_WATERMARK;
        Merged::Advanced(MAX_WATERMARK)
    }
}

/// How long each split of a source has been silent.
#[derive(Debug)]
pub(crate) struct Silence {
    timeout: Option<Duration>,
    splits: Vec<Option<Duration>>,
}

impl Silence {
    /// With the time after which a split is idle, if ever.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            splits: Vec::new(),
        }
    }

    /// A split is read from now on.
    pub(crate) fn add(&mut self, split: usize) {
        while self.splits.len() <= split {
            self.splits.push(None);
        }
        self.splits[split] = Some(Duration::ZERO);
    }

    /// A split has ended.
    pub(crate) fn remove(&mut self, split: usize) {
        if let Some(slot) = self.splits.get_mut(split) {
            *slot = None;
        }
    }

    /// A record of the split has come.
    pub(crate) fn break_off(&mut self, split: usize) {
        if let Some(Some(silent)) = self.splits.get_mut(split) {
            *silent = Duration::ZERO;
        }
    }

    /// Time in which every split could have delivered; returns those that are idle now.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<usize> {
        let Some(timeout) = self.timeout else {
            return Vec::new();
        };
        let time = time.min(TURN_MAX);
        let mut idle = Vec::new();
        for (split, silent) in self.splits.iter_mut().enumerate() {
            let Some(silent) = silent else { continue };
            *silent += time;
            if *silent >= timeout {
                idle.push(split);
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_active_input_decides() {
        let mut watermarks = Watermarks::of(2);
        watermarks.advance(0, 10);
        assert_eq!(watermarks.merge(), Merged::Unchanged);
        watermarks.advance(1, 5);
        assert_eq!(watermarks.merge(), Merged::Advanced(5));
        watermarks.set_idle(1, true);
        assert_eq!(watermarks.merge(), Merged::Advanced(10));
        watermarks.advance(1, 7);
        assert_eq!(watermarks.merge(), Merged::Unchanged, "it never goes back");
        watermarks.advance(0, 20);
        watermarks.remove(1);
        assert_eq!(watermarks.merge(), Merged::Advanced(20));
    }

    #[test]
    fn all_idle_inputs_leave_the_watermark_where_it_is() {
        let mut watermarks = Watermarks::of(2);
        watermarks.advance(0, 3);
        watermarks.set_idle(0, true);
        watermarks.set_idle(1, true);
        assert!(watermarks.all_idle());
        assert_eq!(watermarks.merge(), Merged::Unchanged);
        watermarks.advance(0, 4);
        assert_eq!(
            watermarks.merge(),
            Merged::Advanced(4),
            "one is active again"
        );
    }

    #[test]
    fn an_input_that_has_ended_does_not_end_time_for_one_that_is_idle() {
        let mut watermarks = Watermarks::of(2);
        watermarks.advance(0, 3);
        watermarks.advance(1, 3);
        assert_eq!(watermarks.merge(), Merged::Advanced(3));
        watermarks.set_idle(1, true);
        watermarks.advance(0, MAX_WATERMARK);
        assert_eq!(watermarks.merge(), Merged::Unchanged);
        assert!(watermarks.all_idle(), "it holds nobody downstream back");
        watermarks.advance(1, 7);
        assert_eq!(watermarks.merge(), Merged::Advanced(7));
        assert!(!watermarks.all_idle());
        watermarks.set_idle(1, true);
        watermarks.advance(1, MAX_WATERMARK);
        assert_eq!(watermarks.merge(), Merged::Advanced(MAX_WATERMARK));
        assert!(!watermarks.all_idle());
    }

    #[test]
    fn there_is_no_input_before_the_first_and_after_the_last() {
        let mut watermarks = Watermarks::new();
        assert!(watermarks.is_empty() && watermarks.all_idle());
        watermarks.add(1);
        assert!(!watermarks.is_empty() && !watermarks.all_idle());
        watermarks.remove(1);
        assert!(watermarks.is_empty() && watermarks.all_idle());
    }

    #[test]
    fn one_long_turn_makes_no_split_idle() {
        let mut silence = Silence::new(Some(Duration::from_secs(1)));
        silence.add(0);
        assert!(silence.pass(Duration::from_secs(60)).is_empty());
        for _ in 0..3 {
            assert!(silence.pass(TURN_MAX).is_empty());
        }
        assert_eq!(silence.pass(TURN_MAX), [0]);
        silence.break_off(0);
        assert!(silence.pass(TURN_MAX).is_empty());
    }
}
