//! One record in, any number out.

use std::fmt;
use std::marker::PhantomData;

use crate::chain::{Collector, Counts, Pipe, Signal};
use crate::context::Context;
use crate::ops::Stage;

/// Where a function that may emit any number of values puts them.
pub struct Out<'a, U> {
    cx: &'a mut Context,
    down: &'a mut dyn Collector<U>,
    operator: u32,
    timestamp: i64,
    emitted: u64,
}

impl<'a, U: 'static> Out<'a, U> {
    pub(crate) fn new(
        cx: &'a mut Context,
        down: &'a mut dyn Collector<U>,
        operator: u32,
        timestamp: i64,
    ) -> Self {
        Self {
            cx,
            down,
            operator,
            timestamp,
            emitted: 0,
        }
    }

    /// Emits a value, with the timestamp of what is being handled.
    #[inline]
    pub fn emit(&mut self, value: U) {
        self.emit_at(value, self.timestamp);
    }

    /// Emits a value with a timestamp of its own, in milliseconds since the epoch.
    #[inline]
    pub fn emit_at(&mut self, value: U, timestamp: i64) {
        self.emitted += 1;
        self.down.push(self.cx, value, timestamp);
        self.cx.enter(self.operator);
    }

    pub(crate) fn emitted(&self) -> u64 {
        self.emitted
    }
}

impl<U> fmt::Debug for Out<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out")
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// See [`Stream::flat_map`](crate::Stream::flat_map).
pub struct FlatMap<P, F, U> {
    stage: Stage<P>,
    f: F,
    emits: PhantomData<fn() -> U>,
}

impl<P, F, U> FlatMap<P, F, U> {
    pub(crate) fn new(stage: Stage<P>, f: F) -> Self {
        Self {
            stage,
            f,
            emits: PhantomData,
        }
    }
}

impl<P, F, U> fmt::Debug for FlatMap<P, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlatMap").finish_non_exhaustive()
    }
}

impl<P, F, U> Pipe for FlatMap<P, F, U>
where
    P: Pipe,
    U: 'static,
    F: FnMut(P::Out, &mut Out<'_, U>) + 'static,
{
    type Out = U;

    fn attach<C: Collector<U>>(self, down: C) {
        self.stage.pipe.attach(FlatMapCollector {
            operator: self.stage.operator,
            counts: Counts::default(),
            f: self.f,
            down,
            emits: PhantomData,
        });
    }
}

struct FlatMapCollector<F, C, U> {
    operator: u32,
    counts: Counts,
    f: F,
    down: C,
    emits: PhantomData<fn() -> U>,
}

impl<T, U, F, C> Collector<T> for FlatMapCollector<F, C, U>
where
    U: 'static,
    F: FnMut(T, &mut Out<'_, U>) + 'static,
    C: Collector<U>,
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        let mut out = Out::new(cx, &mut self.down, self.operator, timestamp);
        (self.f)(value, &mut out);
        self.counts.records_out += out.emitted();
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.counts.report(cx, self.operator);
        }
        self.down.signal(cx, signal);
    }
}
