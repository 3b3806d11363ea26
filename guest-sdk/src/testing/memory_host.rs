//! The host's part for one task, in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::batch::{ColumnExt, Entries, empty};
use crate::bindings::tidemill::job::logging::Level;
use crate::bindings::tidemill::job::state::Entries as StateEntries;
use crate::bindings::tidemill::job::types::{Batch, Column, TimeDomain, TimerBatch};
use crate::host::Host;

/// A timer of the store: queue (event time first), due time, key, namespace.
type Timer = ((bool, u32), i64, Vec<u8>, Vec<u8>);

/// What outlives a task, if a checkpoint is taken of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    state: BTreeMap<(u32, Vec<u8>, Vec<u8>), Vec<u8>>,
    timers: BTreeSet<Timer>,
}

/// A [`Host`] that keeps everything in memory. Clones share what they hold.
#[derive(Debug, Clone, Default)]
pub struct MemoryHost {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Kept,
    emitted: Vec<(u32, Batch)>,
    metrics: BTreeMap<String, u64>,
    log: Vec<String>,
    now_ms: i64,
    reads: u64,
    writes: u64,
}

impl MemoryHost {
    pub(super) fn with_kept(kept: Kept) -> Self {
        let host = Self::default();
        host.inner.borrow_mut().kept = kept;
        host
    }

    pub(super) fn kept(&self) -> Kept {
        self.inner.borrow().kept.clone()
    }

    /// Takes what was sent out since the last time: ports and batches.
    #[must_use]
    pub fn take_emitted(&self) -> Vec<(u32, Batch)> {
        std::mem::take(&mut self.inner.borrow_mut().emitted)
    }

    /// Sets the clock, in milliseconds since the epoch.
    pub fn set_now(&self, now_ms: i64) {
        self.inner.borrow_mut().now_ms = now_ms;
    }

    /// A counter's value.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        self.inner.borrow().metrics.get(name).copied().unwrap_or(0)
    }

    /// How many entries of keyed state there are.
    #[must_use]
    pub fn state_entries(&self) -> usize {
        self.inner.borrow().kept.state.len()
    }

    /// How many entries were asked for and how many were written so far.
    #[must_use]
    pub fn state_traffic(&self) -> (u64, u64) {
        let inner = self.inner.borrow();
        (inner.reads, inner.writes)
    }

    /// The lines of the log.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.inner.borrow().log.clone()
    }

    /// Takes the next timers of one queue that are due at `now`, at most `max`.
    pub(super) fn take_due(&self, event_time: bool, now: i64, max: usize) -> Option<TimerBatch> {
        let mut inner = self.inner.borrow_mut();
        let timers = &mut inner.kept.timers;
        let due = timers.iter().filter(|t| t.0.0 == event_time && t.1 <= now);
        let queue = due.min_by_key(|t| t.1)?.0;
        let due = timers
            .iter()
            .filter(|t| t.0 == queue && t.1 <= now)
            .take(max);
        let due: Vec<Timer> = due.cloned().collect();
        let domain = if event_time {
            TimeDomain::EventTime
        } else {
            TimeDomain::ProcessingTime
        };
        let mut batch = TimerBatch {
            domain,
            operator: queue.1,
            timestamps: Vec::new(),
            keys: empty(),
            namespaces: empty(),
        };
        for timer in due {
            timers.remove(&timer);
            batch.timestamps.push(timer.1);
            batch.keys.push(&timer.2);
            batch.namespaces.push(&timer.3);
        }
        Some(batch)
    }
}

fn timers_of(batch: &TimerBatch) -> Vec<Timer> {
    let queue = (batch.domain == TimeDomain::EventTime, batch.operator);
    let due = crate::timers::due_of(batch);
    due.map(|due| (queue, due.timestamp, due.key, due.namespace))
        .collect()
}

impl Host for MemoryHost {
    fn emit(&mut self, port: u32, records: &Batch) {
        self.inner
            .borrow_mut()
            .emitted
            .push((port, records.clone()));
    }

    fn state_get_many(&mut self, state: u32, keys: &Column, subkeys: &Column) -> Column {
        let mut inner = self.inner.borrow_mut();
        let (mut keys_of, mut subkeys_of) = (Entries::of(keys), Entries::of(subkeys));
        let mut found = empty();
        for i in 0..keys.ends.len() {
            let key = keys_of.at(i).unwrap_or_default().to_vec();
            let subkey = subkeys_of.at(i).unwrap_or_default().to_vec();
            match inner.kept.state.get(&(state, key, subkey)) {
                Some(value) => found.push(value),
                None => found.push_null(),
            }
        }
        inner.reads += keys.ends.len() as u64;
        found
    }

    fn state_put_many(&mut self, state: u32, entries: &StateEntries) {
        let mut inner = self.inner.borrow_mut();
        let mut keys = Entries::of(&entries.keys);
        let mut subkeys = Entries::of(&entries.subkeys);
        let mut values = Entries::of(&entries.values);
        for i in 0..entries.keys.ends.len() {
            let key = keys.at(i).unwrap_or_default().to_vec();
            let address = (state, key, subkeys.at(i).unwrap_or_default().to_vec());
            match values.at(i) {
                Some(value) => inner.kept.state.insert(address, value.to_vec()),
                None => inner.kept.state.remove(&address),
            };
        }
        inner.writes += entries.keys.ends.len() as u64;
    }

    fn state_scan(
        &mut self,
        state: u32,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
    ) -> StateEntries {
        let inner = self.inner.borrow();
        let mut found = StateEntries {
            keys: empty(),
            subkeys: empty(),
            values: empty(),
            expiries: Vec::new(),
        };
        for ((own_state, own_key, subkey), value) in &inner.kept.state {
            let is_after = after.is_none_or(|after| subkey.as_slice() > after);
            if *own_state != state || own_key != key || !is_after {
                continue;
            }
            found.keys.push(own_key);
            found.subkeys.push(subkey);
            found.values.push(value);
            if found.values.data.len() >= max_bytes as usize {
                break;
            }
        }
        found
    }

    fn timers_set_many(&mut self, timers: &TimerBatch) {
        self.inner
            .borrow_mut()
            .kept
            .timers
            .extend(timers_of(timers));
    }

    fn timers_delete_many(&mut self, timers: &TimerBatch) {
        let mut inner = self.inner.borrow_mut();
        for timer in timers_of(timers) {
            inner.kept.timers.remove(&timer);
        }
    }

    fn metrics_add(&mut self, _operator: u32, name: &str, delta: u64) {
        *self
            .inner
            .borrow_mut()
            .metrics
            .entry(name.to_owned())
            .or_default() += delta;
    }

    fn metrics_set(&mut self, _operator: u32, _name: &str, _value: f64) {}

    fn log(&mut self, _level: Level, _operator: Option<u32>, message: &str) {
        self.inner.borrow_mut().log.push(message.to_owned());
    }

    fn now_ms(&mut self) -> i64 {
        self.inner.borrow().now_ms
    }
}
