//! Click events: `{"timestamp":1234,"page":"/help"}`, six pages in turn.
//!
//! A record costs one copy: six records of one round are kept ready and only the digits of the
//! timestamp are replaced.

use tidemill_types::Batch;

use super::{
    Generate, Range,
    text::{DIGITS_MAX, decimal, end_record},
};

const PAGES: [&str; 6] = ["/help", "/index", "/shop", "/jobs", "/about", "/news"];
const PAGES_LEN: u64 = PAGES.len() as u64;
const HEAD: &str = "{\"timestamp\":";

/// How event time goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum ClickTime {
    /// So many events of each page in each window.
    PerWindow {
        /// Events per page.
        events: u64,
        /// Length of the window.
        window_ms: u64,
    },
    /// By so much with each record.
    PerRecord {
        /// Microseconds.
        us: u64,
    },
}

/// The generator.
#[derive(Debug)]
pub(super) struct Clicks {
    start: u64,
    time: ClickTime,
    ready: Round,
}

impl Clicks {
    pub(super) fn new(start: u64, time: ClickTime) -> Self {
        Self {
            start,
            time,
            ready: Round::new(start),
        }
    }

    /// The event time of a record.
    fn timestamp(&self, round: u64, page: u64) -> u64 {
        let passed = match self.time {
            ClickTime::PerWindow { events, window_ms } => {
                let within = (round % events).saturating_mul(window_ms) / events;
                (round / events)
                    .saturating_mul(window_ms)
                    .saturating_add(within)
            }
            ClickTime::PerRecord { us } => {
                (round.saturating_mul(PAGES_LEN) + page).saturating_mul(us) / 1_000
            }
        };
        // Far below the largest timestamp, so that windows can still be computed.
        self.start.saturating_add(passed).min(1 << 62)
    }
}

impl Generate for Clicks {
    fn fill(&mut self, range: Range, batch: &mut Batch) {
        let mut position = range.position;
        let end = position + range.count as u64;
        let same_time = matches!(self.time, ClickTime::PerWindow { .. });
        while position < end {
            let round = range.split + (position / PAGES_LEN) * range.splits;
            let page = position % PAGES_LEN;
            self.ready.set_time(self.timestamp(round, page));
            if same_time && page == 0 && end - position >= PAGES_LEN {
                self.ready.write_all(batch);
                position += PAGES_LEN;
            } else {
                self.ready.write(page, batch);
                position += 1;
            }
        }
    }

    fn record_bytes(&self) -> usize {
        64
    }

    fn len_of(&self, split: u64, splits: u64, records: u64) -> u64 {
        let rounds = records / PAGES_LEN;
        let whole = rounds.saturating_sub(split).div_ceil(splits) * PAGES_LEN;
        let rest = if rounds % splits == split {
            records % PAGES_LEN
        } else {
            0
        };
        whole + rest
    }
}

/// Six records of one timestamp, written out.
#[derive(Debug)]
struct Round {
    timestamp: u64,
    digits: usize,
    text: Vec<u8>,
    /// Where each record begins, and the end of the last.
    bounds: [usize; PAGES.len() + 1],
}

impl Round {
    fn new(timestamp: u64) -> Self {
        let mut round = Self {
            timestamp,
            digits: 0,
            text: Vec::new(),
            bounds: [0; PAGES.len() + 1],
        };
        round.rebuild();
        round
    }

    fn rebuild(&mut self) {
        let mut buffer = [0; DIGITS_MAX];
        let digits = decimal(self.timestamp, &mut buffer);
        self.digits = digits.len();
        self.text.clear();
        for (index, page) in PAGES.iter().enumerate() {
            self.text.extend_from_slice(HEAD.as_bytes());
            self.text.extend_from_slice(digits);
            self.text.extend_from_slice(b",\"page\":\"");
            self.text.extend_from_slice(page.as_bytes());
            self.text.extend_from_slice(b"\"}");
            self.bounds[index + 1] = self.text.len();
        }
    }

    fn set_time(&mut self, timestamp: u64) {
        if timestamp == self.timestamp {
            return;
        }
        self.timestamp = timestamp;
        let mut buffer = [0; DIGITS_MAX];
        let digits = decimal(timestamp, &mut buffer);
        if digits.len() != self.digits {
            self.rebuild();
            return;
        }
        for start in &self.bounds[..PAGES.len()] {
            let at = start + HEAD.len();
            self.text[at..at + digits.len()].copy_from_slice(digits);
        }
    }

    fn event_time(&self) -> i64 {
        i64::try_from(self.timestamp).unwrap_or(i64::MAX)
    }

    fn write(&self, page: u64, batch: &mut Batch) {
        let page = usize::try_from(page).expect("one of six");
        batch
            .values
            .data
            .extend_from_slice(&self.text[self.bounds[page]..self.bounds[page + 1]]);
        end_record(batch, self.event_time());
    }

    fn write_all(&self, batch: &mut Batch) {
        let base = batch.values.data.len();
        batch.values.data.extend_from_slice(&self.text);
        let ends = self.bounds[1..]
            .iter()
            .map(|bound| u32::try_from(base + bound).expect("a batch's budget is far below 4 GiB"));
        batch.values.ends.extend(ends);
        batch.timestamps.extend([self.event_time(); PAGES.len()]);
    }
}
