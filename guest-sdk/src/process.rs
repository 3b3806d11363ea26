//! Operators of an author's own over a keyed stream, with state and timers.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::batch::{Entries, NONE};
use crate::bindings::tidemill::job::types::{Batch, TimeDomain, TimerBatch};
use crate::chain::{Chain, Collector, Counts, Pipe, Signal};
use crate::context::{Context, NOBODY};
use crate::env::Env;
use crate::error::Result;
use crate::exchange::{self, unreadable};
use crate::graph::VertexIndex;
use crate::key::Key;
use crate::state::{SlotIndex, States, Store, ValueState};
use crate::stream::Data;
use crate::timers::{Due, due_of};
use crate::{StateValue, host};

/// An operator of an author's own: it handles the values of a keyed stream one by one, with state
/// that belongs to each key, and timers.
///
/// ```
/// # use tidemill::prelude::*;
/// /// Emits each word the first time it comes.
/// struct FirstTimes {
///     seen: ValueState<bool>,
/// }
///
/// impl KeyedProcess<String, String> for FirstTimes {
///     type Out = String;
///
///     fn process(&mut self, word: String, cx: &mut KeyedContext<'_, String, String>) -> Result<()> {
///         if self.seen.get().is_none() {
///             self.seen.set(true);
///             cx.emit(word);
///         }
///         Ok(())
///     }
/// }
///
/// fn first_times(words: Stream<impl Pipe<Out = String>>) -> Stream<impl Pipe<Out = String>> {
///     words.key_by_ref(|word| word).process(|states| FirstTimes { seen: states.value("seen") })
/// }
/// ```
pub trait KeyedProcess<K: Key, T>: 'static {
    /// What the operator emits.
    type Out: 'static;

    /// Handles a value.
    ///
    /// # Errors
    ///
    /// When it cannot be handled; the record is then rejected. State that was changed stays so.
    fn process(&mut self, value: T, cx: &mut KeyedContext<'_, K, Self::Out>) -> Result<()>;

    /// Handles a timer that was set while a value of the same key was handled.
    ///
    /// # Errors
    ///
    /// When it cannot be handled; the task then fails.
    fn on_timer(&mut self, _timer: Timer, _cx: &mut KeyedContext<'_, K, Self::Out>) -> Result<()> {
        Ok(())
    }
}

/// A timer that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// When it was due, in milliseconds since the epoch.
    pub timestamp: i64,
    /// Whether it was set for the time of the records rather than of the clock.
    pub event_time: bool,
}

/// What a [`KeyedProcess`] sees of the world while it handles a value or a timer.
pub struct KeyedContext<'a, K, U> {
    cx: &'a mut Context,
    down: &'a mut dyn Collector<U>,
    operator: u32,
    key: &'a [u8],
    timestamp: i64,
    emitted: u64,
    keys: PhantomData<fn() -> K>,
}

impl<K: Key, U: 'static> KeyedContext<'_, K, U> {
    /// Emits a value, with the timestamp of what is being handled.
    pub fn emit(&mut self, value: U) {
        self.emit_at(value, self.timestamp);
    }

    /// Emits a value with a timestamp of its own.
    pub fn emit_at(&mut self, value: U, timestamp: i64) {
        self.emitted += 1;
        self.down.push(self.cx, value, timestamp);
        self.cx.enter(self.operator);
    }

    /// The key.
    ///
    /// # Errors
    ///
    /// When its bytes are not those of a `K`, which means that they were written by another type.
    pub fn key(&self) -> Result<K> {
        K::read(self.key)
    }

    /// The time of the value, or when the timer was due; none if the record has no time.
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        (self.timestamp != NONE).then_some(self.timestamp)
    }

    /// The watermark: event time has come this far. The smallest `i64` before the first one.
    #[must_use]
    pub fn watermark(&self) -> i64 {
        self.cx.watermark
    }

    /// The clock, in milliseconds since the epoch.
    #[must_use]
    pub fn processing_time(&self) -> i64 {
        host::now_ms()
    }

    /// Which parallel instance of the operator this is, and of how many.
    #[must_use]
    pub fn subtask(&self) -> (u32, u32) {
        (self.cx.opened.subtask, self.cx.opened.parallelism)
    }

    /// Calls [`KeyedProcess::on_timer`] for this key when the watermark reaches `timestamp`.
    pub fn set_event_timer(&mut self, timestamp: i64) {
        self.cx.timers.set(
            (TimeDomain::EventTime, self.operator),
            timestamp,
            self.key,
            &[],
        );
    }

    /// Takes back a timer of this key.
    pub fn delete_event_timer(&mut self, timestamp: i64) {
        self.cx.timers.delete(
            (TimeDomain::EventTime, self.operator),
            timestamp,
            self.key,
            &[],
        );
    }

    /// Calls [`KeyedProcess::on_timer`] for this key when the clock reaches `timestamp`.
    pub fn set_processing_timer(&mut self, timestamp: i64) {
        self.cx.timers.set(
            (TimeDomain::ProcessingTime, self.operator),
            timestamp,
            self.key,
            &[],
        );
    }

    /// Takes back a timer of this key.
    pub fn delete_processing_timer(&mut self, timestamp: i64) {
        self.cx.timers.delete(
            (TimeDomain::ProcessingTime, self.operator),
            timestamp,
            self.key,
            &[],
        );
    }

    /// Sets a gauge of this operator.
    pub fn gauge(&mut self, name: &str, value: f64) {
        host::metrics_set(self.operator, name, value);
    }

    /// Adds to a counter of this operator.
    pub fn count(&mut self, name: &str, delta: u64) {
        host::metrics_add(self.operator, name, delta);
    }
}

impl<K, U> fmt::Debug for KeyedContext<'_, K, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedContext")
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// See [`KeyedStream::process`](crate::KeyedStream::process).
pub struct Processed<T, K, O> {
    env: Env,
    vertex: VertexIndex,
    operator: u32,
    store: Store,
    current: Rc<Cell<SlotIndex>>,
    process: O,
    values: PhantomData<fn(T) -> K>,
}

impl<T, K: Key, O> Processed<T, K, O> {
    pub(crate) fn declare(
        env: Env,
        vertex: VertexIndex,
        name: &str,
        build: impl FnOnce(&mut States<'_>) -> O,
    ) -> Self {
        let mut store = Store::default();
        let current = Rc::new(Cell::new(0));
        let (operator, process) = env.vertex(vertex, |draft| {
            let operator = draft.add_operator(name, name.to_owned());
            draft.want_watermarks();
            let mut states = States::new::<K>(draft, operator, &mut store, Rc::clone(&current));
            (operator, build(&mut states))
        });
        Self {
            env,
            vertex,
            operator,
            store,
            current,
            process,
            values: PhantomData,
        }
    }

    pub(crate) fn operator(&self) -> u32 {
        self.operator
    }
}

impl<T, K, O> fmt::Debug for Processed<T, K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processed")
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

impl<T: Data, K: Key, O: KeyedProcess<K, T>> Pipe for Processed<T, K, O> {
    type Out = O::Out;

    fn attach<C: Collector<O::Out>>(self, down: C) {
        self.env.set_chain(
            self.vertex,
            ProcessOperator {
                operator: self.operator,
                counts: Counts::default(),
                store: self.store,
                current: self.current,
                process: self.process,
                resolved: Vec::new(),
                down,
                values: PhantomData,
            },
        );
    }
}

struct ProcessOperator<T, K, O, C> {
    operator: u32,
    counts: Counts,
    store: Store,
    /// The slot of the key at hand, which the author's state handles read.
    current: Rc<Cell<SlotIndex>>,
    process: O,
    resolved: Vec<SlotIndex>,
    down: C,
    values: PhantomData<fn(T) -> K>,
}

impl<T: Data, K: Key, O: KeyedProcess<K, T>, C: Collector<O::Out>> ProcessOperator<T, K, O, C> {
    /// Runs the author's code for the key of a slot.
    fn run(
        &mut self,
        cx: &mut Context,
        slot: SlotIndex,
        timestamp: i64,
        f: impl FnOnce(&mut O, &mut KeyedContext<'_, K, O::Out>) -> Result<()>,
    ) -> Result<()> {
        cx.enter(self.operator);
        self.current.set(slot);
        let mut keyed = KeyedContext {
            cx,
            down: &mut self.down,
            operator: self.operator,
            key: self.store.slots.key(slot),
            timestamp,
            emitted: 0,
            keys: PhantomData,
        };
        let done = f(&mut self.process, &mut keyed);
        self.counts.records_out += keyed.emitted;
        done
    }

    fn process_batch(&mut self, cx: &mut Context, batch: &Batch) -> Result<(), String> {
        let mut keys = Entries::of(&batch.keys);
        self.resolved.clear();
        for i in 0..batch.timestamps.len() {
            let slot = self.store.resolve(keys.at(i).unwrap_or_default(), &[]);
            self.resolved.push(slot);
        }
        self.store.load()?;
        let mut values = Entries::of(&batch.values);
        for (record, timestamp) in (0_u32..).zip(&batch.timestamps) {
            cx.record = record;
            let bytes = values.at(record as usize).unwrap_or_default();
            let value: T = exchange::read(bytes).map_err(|error| unreadable(&error))?;
            let slot = self.resolved[record as usize];
            let done = self.run(cx, slot, *timestamp, |o, keyed| o.process(value, keyed));
            if let Err(error) = done {
                cx.reject(self.operator, error.into_message());
            }
            if cx.failed() {
                break;
            }
        }
        Ok(())
    }

    fn fire_due(&mut self, cx: &mut Context, timers: &TimerBatch) -> Result<(), String> {
        let event_time = timers.domain == TimeDomain::EventTime;
        let due: Vec<Due> = due_of(timers).collect();
        for due in &due {
            self.store.resolve(&due.key, &[]);
        }
        self.store.load()?;
        for due in &due {
            while let Some(sooner) = cx.timers.inserted_before(due.timestamp) {
                self.fire_one(cx, &sooner, event_time)?;
            }
            if cx.timers.still_due(due) {
                self.fire_one(cx, due, event_time)?;
            }
        }
        Ok(())
    }

    fn fire_one(&mut self, cx: &mut Context, due: &Due, event_time: bool) -> Result<(), String> {
        let slot = self.store.resolve(&due.key, &[]);
        self.store.load()?;
        let timer = Timer {
            timestamp: due.timestamp,
            event_time,
        };
        // As in Flink: what a timer of the clock emits has no time of its own.
        let timestamp = if event_time { due.timestamp } else { NONE };
        self.run(cx, slot, timestamp, |o, keyed| o.on_timer(timer, keyed))
            .map_err(|error| error.into_message())
    }
}

impl<T, K, O, C> Chain for ProcessOperator<T, K, O, C>
where
    T: Data,
    K: Key,
    O: KeyedProcess<K, T>,
    C: Collector<O::Out>,
{
    fn process(&mut self, cx: &mut Context, _input: u32, batch: &Batch) {
        cx.enter(self.operator);
        self.counts.records_in += batch.timestamps.len() as u64;
        if let Err(message) = self.process_batch(cx, batch) {
            cx.fail(self.operator, message);
        }
    }

    fn fire(&mut self, cx: &mut Context, timers: &TimerBatch) {
        cx.enter(self.operator);
        cx.record = NOBODY;
        cx.timers.begin(timers);
        if let Err(message) = self.fire_due(cx, timers) {
            cx.fail(self.operator, message);
        }
        cx.timers.end();
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        let done = match signal {
            Signal::Open => {
                self.store.open(cx.opened.restored, cx.opened.cache_bytes);
                Ok(())
            }
            Signal::Flush => {
                self.counts.report(cx, self.operator);
                self.store.maintain()
            }
            Signal::Snapshot => self.store.write_back(),
            Signal::Watermark(_) | Signal::EndOfInput(_) => Ok(()),
        };
        if let Err(message) = done {
            cx.fail(self.operator, message);
        }
        self.down.signal(cx, signal);
    }
}

/// See [`KeyedStream::reduce`](crate::KeyedStream::reduce).
pub(crate) struct Rolling<T, F> {
    reduced: ValueState<T>,
    f: F,
}

impl<T, F> Rolling<T, F> {
    pub(crate) fn new(reduced: ValueState<T>, f: F) -> Self {
        Self { reduced, f }
    }
}

impl<T, F> fmt::Debug for Rolling<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rolling").finish_non_exhaustive()
    }
}

impl<K, T, F> KeyedProcess<K, T> for Rolling<T, F>
where
    K: Key,
    T: StateValue + Clone,
    F: FnMut(T, T) -> T + 'static,
{
    type Out = T;

    fn process(&mut self, value: T, cx: &mut KeyedContext<'_, K, T>) -> Result<()> {
        let reduced = match self.reduced.get() {
            Some(own) => (self.f)(own, value),
            None => value,
        };
        self.reduced.set(reduced.clone());
        cx.emit(reduced);
        Ok(())
    }
}
