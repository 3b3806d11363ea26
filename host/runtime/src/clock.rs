//! The one place where this crate reads a clock: limits on guests are about real time.

#![expect(
    clippy::disallowed_types,
    reason = "a guest that loops is stopped by real time, not by simulated time"
)]

/// A point in real time.
pub(crate) type Moment = std::time::Instant;

/// This moment.
pub(crate) fn now() -> Moment {
    Moment::now()
}
