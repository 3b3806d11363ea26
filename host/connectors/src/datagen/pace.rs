//! Giving records at a rate.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What was missed is made up for so long; after a longer pause the rate goes on from there.
const BURST: Duration = Duration::from_secs(1);
/// Records are given in portions of at least so much time.
const TICK: Duration = Duration::from_millis(1);

/// A rate and how much of it was used.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    /// Since when `spent` counts.
    since: Option<Instant>,
    spent: u64,
}

impl Pace {
    pub(super) const fn new(per_second: f64) -> Self {
        Self {
            per_second,
            since: None,
            spent: 0,
        }
    }

    /// Waits until at least one record may be given and says how many may.
    pub(super) async fn allowed(&mut self) -> usize {
        loop {
            let now = Instant::now();
            let due = self.due(now);
            if due >= 1 {
                return usize::try_from(due).unwrap_or(usize::MAX);
            }
            sleep_until(self.next_due().max(now + TICK)).await;
        }
    }

    /// Records were given.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub(super) fn spend(&mut self, records: usize, now: Instant) {
        self.spent += records as u64;
        // Forget what was missed beyond the burst.
        let since = *self.since.get_or_insert(now);
        let on_schedule = since + Duration::from_secs_f64(self.spent as f64 / self.per_second);
        if now > on_schedule + BURST {
            self.since = Some(now - BURST);
            self.spent = 0;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, and casts from floats saturate"
    )]
    fn due(&mut self, now: Instant) -> u64 {
        let since = *self.since.get_or_insert(now);
        let total = now.saturating_duration_since(since).as_secs_f64() * self.per_second;
        // The first record is due at once.
        (total as u64 + 1).saturating_sub(self.spent)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn next_due(&self) -> Instant {
        let since = self.since.unwrap_or_else(Instant::now);
        since + Duration::from_secs_f64(self.spent as f64 / self.per_second)
    }
}
