//! Time at the edge of the process.
//!
//! Everything below this module takes milliseconds as arguments. The clock starts at the system's
//! time and then only goes forward, so that a change of the system's time cannot fire deadlines.

#![expect(
    clippy::disallowed_types,
    reason = "the one place of the coordinator that reads the system's clocks"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch that never go back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start_ms: i64,
    start: Instant,
}

impl Clock {
    /// A clock that agrees with the system's now.
    pub(crate) fn system() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            start_ms: millis(since_epoch),
            start: Instant::now(),
        }
    }

    /// The time now.
    pub(crate) fn now_ms(&self) -> i64 {
        self.start_ms.saturating_add(millis(self.start.elapsed()))
    }

    /// The runtime's instant at which this clock shows `at_ms`.
    pub(crate) fn instant_of(&self, at_ms: i64) -> tokio::time::Instant {
        let ahead = u64::try_from(at_ms.saturating_sub(self.now_ms())).unwrap_or(0);
        // A day is far enough: whoever waits longer just looks again.
        tokio::time::Instant::now() + Duration::from_millis(ahead.min(86_400_000))
    }
}

/// A duration in whole milliseconds, as the protocol counts them.
pub(crate) fn unsigned_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
