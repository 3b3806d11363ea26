//! Timers of one task: set and deleted in batches, taken in time order.
//!
//! Timers that are due at the same time lie in one table (windows end together, for all keys), a
//! single one lies by itself.
//!
//! # Invariants
//!
//! 1. A timer is identified by operator, domain, key, namespace and time; setting it twice is once.
//! 2. A batch holds timers of one operator in time order; those of the same time in an order that
//!    depends on nothing but themselves, so that a job behaves the same after a recovery. All that
//!    are due of an operator come before those of the next: what an operator emits from its timers
//!    reaches the next before that one's own timers run, as if they were separate tasks.
//! 3. What was taken is gone.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_types::{KeyGroup, KeyGroupRange, TimeDomain, TimerBatch};

use crate::{
    NEVER, StateError,
    arena::{Arena, ArenaFull, EntryRef, Id, KeyHash, Written},
    store::check_key,
};

/// The most timers of one task: some 60 bytes each, so about 1.2 GiB.
pub const TIMERS_MAX: usize = 20_000_000;

/// The most bytes that the timers of one task may take: keys and namespaces may have 64 KiB each,
/// so their number alone bounds nothing.
pub const TIMER_BYTES_MAX: usize = 2 << 30;

/// What a timer takes beside its key and namespace, about.
const TIMER_BYTES: usize = 40;

/// Timers of a task.
#[derive(Debug)]
pub struct TimerService {
    range: KeyGroupRange,
    max_parallelism: u32,
    event: Vec<Queue>,
    processing: Vec<Queue>,
    len: usize,
    /// What they take, by `cost`.
    bytes: usize,
    bytes_max: usize,
}

const fn cost(key: &[u8], namespace: &[u8]) -> usize {
    TIMER_BYTES + key.len() + namespace.len()
}

/// Timers of one operator in one domain, by due time.
#[derive(Debug, Clone, Default)]
struct Queue {
    due: BTreeMap<i64, Bucket>,
}

/// Timers that are due at the same time. Keys and namespaces are the identities of a table; it has
/// no values.
#[derive(Debug, Clone)]
enum Bucket {
    One {
        key: Box<[u8]>,
        namespace: Box<[u8]>,
    },
    Many(Arc<Arena>),
    /// Some were taken: positions of what is left, in reverse order. Those of timers that were
    /// deleted meanwhile are still among them.
    Taking {
        table: Arc<Arena>,
        left: Vec<u32>,
    },
}

/// The timers of a moment.
#[derive(Debug, Clone)]
pub(crate) struct TimerImage {
    queues: Vec<(u32, TimeDomain, Queue)>,
    len: usize,
}

impl TimerService {
    /// No timers yet, for a vertex with this many operators.
    #[must_use]
    pub fn new(range: KeyGroupRange, max_parallelism: u32, operators: usize) -> Self {
        Self {
            range,
            max_parallelism,
            event: vec![Queue::default(); operators],
            processing: vec![Queue::default(); operators],
            len: 0,
            bytes: 0,
            bytes_max: TIMER_BYTES_MAX,
        }
    }

    /// How many timers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets timers. Setting one that exists changes nothing.
    ///
    /// # Errors
    ///
    /// [`StateError`] when there is no such operator, a key is not this task's, or there are too
    /// many.
    pub fn set_many(&mut self, timers: &TimerBatch) -> Result<(), StateError> {
        for index in 0..timers.len() {
            let key = timers
                .keys
                .get(index)
                .ok_or(StateError::NoKey { entry: index })?;
            let (at, namespace) = (timers.timestamps[index], timers.namespace(index));
            self.set(timers.domain, timers.operator, at, key, namespace)?;
        }
        Ok(())
    }

    /// Deletes timers. Deleting one that does not exist changes nothing.
    ///
    /// # Errors
    ///
    /// [`StateError`] when there is no such operator or a key is missing.
    pub fn delete_many(&mut self, timers: &TimerBatch) -> Result<(), StateError> {
        for index in 0..timers.len() {
            let key = timers
                .keys
                .get(index)
                .ok_or(StateError::NoKey { entry: index })?;
            let (at, namespace) = (timers.timestamps[index], timers.namespace(index));
            if self
                .queue(timers.domain, timers.operator)?
                .delete(at, key, namespace)
            {
                self.len -= 1;
                self.bytes -= cost(key, namespace);
            }
        }
        Ok(())
    }

    /// Sets one timer.
    ///
    /// # Errors
    ///
    /// As [`TimerService::set_many`].
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a timer, one by one"
    )]
    pub fn set(
        &mut self,
        domain: TimeDomain,
        operator: u32,
        timestamp: i64,
        key: &[u8],
        namespace: &[u8],
    ) -> Result<(), StateError> {
        check_key("key", key)?;
        check_key("namespace", namespace)?;
        let group = KeyGroup::of(key, self.max_parallelism);
        if !self.range.contains(group) {
            return Err(StateError::NotOwned {
                group,
                owned: self.range,
            });
        }
        let too_many = StateError::TooManyTimers { limit: TIMERS_MAX };
        if self.len >= TIMERS_MAX {
            return Err(too_many);
        }
        let needed = self.bytes + cost(key, namespace);
        if needed > self.bytes_max {
            let limit = self.bytes_max;
            return Err(StateError::TimersTooLarge { needed, limit });
        }
        match self.queue(domain, operator)?.set(timestamp, key, namespace) {
            Ok(Written::New) => {
                self.len += 1;
                self.bytes = needed;
            }
            Ok(Written::Replaced) => {}
            Err(ArenaFull) => return Err(too_many),
        }
        Ok(())
    }

    /// Takes up to `max` (at least one) of the event-time timers that are due at `watermark`.
    /// `None` when none is: only then may the watermark go on.
    pub fn pop_due_event(&mut self, watermark: i64, max: usize) -> Option<TimerBatch> {
        self.pop_due(TimeDomain::EventTime, watermark, max)
    }

    /// Takes up to `max` (at least one) of the processing-time timers that are due at `now_ms`.
    pub fn pop_due_processing(&mut self, now_ms: i64, max: usize) -> Option<TimerBatch> {
        self.pop_due(TimeDomain::ProcessingTime, now_ms, max)
    }

    /// When the next processing-time timer is due.
    #[must_use]
    pub fn next_processing_time(&self) -> Option<i64> {
        self.processing.iter().filter_map(Queue::first).min()
    }

    /// When the next event-time timer is due.
    #[must_use]
    pub fn next_event_time(&self) -> Option<i64> {
        self.event.iter().filter_map(Queue::first).min()
    }

    fn pop_due(&mut self, domain: TimeDomain, until: i64, max: usize) -> Option<TimerBatch> {
        let queues = self.queues(domain);
        let ready = queues
            .iter()
            .position(|queue| queue.first().is_some_and(|at| at <= until))?;
        let operator = u32::try_from(ready).expect("a vertex has few operators");
        let mut batch = TimerBatch::new(domain, operator);
        let queue = &mut queues[ready];
        while batch.len() < max.max(1) && queue.take_first(until, max.max(1), &mut batch) {}
        self.len -= batch.len();
        let taken = batch.keys.data.len() + batch.namespaces.data.len();
        self.bytes -= taken + TIMER_BYTES * batch.len();
        (!batch.is_empty()).then_some(batch)
    }

    fn queues(&mut self, domain: TimeDomain) -> &mut [Queue] {
        match domain {
            TimeDomain::EventTime => &mut self.event,
            TimeDomain::ProcessingTime => &mut self.processing,
        }
    }

    fn queue(&mut self, domain: TimeDomain, operator: u32) -> Result<&mut Queue, StateError> {
        let queues = self.queues(domain);
        let operators = queues.len();
        queues
            .get_mut(operator as usize)
            .ok_or(StateError::UnknownOperator {
                operator,
                operators,
            })
    }

    /// The timers as they are now.
    pub(crate) fn image(&self) -> TimerImage {
        let event = (0u32..)
            .zip(&self.event)
            .map(|(n, q)| (n, TimeDomain::EventTime, q));
        let processing = (0u32..)
            .zip(&self.processing)
            .map(|(n, q)| (n, TimeDomain::ProcessingTime, q));
        let queues = event
            .chain(processing)
            .filter(|(_, _, queue)| !queue.due.is_empty());
        TimerImage {
            queues: queues.map(|(n, d, q)| (n, d, q.clone())).collect(),
            len: self.len,
        }
    }
}

impl TimerImage {
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `visit` with operator, domain, time, key and namespace of each timer.
    pub(crate) fn for_each<'a>(
        &'a self,
        mut visit: impl FnMut(u32, TimeDomain, i64, &'a [u8], &'a [u8]),
    ) {
        for (operator, domain, queue) in &self.queues {
            for (&at, bucket) in &queue.due {
                match bucket {
                    Bucket::One { key, namespace } => visit(*operator, *domain, at, key, namespace),
                    Bucket::Many(table) | Bucket::Taking { table, .. } => {
                        for (_, entry) in table.iter() {
                            visit(*operator, *domain, at, entry.id.key, entry.id.subkey);
                        }
                    }
                }
            }
        }
    }
}

impl Queue {
    fn first(&self) -> Option<i64> {
        self.due.keys().next().copied()
    }

    fn set(&mut self, at: i64, key: &[u8], namespace: &[u8]) -> Result<Written, ArenaFull> {
        match self.due.get_mut(&at) {
            None => {
                let one = Bucket::One {
                    key: key.into(),
                    namespace: namespace.into(),
                };
                self.due.insert(at, one);
                Ok(Written::New)
            }
            Some(bucket) => bucket.set(key, namespace),
        }
    }

    fn delete(&mut self, at: i64, key: &[u8], namespace: &[u8]) -> bool {
        let Some(bucket) = self.due.get_mut(&at) else {
            return false;
        };
        let deleted = bucket.delete(key, namespace);
        if deleted && bucket.is_empty() {
            self.due.remove(&at);
        }
        deleted
    }

    /// Moves timers of the first due time into the batch; returns whether there was one.
    fn take_first(&mut self, until: i64, max: usize, batch: &mut TimerBatch) -> bool {
        let Some(mut first) = self.due.first_entry().filter(|entry| *entry.key() <= until) else {
            return false;
        };
        let at = *first.key();
        if first.get_mut().take(at, max, batch) {
            first.remove();
        }
        true
    }
}

/// The identity of a timer in a table, with its hash.
fn identity<'a>(key: &'a [u8], namespace: &'a [u8]) -> (u32, Id<'a>) {
    (
        KeyHash::of(key).with(0, namespace),
        Id {
            state: 0,
            key,
            subkey: namespace,
        },
    )
}

impl Bucket {
    fn set(&mut self, key: &[u8], namespace: &[u8]) -> Result<Written, ArenaFull> {
        let (hash, id) = identity(key, namespace);
        match self {
            Self::One {
                key: k,
                namespace: n,
            } => {
                if **k == *key && **n == *namespace {
                    return Ok(Written::Replaced);
                }
                let mut table = Arena::default();
                let (first_hash, first) = identity(k, n);
                table.put(first_hash, first, &[], NEVER)?;
                table.put(hash, id, &[], NEVER)?;
                *self = Self::Many(Arc::new(table));
                Ok(Written::New)
            }
            Self::Many(table) => {
                // Looked up first: what changes nothing must not copy a shared table.
                if table.position(hash, id).is_some() {
                    return Ok(Written::Replaced);
                }
                Arc::make_mut(table).put(hash, id, &[], NEVER)
            }
            Self::Taking { table, left } => {
                if table.position(hash, id).is_some() {
                    return Ok(Written::Replaced);
                }
                let table = Arc::make_mut(table);
                table.put(hash, id, &[], NEVER)?;
                let position = table.position(hash, id).ok_or(ArenaFull)?;
                left.retain(|&p| table.at(p).is_some());
                let later =
                    |e: EntryRef<'_>| (identity(e.id.key, e.id.subkey).0, e.id) > (hash, id);
                let place = left.partition_point(|&p| table.at(p).is_some_and(later));
                left.insert(place, position);
                Ok(Written::New)
            }
        }
    }

    fn delete(&mut self, key: &[u8], namespace: &[u8]) -> bool {
        let (hash, id) = identity(key, namespace);
        match self {
            Self::One {
                key: k,
                namespace: n,
            } => {
                let same = **k == *key && **n == *namespace;
                if same {
                    *self = Self::Many(Arc::default());
                }
                same
            }
            Self::Many(table) => {
                if table.position(hash, id).is_none() {
                    return false;
                }
                let table = Arc::make_mut(table);
                let removed = table.remove(hash, id);
                // What was deleted must not pile up. Not while timers are taken, by position.
                table.compact();
                removed
            }
            Self::Taking { table, .. } => {
                if table.position(hash, id).is_none() {
                    return false;
                }
                Arc::make_mut(table).remove(hash, id)
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::One { .. } => false,
            Self::Many(table) | Self::Taking { table, .. } => table.is_empty(),
        }
    }

    /// Moves timers into the batch until it has `max`; returns whether nothing is left.
    fn take(&mut self, at: i64, max: usize, batch: &mut TimerBatch) -> bool {
        match self {
            Self::One { key, namespace } => {
                batch.push(at, key, namespace);
                true
            }
            Self::Many(table) => {
                let mut left = table.ordered();
                if left.len() <= max.saturating_sub(batch.len()) {
                    for entry in left.into_iter().filter_map(|position| table.at(position)) {
                        batch.push(at, entry.id.key, entry.id.subkey);
                    }
                    return true;
                }
                left.reverse();
                *self = Self::Taking {
                    table: Arc::clone(table),
                    left,
                };
                self.take(at, max, batch)
            }
            Self::Taking { table, left } => {
                let table = Arc::make_mut(table);
                while batch.len() < max
                    && let Some(position) = left.pop()
                {
                    let Some(entry) = table.at(position) else {
                        continue;
                    };
                    batch.push(at, entry.id.key, entry.id.subkey);
                    table.remove_at(position);
                }
                table.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests;
