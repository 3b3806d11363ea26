//! Checking the job's results.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Clicks, EVENTS_PER_WINDOW, PAGES, WINDOW_MS};

/// A result of the job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageViews {
    /// Start of the window.
    pub window_start: i64,
    /// End of the window.
    pub window_end: i64,
    /// The page.
    pub page: String,
    /// How often it was clicked.
    pub count: i64,
}

/// A window that has results for all pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedWindow {
    /// Its number, from 0.
    pub number: u64,
    /// Its start.
    pub start_ms: i64,
    /// Whether every count was right.
    pub right: bool,
}

/// What came out in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// (page, window) pairs that never came.
    pub missing: Vec<String>,
    /// Results that are not as they must be.
    pub wrong: Vec<String>,
    /// Results that came again, the same as before.
    pub repeated: u64,
}

impl Verdict {
    /// Whether every result was there and right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.missing.is_empty() && self.wrong.is_empty()
    }
}

/// Keeps account of results.
#[derive(Debug)]
pub struct Audit {
    clicks: Clicks,
    counts: BTreeMap<(u64, usize), i64>,
    wrong: Vec<String>,
    repeated: u64,
}

impl Audit {
    /// For the results of these clicks.
    #[must_use]
    pub const fn new(clicks: Clicks) -> Self {
        Self {
            clicks,
            counts: BTreeMap::new(),
            wrong: Vec::new(),
            repeated: 0,
        }
    }

    /// Takes a result as it came from the topic. Returns the window if this completes it.
    pub fn take(&mut self, record: &[u8]) -> Option<CountedWindow> {
        match serde_json::from_slice(record) {
            Ok(result) => self.take_result(&result),
            Err(error) => {
                let text = String::from_utf8_lossy(record);
                self.wrong.push(format!("not a result ({error}): {text}"));
                None
            }
        }
    }

    fn take_result(&mut self, result: &PageViews) -> Option<CountedWindow> {
        let offset = result.window_start - self.clicks.start_ms;
        let page = PAGES.iter().position(|page| *page == result.page);
        let (Some(page), 0, Ok(number)) = (
            page,
            offset.rem_euclid(WINDOW_MS),
            u64::try_from(offset / WINDOW_MS),
        ) else {
            self.wrong.push(format!("nobody asked for {result:?}"));
            return None;
        };
        if result.window_end != result.window_start + WINDOW_MS {
            self.wrong
                .push(format!("the window of {result:?} is not 15 s long"));
        }
        if result.count != EVENTS_PER_WINDOW {
            self.wrong.push(format!(
                "{} in window {number} was counted {} times",
                result.page, result.count
            ));
        }
        if let Some(before) = self.counts.insert((number, page), result.count) {
            self.repeated += 1;
            if before != result.count {
                self.wrong.push(format!(
                    "{} in window {number} was first {before}, then {}",
                    result.page, result.count
                ));
            }
            return None;
        }
        let of_window = self.counts.range((number, 0)..=(number, PAGES.len()));
        let counts: Vec<i64> = of_window.map(|(_, count)| *count).collect();
        (counts.len() == PAGES.len()).then(|| CountedWindow {
            number,
            start_ms: result.window_start,
            right: counts.iter().all(|count| *count == EVENTS_PER_WINDOW),
        })
    }

    /// The number of windows from the first on that have results for all pages.
    #[must_use]
    pub fn windows_done(&self) -> u64 {
        let complete =
            |window: &u64| (0..PAGES.len()).all(|page| self.counts.contains_key(&(*window, page)));
        (0..).take_while(complete).count() as u64
    }

    /// What came out, of the first `windows` windows.
    #[must_use]
    pub fn verdict(&self, windows: u64) -> Verdict {
        let pairs =
            (0..windows).flat_map(|window| (0..PAGES.len()).map(move |page| (window, page)));
        let missing = pairs
            .filter(|pair| !self.counts.contains_key(pair))
            .map(|(window, page)| format!("{} in window {window} is missing", PAGES[page]))
            .collect();
        Verdict {
            missing,
            wrong: self.wrong.clone(),
            repeated: self.repeated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(window: i64, page: &str, count: i64) -> Vec<u8> {
        let start = window * WINDOW_MS;
        format!(
            r#"{{"windowStart":{start},"windowEnd":{},"page":"{page}","count":{count}}}"#,
            start + WINDOW_MS
        )
        .into_bytes()
    }

    #[test]
    fn losses_duplicates_and_nonsense_are_seen() {
        let mut audit = Audit::new(Clicks { start_ms: 0 });
        for page in PAGES {
            audit.take(&result(0, page, 1000));
        }
        assert!(audit.verdict(1).is_right());
        assert_eq!(audit.windows_done(), 1);
        audit.take(&result(0, "/shop", 1000));
        assert!(
            audit.verdict(1).is_right(),
            "the same result again does no harm"
        );
        assert_eq!(audit.verdict(1).repeated, 1);
        assert_eq!(audit.verdict(2).missing.len(), PAGES.len());
        audit.take(&result(1, "/shop", 999));
        audit.take(b"{}");
        audit.take(&result(-1, "/shop", 1000));
        audit.take(&result(1, "/nowhere", 1000));
        assert_eq!(audit.verdict(1).wrong.len(), 4);
    }
}
