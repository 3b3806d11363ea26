//! Records that are made up, for demonstrations and measurements.

use std::time::Duration;

use crate::connectors::{Connector, builder};
use crate::time::millis;

builder!(
    /// A source that makes records up.
    DatagenSource
);
builder!(
    /// See [`click_events`].
    ClickEvents
);

fn source(format: &str) -> DatagenSource {
    DatagenSource(Connector::new("datagen")).option("format", format)
}

/// Numbers 0, 1, 2, … as text.
pub fn sequence() -> DatagenSource {
    source("sequence")
}

/// Lines of words from a small dictionary.
pub fn random_text(words_per_line: u32) -> DatagenSource {
    source("random-text").option("words", words_per_line)
}

/// Clicks on six pages as JSON, `{"timestamp": <ms>, "page": "/help"}`, so that each page has
/// exactly 1,000 of them in every 15 seconds of event time.
pub fn click_events() -> ClickEvents {
    ClickEvents(Connector::new("datagen")).option("format", "click-event")
}

impl From<ClickEvents> for DatagenSource {
    fn from(clicks: ClickEvents) -> Self {
        Self(clicks.0)
    }
}

macro_rules! limits {
    ($name:ident) => {
        impl $name {
            /// Ends after so many records, over all parallel tasks.
            pub fn records(self, records: u64) -> Self {
                self.option("records", records)
            }

            /// Makes so many records per second, over all parallel tasks. Unlimited otherwise.
            pub fn rate(self, records_per_second: u64) -> Self {
                self.option("rate", records_per_second)
            }

            /// Where randomness starts: the same seed gives the same records.
            pub fn seed(self, seed: u64) -> Self {
                self.option("seed", seed)
            }
        }
    };
}

limits!(DatagenSource);
limits!(ClickEvents);

impl ClickEvents {
    /// How many clicks each page has in a window.
    pub fn per_window(self, events: u64, window: Duration) -> Self {
        self.option("events-per-window", events)
            .option("window-ms", millis(window))
    }

    /// The event time of the first click, in milliseconds since the epoch.
    pub fn start_timestamp(self, timestamp: i64) -> Self {
        self.option("start-timestamp", timestamp)
    }

    /// Lets event time go on by so many microseconds with each click, whatever its page, instead of
    /// by window.
    pub fn micros_per_record(self, micros: u64) -> Self {
        self.option("us-per-record", micros)
    }
}
