//! The window operator: on top of keyed state and timers, as in Flink.
//!
//! The state of a window is an entry under (key, window); the window's timer carries the window as
//! its namespace. In the common case a record costs a hash look-up and an addition.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::batch::Entries;
use crate::bindings::exports::tidemill::job::planner::{ShipStrategy, State, StateKind};
use crate::bindings::tidemill::job::types::{Batch, TimeDomain, TimerBatch};
use crate::chain::{Chain, Collector, Counts, Pipe, Signal};
use crate::context::Context;
use crate::env::Env;
use crate::exchange::{self, unreadable};
use crate::graph::VertexIndex;
use crate::key::{Key, KeySelector};
use crate::keyed::{KeyedSender, KeyedStream};
use crate::state::{Column, SlotIndex, Store};
use crate::stream::{Data, Stream};
use crate::timers::due_of;
use crate::window::assigner::{TIMELESS, domain_of, is_timeless};
use crate::window::combine::Combine;
use crate::window::{Aggregate, Assigner, Reduce, Window};
use crate::{StateValue, host, schema};

/// The counter of dropped records, by Flink's name.
const LATE_RECORDS: &str = "numLateRecordsDropped";

/// A keyed stream that is cut into windows.
#[must_use = "windows do nothing until their values are put together"]
pub struct WindowedStream<P, S, W> {
    keyed: KeyedStream<P, S>,
    assigner: W,
}

impl<P, S, W> WindowedStream<P, S, W>
where
    P: Pipe,
    P::Out: Data,
    S: KeySelector<P::Out>,
    W: Assigner,
{
    pub(crate) fn new(keyed: KeyedStream<P, S>, assigner: W) -> Self {
        Self { keyed, assigner }
    }

    /// Puts the values of each window together; `result` makes of that what comes out.
    ///
    /// ```
    /// # use tidemill::prelude::*;
    /// # use std::time::Duration;
    /// # fn counts(words: Stream<impl Pipe<Out = String>>) -> Stream<impl Pipe<Out = (i64, String, u64)>> {
    /// words
    ///     .key_by_ref(|word| word)
    ///     .window(Tumbling::event_time(Duration::from_secs(15)))
    ///     .aggregate(Count, |window, word, count| (window.start, word.clone(), count))
    /// # }
    /// ```
    pub fn aggregate<A, U, F>(self, aggregate: A, result: F) -> Stream<impl Pipe<Out = U>>
    where
        A: Aggregate<P::Out>,
        U: 'static,
        F: FnMut(Window, &S::Key, A::Out) -> U + 'static,
    {
        let Self {
            keyed: KeyedStream { stream, selector },
            assigner,
        } = self;
        let (env, from, pipe) = stream.into_parts();
        let aggregate = Rc::new(aggregate);
        let combined = env.combining() && assigner.is_event_time();
        let what = format!("{}, {}", assigner.describe(), aggregate.describe());
        let (vertex, port) = env.graph(|graph| graph.add_downstream(from, ShipStrategy::Hash));
        if combined {
            let combine = env.vertex(from, |draft| {
                draft.add_step("Combine", format!("Combine({what})"))
            });
            pipe.attach(Combine::new(
                (combine, port),
                selector,
                assigner,
                Rc::clone(&aggregate),
            ));
        } else {
            pipe.attach(KeyedSender::new(port, selector));
        }
        let windows =
            Windows::declare(env.clone(), vertex, assigner, (aggregate, combined), result);
        let operator = windows.operator;
        Stream::new(env, vertex, Some(operator), windows)
    }

    /// Puts the values of each window together two by two, into one of their kind.
    pub fn reduce<F>(self, f: F) -> Stream<impl Pipe<Out = P::Out>>
    where
        P::Out: StateValue + Clone,
        F: Fn(P::Out, P::Out) -> P::Out + 'static,
    {
        self.aggregate(Reduce::new(f), |_window, _key, result| result)
    }
}

impl<P, S, W> fmt::Debug for WindowedStream<P, S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowedStream").finish_non_exhaustive()
    }
}

/// See [`WindowedStream::aggregate`].
pub(crate) struct Windows<T, K, W, A, F> {
    env: Env,
    vertex: VertexIndex,
    operator: u32,
    state: u32,
    assigner: W,
    aggregate: Rc<A>,
    combined: bool,
    result: F,
    values: PhantomData<fn(T) -> K>,
}

impl<T, K: Key, W: Assigner, A: Aggregate<T>, F> Windows<T, K, W, A, F> {
    fn declare(
        env: Env,
        vertex: VertexIndex,
        assigner: W,
        (aggregate, combined): (Rc<A>, bool),
        result: F,
    ) -> Self {
        let (operator, state) = env.vertex(vertex, |draft| {
            let name = assigner.describe();
            let what = format!("Window({name}, {})", aggregate.describe());
            let operator = draft.add_operator(&name, what);
            if assigner.is_event_time() {
                draft.want_watermarks();
            }
            (
                operator,
                draft.add_state(window_state::<K, A::Acc>(operator)),
            )
        });
        Self {
            env,
            vertex,
            operator,
            state,
            assigner,
            aggregate,
            combined,
            result,
            values: PhantomData,
        }
    }
}

fn window_state<K: Key, Acc: StateValue>(operator: u32) -> State {
    State {
        name: "window-contents".to_owned(),
        operator,
        kind: StateKind::Aggregating,
        key_schema: schema::of::<K>(),
        subkey_schema: r#"{"type":"fixed","name":"Window","size":16}"#.to_owned(),
        value_schema: schema::of::<Acc>(),
        ttl_ms: None,
    }
}

impl<T, K, W, A, F> fmt::Debug for Windows<T, K, W, A, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows")
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

impl<T, K, W, A, U, F> Pipe for Windows<T, K, W, A, F>
where
    T: Data,
    K: Key,
    W: Assigner,
    A: Aggregate<T>,
    U: 'static,
    F: FnMut(Window, &K, A::Out) -> U + 'static,
{
    type Out = U;

    fn attach<C: Collector<U>>(self, down: C) {
        let contents = Rc::new(RefCell::new(Column::new(self.state)));
        let mut store = Store::default();
        let any: Rc<RefCell<Column<A::Acc>>> = Rc::clone(&contents);
        store.add_column(any);
        self.env.set_chain(
            self.vertex,
            WindowOperator {
                operator: self.operator,
                counts: Counts::default(),
                late: 0,
                assigner: self.assigner,
                aggregate: self.aggregate,
                combined: self.combined,
                result: self.result,
                store,
                contents,
                parts: Vec::new(),
                elements: Vec::new(),
                down,
                values: PhantomData,
            },
        );
    }
}

struct WindowOperator<T, K, W, A: Aggregate<T>, F, C> {
    operator: u32,
    counts: Counts,
    late: u64,
    assigner: W,
    aggregate: Rc<A>,
    combined: bool,
    result: F,
    store: Store,
    contents: Rc<RefCell<Column<A::Acc>>>,
    /// What came in this call, with the slots it belongs to: parts if the sender combines …
    parts: Vec<(SlotIndex, A::Acc)>,
    /// … and otherwise elements, as positions in the batch.
    elements: Vec<(SlotIndex, u32)>,
    down: C,
    values: PhantomData<fn(T) -> K>,
}

impl<T, K, W, A, U, F, C> WindowOperator<T, K, W, A, F, C>
where
    T: Data,
    K: Key,
    W: Assigner,
    A: Aggregate<T>,
    U: 'static,
    F: FnMut(Window, &K, A::Out) -> U + 'static,
    C: Collector<U>,
{
    fn domain(&self) -> TimeDomain {
        domain_of(&self.assigner)
    }

    fn is_late(&self, cx: &Context, window: Window) -> bool {
        self.assigner.is_event_time() && window.max_timestamp() <= cx.watermark
    }

    fn add_parts(&mut self, cx: &mut Context, batch: &Batch) -> Result<(), String> {
        let mut keys = Entries::of(&batch.keys);
        let mut values = Entries::of(&batch.values);
        for i in 0..batch.timestamps.len() {
            let key = keys.at(i).unwrap_or_default();
            let (start, end, elements, acc): (i64, i64, u64, A::Acc) =
                exchange::read(values.at(i).unwrap_or_default()).map_err(|e| unreadable(&e))?;
            let window = Window { start, end };
            if self.is_late(cx, window) {
                self.late += elements;
                continue;
            }
            let slot = self.store.resolve(key, &window.to_bytes());
            self.parts.push((slot, acc));
        }
        self.store.load()?;
        let domain = self.domain();
        let contents = Rc::clone(&self.contents);
        let mut contents = contents.borrow_mut();
        for (slot, part) in self.parts.drain(..) {
            match contents.get_mut(slot) {
                Some(acc) => self.aggregate.merge(acc, part),
                vacant => {
                    *vacant = Some(part);
                    set_timer(cx, (domain, self.operator), &self.store, slot);
                }
            }
        }
        Ok(())
    }

    fn add_elements(&mut self, cx: &mut Context, batch: &Batch) -> Result<(), String> {
        self.resolve_elements(cx, batch)?;
        self.store.load()?;
        let domain = self.domain();
        let contents = Rc::clone(&self.contents);
        let mut contents = contents.borrow_mut();
        let mut values = Entries::of(&batch.values);
        let mut next = self.elements.iter().peekable();
        for i in 0..batch.timestamps.len() {
            let bytes = values.at(i).unwrap_or_default();
            let is_own = |(_, element): &&(SlotIndex, u32)| *element as usize == i;
            if !next.peek().is_some_and(is_own) {
                continue;
            }
            let value: T = exchange::read(bytes).map_err(|error| unreadable(&error))?;
            while let Some((slot, _)) = next.next_if(is_own) {
                let acc = contents.get_mut(*slot);
                if acc.is_none() {
                    set_timer(cx, (domain, self.operator), &self.store, *slot);
                }
                let acc = acc.get_or_insert_with(|| self.aggregate.create());
                self.aggregate.add(acc, &value);
            }
        }
        drop(next);
        self.elements.clear();
        Ok(())
    }

    /// Finds the windows of the batch's elements and drops those that are late.
    fn resolve_elements(&mut self, cx: &Context, batch: &Batch) -> Result<(), String> {
        let event_time = self.assigner.is_event_time();
        let now = if event_time { 0 } else { host::now_ms() };
        let mut keys = Entries::of(&batch.keys);
        for (element, timestamp) in (0_u32..).zip(&batch.timestamps) {
            let key = keys.at(element as usize).unwrap_or_default();
            let timestamp = if event_time { *timestamp } else { now };
            if is_timeless(timestamp) {
                return Err(TIMELESS.to_owned());
            }
            let Self {
                store,
                elements,
                assigner,
                ..
            } = self;
            let mut in_time = false;
            assigner.assign(timestamp, |window| {
                if event_time && window.max_timestamp() <= cx.watermark {
                    return;
                }
                in_time = true;
                elements.push((store.resolve(key, &window.to_bytes()), element));
            });
            self.late += u64::from(!in_time);
        }
        Ok(())
    }

    fn fire_window(&mut self, cx: &mut Context, slot: SlotIndex) -> Result<(), String> {
        let acc = self.contents.borrow_mut().take(slot);
        let key = K::read(self.store.slots.key(slot));
        let window = Window::from_bytes(self.store.slots.subkey(slot));
        self.store.release_if_vacant(slot);
        // A timer without a window is one whose state has expired or was never written.
        let Some(acc) = acc else { return Ok(()) };
        let key = key.map_err(|error| format!("a key cannot be read: {error}"))?;
        let window = window.ok_or("a timer came back with something else than its window")?;
        self.counts.records_out += 1;
        let result = (self.result)(window, &key, self.aggregate.result(acc));
        self.down.push(cx, result, window.max_timestamp());
        cx.enter(self.operator);
        Ok(())
    }

    fn fire_due(&mut self, cx: &mut Context, timers: &TimerBatch) -> Result<(), String> {
        let slots: Vec<SlotIndex> = due_of(timers)
            .map(|due| self.store.resolve(&due.key, &due.namespace))
            .collect();
        self.store.load()?;
        slots
            .into_iter()
            .try_for_each(|slot| self.fire_window(cx, slot))
    }

    fn report(&mut self, cx: &mut Context) {
        self.counts.report(cx, self.operator);
        if self.late > 0 {
            host::metrics_add(self.operator, LATE_RECORDS, std::mem::take(&mut self.late));
        }
    }
}

/// Sets the timer of a window that has come into being.
fn set_timer(cx: &mut Context, owner: (TimeDomain, u32), store: &Store, slot: SlotIndex) {
    let window = store.slots.subkey(slot);
    if let Some(due) = Window::from_bytes(window).map(|window| window.max_timestamp()) {
        cx.timers.set(owner, due, store.slots.key(slot), window);
    }
}

impl<T, K, W, A, U, F, C> Chain for WindowOperator<T, K, W, A, F, C>
where
    T: Data,
    K: Key,
    W: Assigner,
    A: Aggregate<T>,
    U: 'static,
    F: FnMut(Window, &K, A::Out) -> U + 'static,
    C: Collector<U>,
{
    fn process(&mut self, cx: &mut Context, _input: u32, batch: &Batch) {
        cx.enter(self.operator);
        self.counts.records_in += batch.timestamps.len() as u64;
        let added = if self.combined {
            self.add_parts(cx, batch)
        } else {
            self.add_elements(cx, batch)
        };
        if let Err(message) = added {
            cx.fail(self.operator, message);
        }
    }

    fn fire(&mut self, cx: &mut Context, timers: &TimerBatch) {
        cx.enter(self.operator);
        if let Err(message) = self.fire_due(cx, timers) {
            cx.fail(self.operator, message);
        }
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        let done = match signal {
            Signal::Open => {
                self.store.open(cx.opened.restored, cx.opened.cache_bytes);
                Ok(())
            }
            Signal::Flush => {
                self.report(cx);
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
