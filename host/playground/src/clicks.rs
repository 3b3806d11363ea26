//! The stream of events itself.

/// The pages, in the order in which they are clicked.
pub const PAGES: [&str; 6] = ["/help", "/index", "/shop", "/jobs", "/about", "/news"];
/// The length of a window in milliseconds of event time.
pub const WINDOW_MS: i64 = 15_000;
/// The events of each page in each window.
pub const EVENTS_PER_WINDOW: i64 = 1_000;

/// A click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Click {
    /// Event time in milliseconds since the epoch.
    pub timestamp: i64,
    /// The page.
    pub page: &'static str,
}

impl Click {
    /// The event as the job reads it.
    #[must_use]
    pub fn to_json(self) -> String {
        format!(
            r#"{{"timestamp":{},"page":"{}"}}"#,
            self.timestamp, self.page
        )
    }
}

/// All clicks from a point in event time on.
#[derive(Debug, Clone, Copy)]
pub struct Clicks {
    /// The start of the first window.
    pub start_ms: i64,
}

impl Clicks {
    /// Clicks from the window on that contains this time.
    #[must_use]
    pub const fn starting_near(time_ms: i64) -> Self {
        Self {
            start_ms: time_ms - time_ms.rem_euclid(WINDOW_MS),
        }
    }

    /// Click number `index`, from 0.
    #[must_use]
    pub fn get(self, index: u64) -> Click {
        let pages = PAGES.len() as u64;
        let page = usize::try_from(index % pages).expect("below the number of pages");
        let of_page = i64::try_from(index / pages).expect("below 2^61");
        Click {
            timestamp: self.start_ms + of_page * (WINDOW_MS / EVENTS_PER_WINDOW),
            page: PAGES[page],
        }
    }

    /// The number of clicks in `windows` windows.
    #[must_use]
    pub const fn in_windows(windows: u64) -> u64 {
        windows * EVENTS_PER_WINDOW.unsigned_abs() * PAGES.len() as u64
    }

    /// The window that click number `index` belongs to, from 0.
    #[must_use]
    pub const fn window_of(index: u64) -> u64 {
        index / Self::in_windows(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_page_has_a_thousand_events_in_every_window() {
        let clicks = Clicks::starting_near(1_700_000_000_123);
        let mut counts = HashMap::new();
        for index in 0..Clicks::in_windows(3) {
            let click = clicks.get(index);
            let window = (click.timestamp - clicks.start_ms) / WINDOW_MS;
            assert_eq!(window.unsigned_abs(), Clicks::window_of(index));
            *counts.entry((window, click.page)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 3 * PAGES.len());
        assert!(counts.values().all(|count| *count == EVENTS_PER_WINDOW));
    }
}
