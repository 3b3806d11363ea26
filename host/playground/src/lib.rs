//! Click events with a known answer, for the demo and for end-to-end tests.
//!
//! [`Clicks`] is the endless, exactly reproducible stream of events: six pages, each with exactly
//! 1,000 events in every window of 15 s. [`generate`] writes it to a Kafka topic; [`Audit`] checks
//! what the job made of it: every (page, window) must be there and say 1,000. [`MockBroker`] is a
//! broker inside this process, for a demo without Kafka.

#![expect(
    clippy::disallowed_methods,
    reason = "events are generated in real time"
)]

mod audit;
mod broker;
mod clicks;
mod generate;
mod results;
mod time;

pub use audit::{Audit, CountedWindow, PageViews, Verdict};
pub use broker::MockBroker;
pub use clicks::{Click, Clicks, EVENTS_PER_WINDOW, PAGES, WINDOW_MS};
pub use generate::{Error, GeneratorConfig, Progress, create_topics, generate};
pub use results::Results;
pub use time::{format_time, now_ms};
