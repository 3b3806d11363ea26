//! Operators that turn a record into at most one other: map, filter and their kin.

use std::fmt::{self, Display};

use crate::chain::{Collector, Counts, Pipe, Signal};
use crate::context::Context;
use crate::ops::Stage;

/// Defines the pipe and the collector of an operator that is nothing but a function.
macro_rules! operator {
    ($(#[$doc:meta])* $pipe:ident, $collector:ident) => {
        $(#[$doc])*
        pub struct $pipe<P, F> {
            stage: Stage<P>,
            f: F,
        }

        impl<P, F> $pipe<P, F> {
            pub(crate) fn new(stage: Stage<P>, f: F) -> Self {
                Self { stage, f }
            }
        }

        impl<P, F> fmt::Debug for $pipe<P, F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($pipe)).finish_non_exhaustive()
            }
        }

        struct $collector<F, C> {
            operator: u32,
            counts: Counts,
            f: F,
            down: C,
        }

        impl<F, C> $collector<F, C> {
            fn new(operator: u32, f: F, down: C) -> Self {
                Self { operator, counts: Counts::default(), f, down }
            }

            fn pass_on<U>(&mut self, cx: &mut Context, signal: Signal)
            where
                C: Collector<U>,
            {
                if signal == Signal::Flush {
                    self.counts.report(cx, self.operator);
                }
                self.down.signal(cx, signal);
            }
        }
    };
}

operator!(
    /// See [`Stream::map`](crate::Stream::map).
    Map, MapCollector
);
operator!(
    /// See [`Stream::try_map`](crate::Stream::try_map).
    TryMap, TryMapCollector
);
operator!(
    /// See [`Stream::filter`](crate::Stream::filter).
    Filter, FilterCollector
);
operator!(
    /// See [`Stream::filter_map`](crate::Stream::filter_map).
    FilterMap, FilterMapCollector
);

impl<P: Pipe, U: 'static, F: FnMut(P::Out) -> U + 'static> Pipe for Map<P, F> {
    type Out = U;

    fn attach<C: Collector<U>>(self, down: C) {
        self.stage
            .pipe
            .attach(MapCollector::new(self.stage.operator, self.f, down));
    }
}

impl<T, U: 'static, F: FnMut(T) -> U + 'static, C: Collector<U>> Collector<T>
    for MapCollector<F, C>
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        self.counts.records_out += 1;
        let mapped = (self.f)(value);
        self.down.push(cx, mapped, timestamp);
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        self.pass_on(cx, signal);
    }
}

impl<P, U, E, F> Pipe for TryMap<P, F>
where
    P: Pipe,
    U: 'static,
    E: Display,
    F: FnMut(P::Out) -> Result<U, E> + 'static,
{
    type Out = U;

    fn attach<C: Collector<U>>(self, down: C) {
        self.stage
            .pipe
            .attach(TryMapCollector::new(self.stage.operator, self.f, down));
    }
}

impl<T, U, E, F, C> Collector<T> for TryMapCollector<F, C>
where
    U: 'static,
    E: Display,
    F: FnMut(T) -> Result<U, E> + 'static,
    C: Collector<U>,
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        match (self.f)(value) {
            Ok(mapped) => {
                self.counts.records_out += 1;
                self.down.push(cx, mapped, timestamp);
            }
            Err(error) => cx.reject(self.operator, error.to_string()),
        }
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        self.pass_on(cx, signal);
    }
}

impl<P: Pipe, F: FnMut(&P::Out) -> bool + 'static> Pipe for Filter<P, F> {
    type Out = P::Out;

    fn attach<C: Collector<P::Out>>(self, down: C) {
        self.stage
            .pipe
            .attach(FilterCollector::new(self.stage.operator, self.f, down));
    }
}

impl<T: 'static, F: FnMut(&T) -> bool + 'static, C: Collector<T>> Collector<T>
    for FilterCollector<F, C>
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        if (self.f)(&value) {
            self.counts.records_out += 1;
            self.down.push(cx, value, timestamp);
        }
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        self.pass_on(cx, signal);
    }
}

impl<P, U, F> Pipe for FilterMap<P, F>
where
    P: Pipe,
    U: 'static,
    F: FnMut(P::Out) -> Option<U> + 'static,
{
    type Out = U;

    fn attach<C: Collector<U>>(self, down: C) {
        self.stage
            .pipe
            .attach(FilterMapCollector::new(self.stage.operator, self.f, down));
    }
}

impl<T, U, F, C> Collector<T> for FilterMapCollector<F, C>
where
    U: 'static,
    F: FnMut(T) -> Option<U> + 'static,
    C: Collector<U>,
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        if let Some(mapped) = (self.f)(value) {
            self.counts.records_out += 1;
            self.down.push(cx, mapped, timestamp);
        }
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        self.pass_on(cx, signal);
    }
}
