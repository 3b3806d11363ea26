//! Combining before the exchange: the values of one call are put together per key and window where
//! they are, and only what has been put together travels.
//!
//! The results are the same: whether a record is late depends on its window alone, so the records
//! of a window that were put together are late together, and each part says how many they are.
//!
//! # Invariants
//!
//! 1. Nothing is held back over the end of a call.
//! 2. Entries stay after their call so that a key that comes again costs no allocation; there are
//!    at most [`KEPT_MAX`] of them.

use std::rc::Rc;

use crate::chain::{Collector, Counts, Signal};
use crate::context::Context;
use crate::exchange;
use crate::hash::{Table, hash, same, summary};
use crate::key::KeySelector;
use crate::window::assigner::{TIMELESS, is_timeless};
use crate::window::{Aggregate, Assigner, Window};

/// How many (key, window) pairs are remembered from call to call.
const KEPT_MAX: usize = 4096;

/// With so many pairs in one call there is little to combine, and memory is bounded.
const LIVE_MAX: usize = 16_384;

struct Entry<Acc> {
    hash: u64,
    key: Box<[u8]>,
    window: Window,
    /// Elements and what they came to, if there were any in this call.
    part: Option<(u64, Acc)>,
}

/// What takes the values of a keyed stream on the sender's side.
pub(crate) struct Combine<S, W, A, Acc> {
    operator: u32,
    port: u32,
    selector: S,
    assigner: W,
    last: Window,
    aggregate: Rc<A>,
    counts: Counts,
    index: Index,
    entries: Vec<Entry<Acc>>,
    /// The entries with a part.
    live: Vec<u32>,
    scratch: Vec<u8>,
}

impl<S, W, A, Acc> Combine<S, W, A, Acc> {
    pub(crate) fn new((operator, port): (u32, u32), selector: S, assigner: W, by: Rc<A>) -> Self {
        Self {
            operator,
            port,
            selector,
            assigner,
            last: Window::EMPTY,
            aggregate: by,
            counts: Counts::default(),
            index: Index::default(),
            entries: Vec::new(),
            live: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

/// How many pairs are found without a look into the table.
const RECENT: usize = 256;

/// Where the entry of a pair is.
struct Index {
    table: Table,
    /// One of the pairs that came lately, for each value of some bits: most jobs have few pairs at
    /// a time, and these are found by comparing two numbers.
    recent: Vec<Recent>,
}

#[derive(Clone, Copy)]
struct Recent {
    /// Stands for the key: see [`summary`].
    summary: (u64, u32),
    window_start: i64,
    entry: u32,
}

impl Default for Index {
    fn default() -> Self {
        // No key is as long as a guest's memory.
        let nothing = Recent {
            summary: (0, u32::MAX),
            window_start: 0,
            entry: 0,
        };
        Self {
            table: Table::default(),
            recent: vec![nothing; RECENT],
        }
    }
}

impl Index {
    /// Finds the entry of (key, window), or makes it.
    #[inline]
    fn entry_of<Acc>(&mut self, entries: &mut Vec<Entry<Acc>>, key: &[u8], window: Window) -> u32 {
        let (summary, is_exact) = summary(key);
        let mixed = (summary.0 ^ window.start.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = (mixed >> 56) as usize % RECENT;
        let recent = self.recent[place];
        let is_it = recent.summary == summary
            && recent.window_start == window.start
            && (is_exact || same(&entries[recent.entry as usize].key, key));
        if is_it {
            return recent.entry;
        }
        let entry = self.find(entries, key, window);
        self.recent[place] = Recent {
            summary,
            window_start: window.start,
            entry,
        };
        entry
    }

    #[inline(never)]
    fn find<Acc>(&mut self, entries: &mut Vec<Entry<Acc>>, key: &[u8], window: Window) -> u32 {
        let hash = hash(key, window.start.cast_unsigned());
        let found = self.table.find(hash, |index| {
            let entry = &entries[index as usize];
            entry.hash == hash && entry.window.start == window.start && same(&entry.key, key)
        });
        if let Some(index) = found {
            return index;
        }
        let index = u32::try_from(entries.len()).expect("entries are bounded");
        entries.push(Entry {
            hash,
            key: key.into(),
            window,
            part: None,
        });
        self.table
            .insert(hash, index, |index| entries[index as usize].hash);
        index
    }
}

impl<S, W, A, Acc: serde::Serialize> Combine<S, W, A, Acc> {
    fn send(&mut self, cx: &mut Context) {
        self.counts.records_out += self.live.len() as u64;
        for index in self.live.drain(..) {
            let entry = &mut self.entries[index as usize];
            let Some((elements, acc)) = entry.part.take() else {
                continue;
            };
            let Window { start, end } = entry.window;
            let timestamp = entry.window.max_timestamp();
            let port = &mut cx.ports[self.port as usize];
            let sent = port.push_with(timestamp, Some(&entry.key), |out| {
                exchange::write(&(start, end, elements, &acc), out)
            });
            if let Err(error) = sent {
                cx.fail(
                    self.operator,
                    format!("an accumulator cannot be sent: {error}"),
                );
            }
        }
        if self.entries.len() > KEPT_MAX {
            self.entries.clear();
            self.index = Index::default();
        }
    }
}

impl<T, S, W, A> Collector<T> for Combine<S, W, A, A::Acc>
where
    T: 'static,
    S: KeySelector<T>,
    W: Assigner,
    A: Aggregate<T>,
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        if is_timeless(timestamp) {
            cx.fail(self.operator, TIMELESS.to_owned());
            return;
        }
        let Self {
            selector,
            assigner,
            last,
            aggregate,
            index,
            entries,
            live,
            scratch,
            ..
        } = self;
        selector.with_bytes(&value, scratch, |key| {
            assigner.assign_near(timestamp, last, |window| {
                let number = index.entry_of(entries, key, window);
                let part = &mut entries[number as usize].part;
                let (elements, acc) = part.get_or_insert_with(|| {
                    live.push(number);
                    (0, aggregate.create())
                });
                *elements += 1;
                aggregate.add(acc, &value);
            });
        });
        if self.live.len() >= LIVE_MAX {
            self.send(cx);
        }
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.send(cx);
            self.counts.report(cx, self.operator);
        }
    }
}
