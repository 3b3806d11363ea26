//! Counts clicks per page in windows of 15 seconds.
//!
//! Reads `{"timestamp": 1000, "page": "/shop"}` from one topic and writes
//! `{"windowStart": 0, "windowEnd": 15000, "page": "/shop", "count": 1000}` to another; times are in
//! milliseconds since the epoch.
//!
//! Arguments: `--bootstrap.servers`, `--input-topic`, `--output-topic`, and the flags
//! `--checkpointing` (every second), `--event-time` (rather than the time of the clock),
//! `--backpressure` (a slow operator in every even minute), `--chaining` (fewer, larger tasks).
//! For measurements: `--source datagen` with `--records`, `--rate`, `--us-per-record` and
//! `--start-timestamp`, and `--sink blackhole`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill::Connector;
use tidemill::prelude::*;

const WINDOW: Duration = Duration::from_secs(15);

/// A click, as it comes in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClickEvent {
    /// When it happened.
    pub timestamp: i64,
    /// Where it happened.
    pub page: String,
}

/// What goes out: how many clicks a page had in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClickEventStatistics {
    /// The window's first millisecond.
    pub window_start: i64,
    /// The first millisecond after it.
    pub window_end: i64,
    /// The page.
    pub page: String,
    /// Its clicks.
    pub count: u64,
}

/// Describes the job.
///
/// # Errors
///
/// When an argument is missing or cannot be understood.
#[tidemill::job]
pub fn click_event_count(env: &Env, args: &Args) -> Result<()> {
    env.name("Click Event Count");
    if args.flag("checkpointing")? {
        env.enable_checkpointing(Duration::from_secs(1));
    }
    if !args.flag("chaining")? {
        env.disable_operator_chaining();
    }

    let watermarks = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(200))
        .with_idleness(Duration::from_secs(5));
    let clicks = env
        .source("ClickEvent Source", source(args)?)
        .decode(Json::<ClickEvent>::new())
        .assign_timestamps(watermarks, |click| click.timestamp);

    if args.flag("backpressure")? {
        let slowed = clicks
            .key_by_ref(|click| &click.page)
            .map(slow_in_even_minutes);
        count(slowed.name("Backpressure"), args)
    } else {
        count(clicks, args)
    }
}

fn count(clicks: Stream<impl Pipe<Out = ClickEvent>>, args: &Args) -> Result<()> {
    let windows = if args.flag("event-time")? {
        Tumbling::event_time(WINDOW)
    } else {
        Tumbling::processing_time(WINDOW)
    };
    clicks
        .key_by_ref(|click| &click.page)
        .window(windows)
        .aggregate(Count, |window, page, count| ClickEventStatistics {
            window_start: window.start,
            window_end: window.end,
            page: page.clone(),
            count,
        })
        .name("ClickEvent Counter")
        .encode(Json::new())
        .sink("ClickEventStatistics Sink", sink(args)?);
    Ok(())
}

fn source(args: &Args) -> Result<Connector> {
    match args.get_or("source", "kafka") {
        "kafka" => Ok(kafka::source(args.get_or("input-topic", "input"))
            .bootstrap_servers(args.get_or("bootstrap.servers", "localhost:9092"))
            .group_id("click-event-count")
            .start_from(kafka::Start::Earliest)
            .into()),
        "datagen" => {
            let mut clicks = datagen::click_events();
            if let Some(records) = args.parsed("records")? {
                clicks = clicks.records(records);
            }
            if let Some(rate) = args.parsed("rate")? {
                clicks = clicks.rate(rate);
            }
            if let Some(micros) = args.parsed("us-per-record")? {
                clicks = clicks.micros_per_record(micros);
            }
            if let Some(timestamp) = args.parsed("start-timestamp")? {
                clicks = clicks.start_timestamp(timestamp);
            }
            Ok(clicks.into())
        }
        other => Err(Error::new(format!(
            "--source is kafka or datagen, not `{other}`"
        ))),
    }
}

fn sink(args: &Args) -> Result<Connector> {
    match args.get_or("sink", "kafka") {
        "kafka" => Ok(kafka::sink(args.get_or("output-topic", "output"))
            .bootstrap_servers(args.get_or("bootstrap.servers", "localhost:9092"))
            .into()),
        "print" => Ok(print::sink().into()),
        "blackhole" => Ok(blackhole::sink().into()),
        other => Err(Error::new(format!(
            "--sink is kafka, print or blackhole, not `{other}`"
        ))),
    }
}

/// Takes 100 ms for each click while the minute is even, so that one can watch backpressure.
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "being slow is the point"
)]
fn slow_in_even_minutes(click: ClickEvent) -> ClickEvent {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    if now.is_ok_and(|now| now.as_secs() / 60 % 2 == 0) {
        std::thread::sleep(Duration::from_millis(100));
    }
    click
}

#[cfg(test)]
mod tests;
