//! Which windows a moment belongs to.

use std::fmt;
use std::time::Duration;

use crate::batch::NONE;
use crate::bindings::tidemill::job::types::TimeDomain;
use crate::time::{millis, short};

/// A stretch of time, from `start` up to but not including `end`, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first millisecond.
    pub start: i64,
    /// The first millisecond that no longer belongs to it.
    pub end: i64,
}

impl Window {
    /// A window that nothing belongs to.
    pub(crate) const EMPTY: Self = Self { start: 0, end: 0 };

    /// The last millisecond: when the window fires, and the timestamp of its result.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.end.saturating_sub(1)
    }

    /// The window in bytes whose order is that of the windows.
    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(self.start ^ i64::MIN).to_be_bytes());
        bytes[8..].copy_from_slice(&(self.end ^ i64::MIN).to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (start, end) = bytes.split_first_chunk::<8>()?;
        let end: [u8; 8] = end.try_into().ok()?;
        Some(Self {
            start: i64::from_be_bytes(*start) ^ i64::MIN,
            end: i64::from_be_bytes(end) ^ i64::MIN,
        })
    }
}

/// Says which windows a moment belongs to.
pub trait Assigner: Copy + 'static {
    /// Whether the moments are those of the records, rather than of the clock.
    fn is_event_time(&self) -> bool;

    /// Hands the windows of `timestamp` to `f`.
    fn assign(&self, timestamp: i64, f: impl FnMut(Window));

    /// The same, for one who keeps the window that came last: it mostly is the next one as well,
    /// and finding it anew takes a division.
    #[doc(hidden)]
    #[inline]
    fn assign_near(&self, timestamp: i64, last: &mut Window, f: impl FnMut(Window)) {
        let _ = last;
        self.assign(timestamp, f);
    }

    /// The assigner for people, as in a plan.
    fn describe(&self) -> String;
}

pub(crate) fn domain_of(assigner: &impl Assigner) -> TimeDomain {
    if assigner.is_event_time() {
        TimeDomain::EventTime
    } else {
        TimeDomain::ProcessingTime
    }
}

/// Windows of one size, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tumbling {
    size_ms: i64,
    offset_ms: i64,
    event_time: bool,
}

impl Tumbling {
    /// Windows over the time of the records.
    #[must_use]
    pub fn event_time(size: Duration) -> Self {
        Self {
            size_ms: millis(size).max(1),
            offset_ms: 0,
            event_time: true,
        }
    }

    /// Windows over the time of the clock.
    #[must_use]
    pub fn processing_time(size: Duration) -> Self {
        Self {
            event_time: false,
            ..Self::event_time(size)
        }
    }

    /// Shifts the windows, which otherwise begin at multiples of their size since the epoch.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset_ms = millis(offset) % self.size_ms;
        self
    }

    #[inline]
    fn window(&self, timestamp: i64) -> Window {
        let into = timestamp
            .saturating_sub(self.offset_ms)
            .rem_euclid(self.size_ms);
        let start = timestamp.saturating_sub(into);
        Window {
            start,
            end: start.saturating_add(self.size_ms),
        }
    }
}

impl Assigner for Tumbling {
    fn is_event_time(&self) -> bool {
        self.event_time
    }

    #[inline]
    fn assign(&self, timestamp: i64, mut f: impl FnMut(Window)) {
        f(self.window(timestamp));
    }

    #[inline]
    fn assign_near(&self, timestamp: i64, last: &mut Window, mut f: impl FnMut(Window)) {
        if timestamp < last.start || timestamp >= last.end {
            *last = self.window(timestamp);
        }
        f(*last);
    }

    fn describe(&self) -> String {
        let domain = if self.event_time {
            "Event"
        } else {
            "Processing"
        };
        let size = short(Duration::from_millis(self.size_ms.unsigned_abs()));
        format!("Tumbling{domain}TimeWindows({size})")
    }
}

/// Whether a record has no time.
#[inline]
pub(crate) fn is_timeless(timestamp: i64) -> bool {
    timestamp == NONE
}

/// The message for records that have no time.
pub(crate) const TIMELESS: &str = "a record without timestamp came to an event-time window; give \
                                   records their time with `assign_timestamps`, or use windows \
                                   of processing time";

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_that_came_last_does_not_change_the_next() {
        let tumbling = Tumbling::event_time(Duration::from_secs(15)).offset(Duration::from_secs(1));
        let mut last = Window::EMPTY;
        for timestamp in [
            0, 1, 999, 1_000, 15_999, 16_000, 3, -1, -14_001, -14_000, 16_000,
        ] {
            let mut near = None;
            tumbling.assign_near(timestamp, &mut last, |window| near = Some(window));
            assert_eq!(near, Some(tumbling.window(timestamp)), "{timestamp}");
        }
    }

    #[test]
    fn windows_before_the_epoch_are_whole_too() {
        let tumbling = Tumbling::event_time(Duration::from_secs(15));
        assert_eq!(
            tumbling.window(-1),
            Window {
                start: -15_000,
                end: 0
            }
        );
        assert_eq!(
            tumbling.window(0),
            Window {
                start: 0,
                end: 15_000
            }
        );
        assert_eq!(
            tumbling.window(14_999),
            Window {
                start: 0,
                end: 15_000
            }
        );
        assert_eq!(
            tumbling.window(15_000),
            Window {
                start: 15_000,
                end: 30_000
            }
        );
        let shifted = tumbling.offset(Duration::from_secs(5));
        assert_eq!(
            shifted.window(4_999),
            Window {
                start: -10_000,
                end: 5_000
            }
        );
    }

    #[test]
    fn a_window_is_read_back_and_ordered_as_bytes() {
        let windows = [Window { start: -15, end: 0 }, Window { start: 0, end: 15 }];
        assert!(windows[0].to_bytes() < windows[1].to_bytes());
        assert_eq!(Window::from_bytes(&windows[0].to_bytes()), Some(windows[0]));
    }
}
