//! Event time: the timestamp of each record, and the watermark of each split.

use std::fmt;

use crate::batch::NONE;
use crate::chain::{Collector, Counts, Pipe, Signal};
use crate::context::Context;
use crate::ops::Stage;
use crate::time::{TimestampAssigner, WatermarkStrategy};

/// See [`Stream::assign_timestamps`](crate::Stream::assign_timestamps).
pub struct Timestamps<P, F> {
    stage: Stage<P>,
    strategy: WatermarkStrategy,
    timestamp: F,
}

impl<P, F> Timestamps<P, F> {
    pub(crate) fn new(stage: Stage<P>, strategy: WatermarkStrategy, timestamp: F) -> Self {
        Self {
            stage,
            strategy,
            timestamp,
        }
    }
}

impl<P, F> fmt::Debug for Timestamps<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timestamps")
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}

impl<P: Pipe, F: TimestampAssigner<P::Out>> Pipe for Timestamps<P, F> {
    type Out = P::Out;

    fn attach<C: Collector<P::Out>>(self, down: C) {
        self.stage.pipe.attach(TimestampsCollector {
            operator: self.stage.operator,
            counts: Counts::default(),
            delay_ms: self.strategy.delay_ms(),
            timestamp: self.timestamp,
            splits: Vec::new(),
            newest: NONE,
            down,
        });
    }
}

struct TimestampsCollector<F, C> {
    operator: u32,
    counts: Counts,
    delay_ms: i64,
    timestamp: F,
    /// The largest timestamp of each split that has been seen.
    splits: Vec<(u32, i64)>,
    /// The largest timestamp of this call.
    newest: i64,
    down: C,
}

impl<F, C> TimestampsCollector<F, C> {
    /// Adds this call's timestamps to those of its split and returns the split's watermark.
    fn advance(&mut self, split: u32) -> i64 {
        let known = self.splits.iter_mut().find(|(known, _)| *known == split);
        let newest = match known {
            Some((_, newest)) => {
                *newest = self.newest.max(*newest);
                *newest
            }
            None if self.newest == NONE => NONE,
            None => {
                self.splits.push((split, self.newest));
                self.newest
            }
        };
        self.newest = NONE;
        if newest == NONE {
            return NONE;
        }
        // All up to this have been seen, if the disorder is as bounded as was said.
        newest.saturating_sub(self.delay_ms).saturating_sub(1)
    }
}

impl<T: 'static, F: TimestampAssigner<T>, C: Collector<T>> Collector<T>
    for TimestampsCollector<F, C>
{
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        self.counts.records_out += 1;
        let timestamp = self.timestamp.timestamp(&value, timestamp);
        self.newest = self.newest.max(timestamp);
        self.down.push(cx, value, timestamp);
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.counts.report(cx, self.operator);
            cx.split_watermark = self.advance(cx.split);
        }
        self.down.signal(cx, signal);
    }
}
