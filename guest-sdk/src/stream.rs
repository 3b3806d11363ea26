//! Streams of values and what can be done with them record by record.

use std::fmt;
use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::tidemill::job::planner::ShipStrategy;
use crate::chain::{Counts, Pipe};
use crate::env::Env;
use crate::exchange::{Received, Sender};
use crate::format::{Discarded, Encode, Encoded};
use crate::graph::{VertexDraft, VertexIndex};
use crate::key::{AsKey, Key, KeyOf, KeyOfRef};
use crate::keyed::KeyedStream;
use crate::ops::{Boxed, Filter, FilterMap, FlatMap, Map, Out, Shared, Stage, Timestamps, TryMap};
use crate::time::{TimestampAssigner, WatermarkStrategy, WithRecordTime};

/// What can travel between tasks: anything that serde can write and read.
pub trait Data: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Data for T {}

/// A stream of `P::Out`.
///
/// In the signature of a function that takes or returns one, the pipe is left to the compiler:
///
/// ```
/// # use tidemill::prelude::*;
/// fn shouted(lines: Stream<impl Pipe<Out = String>>) -> Stream<impl Pipe<Out = String>> {
///     lines.map(|line| line.to_uppercase())
/// }
/// ```
#[must_use = "a stream that leads nowhere is an error; end it with a sink or `.discard()`"]
pub struct Stream<P> {
    env: Env,
    vertex: VertexIndex,
    /// The operator added last: what `name` and `uid` apply to.
    last: Option<u32>,
    pipe: P,
}

impl<P: Pipe> Stream<P> {
    pub(crate) fn new(env: Env, vertex: VertexIndex, last: Option<u32>, pipe: P) -> Self {
        Self {
            env,
            vertex,
            last,
            pipe,
        }
    }

    pub(crate) fn into_parts(self) -> (Env, VertexIndex, P) {
        (self.env, self.vertex, self.pipe)
    }

    /// Applies `f` to each value.
    pub fn map<U: 'static, F>(self, f: F) -> Stream<Map<P, F>>
    where
        F: FnMut(P::Out) -> U + 'static,
    {
        self.operator("Map", |stage| Map::new(stage, f))
    }

    /// Applies `f` to each value; where that fails, the record is rejected
    /// (see [`Env::on_rejected`]).
    pub fn try_map<U: 'static, E: Display, F>(self, f: F) -> Stream<TryMap<P, F>>
    where
        F: FnMut(P::Out) -> Result<U, E> + 'static,
    {
        self.operator("Map", |stage| TryMap::new(stage, f))
    }

    /// Keeps the values for which `f` says so.
    pub fn filter<F>(self, f: F) -> Stream<Filter<P, F>>
    where
        F: FnMut(&P::Out) -> bool + 'static,
    {
        self.operator("Filter", |stage| Filter::new(stage, f))
    }

    /// Applies `f` to each value and keeps what it returns, if anything.
    pub fn filter_map<U: 'static, F>(self, f: F) -> Stream<FilterMap<P, F>>
    where
        F: FnMut(P::Out) -> Option<U> + 'static,
    {
        self.operator("Filter Map", |stage| FilterMap::new(stage, f))
    }

    /// Hands each value to `f`, which emits any number of others.
    ///
    /// ```
    /// # use tidemill::prelude::*;
    /// # fn words(lines: Stream<impl Pipe<Out = String>>) -> Stream<impl Pipe<Out = String>> {
    /// lines.flat_map(|line, out| {
    ///     for word in line.split_whitespace() {
    ///         out.emit(word.to_owned());
    ///     }
    /// })
    /// # }
    /// ```
    pub fn flat_map<U: 'static, F>(self, f: F) -> Stream<FlatMap<P, F, U>>
    where
        F: FnMut(P::Out, &mut Out<'_, U>) + 'static,
    {
        self.operator("Flat Map", |stage| FlatMap::new(stage, f))
    }

    /// Says which time each value belongs to, and how watermarks follow from that.
    ///
    /// Watermarks are made per split of the source (per partition of a topic).
    pub fn assign_timestamps<F>(
        self,
        strategy: WatermarkStrategy,
        timestamp: F,
    ) -> Stream<Timestamps<P, F>>
    where
        F: Fn(&P::Out) -> i64 + 'static,
    {
        self.timestamps(strategy, timestamp)
    }

    /// As [`Stream::assign_timestamps`], with a function that is also given the time that the
    /// source gave the record, or that was assigned before (the smallest `i64` for none).
    pub fn assign_timestamps_with<F>(
        self,
        strategy: WatermarkStrategy,
        timestamp: F,
    ) -> Stream<Timestamps<P, WithRecordTime<F>>>
    where
        F: Fn(&P::Out, i64) -> i64 + 'static,
    {
        self.timestamps(strategy, WithRecordTime(timestamp))
    }

    fn timestamps<F: TimestampAssigner<P::Out>>(
        self,
        strategy: WatermarkStrategy,
        timestamp: F,
    ) -> Stream<Timestamps<P, F>> {
        self.env.vertex(self.vertex, |vertex| {
            vertex.make_watermarks();
            if let Some(idle_timeout_ms) = strategy.idle_timeout_ms() {
                vertex.set_idle_timeout(idle_timeout_ms);
            }
        });
        let description = format!("Timestamps/Watermarks({strategy})");
        self.step("Timestamps/Watermarks", description, |stage| {
            Timestamps::new(stage, strategy, timestamp)
        })
    }

    /// Parts the stream by a key: what follows sees all values of one key in one place.
    pub fn key_by<K: Key, F>(self, key: F) -> KeyedStream<P, KeyOf<F, K>>
    where
        P::Out: Data,
        F: Fn(&P::Out) -> K + 'static,
    {
        KeyedStream::new(self, KeyOf::new(key))
    }

    /// As [`Stream::key_by`], for a key that is a part of the value and need not be copied.
    pub fn key_by_ref<K, F>(self, key: F) -> KeyedStream<P, KeyOfRef<F, K>>
    where
        P::Out: Data,
        K: AsKey + ?Sized + 'static,
        F: Fn(&P::Out) -> &K + 'static,
    {
        KeyedStream::new(self, KeyOfRef::new(key))
    }

    /// Says how values are written, as the last step before [`Encoded::sink`].
    pub fn encode<E: Encode<P::Out>>(self, format: E) -> Encoded<P, E> {
        Encoded::new(self, format)
    }

    /// Ends the stream without a sink.
    pub fn discard(self) {
        let stage = self.stage(|vertex| vertex.add_operator("Discard", "Discard".to_owned()));
        stage.pipe.attach(Discarded {
            operator: stage.operator,
            counts: Counts::default(),
        });
    }

    /// Makes the stream usable more than once: each clone gets every value.
    pub fn share(self) -> Stream<Shared<P::Out>>
    where
        P::Out: Clone,
    {
        let Self {
            env,
            vertex,
            last,
            pipe,
        } = self;
        Stream::new(env, vertex, last, Shared::of(pipe))
    }

    /// Hides how the stream came about, so that two different ones fit one variable. Costs a call
    /// through a pointer per record.
    pub fn boxed(self) -> Stream<Boxed<P::Out>> {
        let Self {
            env,
            vertex,
            last,
            pipe,
        } = self;
        Stream::new(env, vertex, last, Boxed::of(pipe))
    }

    /// Runs what follows in a task of its own.
    pub fn start_new_chain(self) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        self.exchange(ShipStrategy::Forward)
    }

    /// Deals the values out evenly over all tasks of what follows.
    pub fn rebalance(self) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        self.exchange(ShipStrategy::Rebalance)
    }

    /// Deals the values out over some tasks of what follows, so that few connections are needed.
    pub fn rescale(self) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        self.exchange(ShipStrategy::Rescale)
    }

    /// Gives each value to every task of what follows.
    pub fn broadcast(self) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        self.exchange(ShipStrategy::Broadcast)
    }

    /// Gives all values to the first task of what follows.
    pub fn global(self) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        self.exchange(ShipStrategy::Global)
    }

    fn exchange(self, strategy: ShipStrategy) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        let Self {
            env,
            vertex,
            last,
            pipe,
        } = self;
        let (to, port) = env.graph(|graph| graph.add_downstream(vertex, strategy));
        pipe.attach(Sender::new(port, last));
        Stream::new(env.clone(), to, None, Received::new(env, to))
    }

    /// Merges this stream with another one of the same type.
    pub fn union<Q: Pipe<Out = P::Out>>(self, other: Stream<Q>) -> Stream<Received<P::Out>>
    where
        P::Out: Data,
    {
        let union = self.exchange(ShipStrategy::Forward);
        let (env, vertex) = (&union.env, &union.vertex);
        let port = env.graph(|graph| graph.connect(other.vertex, *vertex, ShipStrategy::Forward));
        other.pipe.attach(Sender::new(port, other.last));
        union
    }

    /// Names the operator added last.
    pub fn name(self, name: &str) -> Self {
        self.env
            .vertex(self.vertex, |vertex| vertex.rename(self.last, name));
        self
    }

    /// Gives the operator added last an id that stays when the job changes, by which its state is
    /// found again.
    pub fn uid(self, uid: &str) -> Self {
        self.env
            .vertex(self.vertex, |vertex| vertex.set_uid(self.last, uid));
        self
    }

    /// How many parallel tasks the operators since the last exchange have.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.env
            .vertex(self.vertex, |vertex| vertex.set_parallelism(parallelism));
        self
    }

    /// The largest parallelism these operators can be rescaled to.
    pub fn max_parallelism(self, max_parallelism: u32) -> Self {
        self.env.vertex(self.vertex, |vertex| {
            vertex.set_max_parallelism(max_parallelism);
        });
        self
    }

    fn operator<Q: Pipe>(self, name: &str, build: impl FnOnce(Stage<P>) -> Q) -> Stream<Q> {
        self.add(|vertex| vertex.add_operator(name, name.to_owned()), build)
    }

    pub(crate) fn step<Q: Pipe>(
        self,
        name: &str,
        description: String,
        build: impl FnOnce(Stage<P>) -> Q,
    ) -> Stream<Q> {
        self.add(|vertex| vertex.add_step(name, description), build)
    }

    fn add<Q: Pipe>(
        self,
        add: impl FnOnce(&mut VertexDraft) -> u32,
        build: impl FnOnce(Stage<P>) -> Q,
    ) -> Stream<Q> {
        let (env, vertex) = (self.env.clone(), self.vertex);
        let stage = self.stage(add);
        Stream::new(env, vertex, Some(stage.operator), build(stage))
    }

    fn stage(self, add: impl FnOnce(&mut VertexDraft) -> u32) -> Stage<P> {
        let operator = self.env.vertex(self.vertex, add);
        Stage {
            pipe: self.pipe,
            operator,
        }
    }
}

impl<P: Pipe + Clone> Clone for Stream<P> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            vertex: self.vertex,
            last: self.last,
            pipe: self.pipe.clone(),
        }
    }
}

impl<P> fmt::Debug for Stream<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("vertex", &self.vertex)
            .finish_non_exhaustive()
    }
}
