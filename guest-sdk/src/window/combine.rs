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
use crate::hash::{Table, hash, same};
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
    table: Table,
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
            table: Table::default(),
            entries: Vec::new(),
            live: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

/// Finds the entry of (key, window), or makes it.
#[inline]
fn entry_of<Acc>(
    table: &mut Table,
    entries: &mut Vec<Entry<Acc>>,
    key: &[u8],
    window: Window,
) -> u32 {
    let hash = hash(key, window.start.cast_unsigned());
    let found = table.find(hash, |index| {
        let entry = &entries[index as usize];
        entry.hash == hash && entry.window.start == window.start && same(&entry.key, key)
    });
    match found {
        Some(index) => index,
        None => insert(
            table,
            entries,
            Entry {
                hash,
                key: key.into(),
                window,
                part: None,
            },
        ),
    }
}

#[cold]
fn insert<Acc>(table: &mut Table, entries: &mut Vec<Entry<Acc>>, entry: Entry<Acc>) -> u32 {
    let index = u32::try_from(entries.len()).expect("entries are bounded");
    let hash = entry.hash;
    entries.push(entry);
    table.insert(hash, index, |index| entries[index as usize].hash);
    index
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
            self.table.clear();
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
            table,
            entries,
            live,
            scratch,
            ..
        } = self;
        selector.with_bytes(&value, scratch, |key| {
            assigner.assign_near(timestamp, last, |window| {
                let index = entry_of(table, entries, key, window);
                let part = &mut entries[index as usize].part;
                let (elements, acc) = part.get_or_insert_with(|| {
                    live.push(index);
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
