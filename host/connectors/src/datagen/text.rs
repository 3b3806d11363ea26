//! `sequence` and `random-text`, and writing decimal numbers fast.

use tidemill_types::{Batch, NO_TIMESTAMP};

use super::{Generate, Range};

/// Room for the digits of any `u64`.
pub(super) const DIGITS_MAX: usize = 20;

/// Writes `number` in decimal at the end of `buffer` and returns the digits.
pub(super) fn decimal(mut number: u64, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// Ends the record whose bytes were just appended.
pub(super) fn end_record(batch: &mut Batch, timestamp: i64) {
    batch.values.ends.push(end(batch));
    batch.timestamps.push(timestamp);
}

fn end(batch: &Batch) -> u32 {
    u32::try_from(batch.values.data.len()).expect("a batch's budget is far below 4 GiB")
}

/// The record numbers themselves.
#[derive(Debug)]
pub(super) struct Sequence;

impl Generate for Sequence {
    fn fill(&mut self, range: Range, batch: &mut Batch) {
        let mut number = range.split + range.position * range.splits;
        let mut buffer = [0; DIGITS_MAX];
        for _ in 0..range.count {
            batch
                .values
                .data
                .extend_from_slice(decimal(number, &mut buffer));
            end_record(batch, NO_TIMESTAMP);
            number += range.splits;
        }
    }

    fn record_bytes(&self) -> usize {
        24
    }
}

/// What lines are made of.
const DICTIONARY: [&str; 64] = [
    "tide", "mill", "water", "wheel", "stone", "grain", "flour", "river", "gate", "stream", "flow",
    "sluice", "harbour", "moon", "ebb", "flood", "basin", "channel", "bank", "bridge", "boat",
    "sail", "wind", "salt", "marsh", "reed", "heron", "otter", "eel", "net", "rope", "anchor",
    "lantern", "fog", "dawn", "dusk", "noon", "night", "storm", "calm", "rain", "snow", "ice",
    "spring", "summer", "autumn", "winter", "barn", "cart", "horse", "road", "field", "hedge",
    "oak", "elm", "willow", "bread", "oven", "baker", "miller", "sack", "scale", "coin", "market",
];

/// Lines of words.
#[derive(Debug)]
pub(super) struct RandomText {
    seed: u64,
    words: u64,
}

impl RandomText {
    pub(super) const fn new(seed: u64, words: u64) -> Self {
        Self { seed, words }
    }
}

/// One step of SplitMix64.
const fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Generate for RandomText {
    fn fill(&mut self, range: Range, batch: &mut Batch) {
        for position in range.position..range.position + range.count as u64 {
            let mut state = self.seed ^ (range.split + position * range.splits).rotate_left(32);
            for word in 0..self.words {
                if word > 0 {
                    batch.values.data.push(b' ');
                }
                let choice = (mix(&mut state) >> 58) as usize;
                batch
                    .values
                    .data
                    .extend_from_slice(DICTIONARY[choice].as_bytes());
            }
            end_record(batch, NO_TIMESTAMP);
        }
    }

    fn record_bytes(&self) -> usize {
        usize::try_from(self.words)
            .unwrap_or(usize::MAX)
            .saturating_mul(6)
            + 12
    }
}
