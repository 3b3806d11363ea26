//! Event time as an author sees it: timestamps and watermark strategies.

use std::fmt;
use std::time::Duration;

/// Reads the time a value belongs to. Functions of the value, `|click| click.timestamp`, do.
pub trait TimestampAssigner<T>: 'static {
    /// Milliseconds since the epoch.
    fn timestamp(&self, value: &T, record_timestamp: i64) -> i64;
}

impl<T, F: Fn(&T) -> i64 + 'static> TimestampAssigner<T> for F {
    #[inline]
    fn timestamp(&self, value: &T, _record_timestamp: i64) -> i64 {
        self(value)
    }
}

/// Reads the time from the value and the time that it had before.
#[derive(Debug)]
pub struct WithRecordTime<F>(pub(crate) F);

impl<T, F: Fn(&T, i64) -> i64 + 'static> TimestampAssigner<T> for WithRecordTime<F> {
    fn timestamp(&self, value: &T, record_timestamp: i64) -> i64 {
        (self.0)(value, record_timestamp)
    }
}

/// How watermarks follow from timestamps: a watermark `w` says that no more records with
/// timestamps up to `w` are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkStrategy {
    delay: Duration,
    idleness: Option<Duration>,
}

impl WatermarkStrategy {
    /// Records come at most this much later than ones with a larger timestamp.
    #[must_use]
    pub fn bounded_out_of_orderness(delay: Duration) -> Self {
        Self {
            delay,
            idleness: None,
        }
    }

    /// Timestamps never decrease within a split.
    #[must_use]
    pub fn monotonous() -> Self {
        Self::bounded_out_of_orderness(Duration::ZERO)
    }

    /// A split that has had no records for so long no longer holds the others back.
    #[must_use]
    pub fn with_idleness(mut self, timeout: Duration) -> Self {
        self.idleness = Some(timeout);
        self
    }

    pub(crate) fn delay_ms(&self) -> i64 {
        i64::try_from(self.delay.as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn idle_timeout_ms(&self) -> Option<u64> {
        self.idleness
            .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for WatermarkStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of order by at most {}", short(self.delay))?;
        if let Some(timeout) = self.idleness {
            write!(f, ", idle after {}", short(timeout))?;
        }
        Ok(())
    }
}

/// A duration for people: `200 ms`, `15 s`, `2 min`.
pub(crate) fn short(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0 ms".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// A duration in milliseconds, as the contract counts.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
