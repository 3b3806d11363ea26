//! How many records to give to a guest at once: as many as take the target time.
//!
//! A call costs about a microsecond whatever it carries, so batches should be large; barriers,
//! timers, cancels and neighbours wait for a call to end, so they should be short in time.

use std::time::Duration;

/// The most records of one call. Beyond some hundred a call's own cost no longer shows.
pub(crate) const RECORDS_MAX: usize = 8_192;
/// The most bytes of one call, which the guest's memory must hold.
pub(crate) const BYTES_MAX: usize = 1 << 20;
/// Where a task starts before it has been measured.
const RECORDS_START: f64 = 64.0;
/// How fast the size may grow from one call to the next.
const GROWTH_MAX: f64 = 4.0;

/// Sizes the batches of one task.
#[derive(Debug)]
pub(crate) struct BatchSizer {
    target: Duration,
    records: f64,
}

impl BatchSizer {
    /// Aims at calls of `target`.
    pub(crate) fn new(target: Duration) -> Self {
        Self {
            target,
            records: RECORDS_START,
        }
    }

    /// The records of the next call, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and RECORDS_MAX"
    )]
    pub(crate) fn records(&self) -> usize {
        self.records as usize
    }

    /// Learns from a call.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn learn(&mut self, records: usize, took: Duration) {
        if records == 0 {
            return;
        }
        let each = took.as_secs_f64() / records as f64;
        let fitting = self.target.as_secs_f64() / each.max(1e-9);
        // Shrink at once, grow with care: one slow record must not be followed by thousands.
        let next = fitting.min(self.records * GROWTH_MAX);
        self.records = next.clamp(1.0, RECORDS_MAX as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_records_come_one_at_a_time_and_fast_ones_by_the_thousand() {
        let mut sizer = BatchSizer::new(Duration::from_millis(5));
        for _ in 0..10 {
            let records = sizer.records();
            sizer.learn(
                records,
                Duration::from_nanos(100) * u32::try_from(records).unwrap(),
            );
        }
        assert_eq!(sizer.records(), RECORDS_MAX);
        sizer.learn(64, Duration::from_secs(6));
        assert_eq!(sizer.records(), 1);
    }
}
