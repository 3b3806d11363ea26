//! Streams that are parted by a key.

use std::fmt;

use crate::StateValue;
use crate::bindings::exports::tidemill::job::planner::ShipStrategy;
use crate::chain::{Collector, Pipe, Signal};
use crate::context::Context;
use crate::exchange::{self, Received};
use crate::key::KeySelector;
use crate::ops::{Filter, FlatMap, Map, Out};
use crate::process::{KeyedProcess, Processed, Rolling};
use crate::state::States;
use crate::stream::{Data, Stream};
use crate::window::{Assigner, WindowedStream};

/// A stream whose values are parted by a key: all values of a key go to the same task, and keep
/// their order from there on.
#[must_use = "a stream that leads nowhere is an error; end it with a sink or `.discard()`"]
pub struct KeyedStream<P, S> {
    pub(crate) stream: Stream<P>,
    pub(crate) selector: S,
}

impl<P, S> KeyedStream<P, S>
where
    P: Pipe,
    P::Out: Data,
    S: KeySelector<P::Out>,
{
    pub(crate) fn new(stream: Stream<P>, selector: S) -> Self {
        Self { stream, selector }
    }

    /// Cuts the stream of each key into windows, such as
    /// [`Tumbling::event_time`](crate::Tumbling::event_time).
    pub fn window<W: Assigner>(self, assigner: W) -> WindowedStream<P, S, W> {
        WindowedStream::new(self, assigner)
    }

    /// Handles each value with access to state of its key and to timers.
    ///
    /// `build` declares the state and makes the operator: see [`KeyedProcess`].
    pub fn process<O>(
        self,
        build: impl FnOnce(&mut States<'_>) -> O,
    ) -> Stream<Processed<P::Out, S::Key, O>>
    where
        O: KeyedProcess<S::Key, P::Out>,
    {
        self.process_named("Process", build)
    }

    /// Puts the values of each key together one by one, and emits what it comes to each time.
    pub fn reduce<F>(self, f: F) -> Stream<impl Pipe<Out = P::Out>>
    where
        P::Out: StateValue + Clone,
        F: FnMut(P::Out, P::Out) -> P::Out + 'static,
    {
        self.process_named("Reduce", |states| Rolling::new(states.value("reduced"), f))
    }

    /// Applies `f` to each value, in the task of its key.
    pub fn map<U: 'static, F>(self, f: F) -> Stream<Map<Received<P::Out>, F>>
    where
        F: FnMut(P::Out) -> U + 'static,
    {
        self.exchange().map(f)
    }

    /// Keeps the values for which `f` says so, in the task of their key.
    pub fn filter<F>(self, f: F) -> Stream<Filter<Received<P::Out>, F>>
    where
        F: FnMut(&P::Out) -> bool + 'static,
    {
        self.exchange().filter(f)
    }

    /// Hands each value to `f` in the task of its key.
    pub fn flat_map<U: 'static, F>(self, f: F) -> Stream<FlatMap<Received<P::Out>, F, U>>
    where
        F: FnMut(P::Out, &mut Out<'_, U>) + 'static,
    {
        self.exchange().flat_map(f)
    }

    /// The values in the tasks of their keys, as a plain stream.
    pub fn exchange(self) -> Stream<Received<P::Out>> {
        let Self { stream, selector } = self;
        let (env, from, pipe) = stream.into_parts();
        let (vertex, port) = env.graph(|graph| graph.add_downstream(from, ShipStrategy::Hash));
        pipe.attach(KeyedSender::new(port, selector));
        Stream::new(env.clone(), vertex, None, Received::new(env, vertex))
    }

    fn process_named<O>(
        self,
        name: &str,
        build: impl FnOnce(&mut States<'_>) -> O,
    ) -> Stream<Processed<P::Out, S::Key, O>>
    where
        O: KeyedProcess<S::Key, P::Out>,
    {
        let Self { stream, selector } = self;
        let (env, from, pipe) = stream.into_parts();
        let (vertex, port) = env.graph(|graph| graph.add_downstream(from, ShipStrategy::Hash));
        pipe.attach(KeyedSender::new(port, selector));
        let processed = Processed::declare(env.clone(), vertex, name, build);
        let operator = processed.operator();
        Stream::new(env, vertex, Some(operator), processed)
    }
}

impl<P, S> fmt::Debug for KeyedStream<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStream")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Sends values out by a port, with their keys.
pub(crate) struct KeyedSender<S> {
    port: u32,
    selector: S,
    scratch: Vec<u8>,
}

impl<S> KeyedSender<S> {
    pub(crate) fn new(port: u32, selector: S) -> Self {
        Self {
            port,
            selector,
            scratch: Vec::new(),
        }
    }
}

impl<T: Data, S: KeySelector<T>> Collector<T> for KeyedSender<S> {
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        let port = cx.port(self.port);
        let sent = self.selector.with_bytes(&value, &mut self.scratch, |key| {
            port.push_with(timestamp, Some(key), |out| exchange::write(&value, out))
        });
        if let Err(error) = sent {
            cx.reject(
                0,
                format!("a value cannot be sent to the next operator: {error}"),
            );
        }
    }

    fn signal(&mut self, _cx: &mut Context, _signal: Signal) {}
}
