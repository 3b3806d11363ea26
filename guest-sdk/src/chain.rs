//! How operators are put together: a pipe is taken apart into collectors, from its end to its
//! root, so that everything between two exchanges becomes one function without calls through
//! pointers.
//!
//! A [`Pipe`] describes; [`Pipe::attach`] hands it what comes after it. Each stage wraps that in
//! its own [`Collector`] and attaches it to the stage before; the first stage, which reads batches,
//! becomes the vertex's [`Chain`], the only part behind a pointer.

use crate::bindings::tidemill::job::types::{Batch, TimerBatch};
use crate::context::Context;

/// A stage of a stream that is being described, together with all stages before it.
///
/// Authors name it in signatures: `fn counts(clicks: Stream<impl Pipe<Out = Click>>)`.
pub trait Pipe: Sized + 'static {
    /// What comes out of the stage.
    type Out: 'static;

    /// Completes the stage with what comes after it.
    #[doc(hidden)]
    fn attach<C: Collector<Self::Out>>(self, down: C);
}

/// What takes the records of a stage.
pub trait Collector<T>: 'static {
    /// Takes a record.
    #[doc(hidden)]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64);

    /// Takes a signal, and passes it on after having done with it what it has to.
    #[doc(hidden)]
    fn signal(&mut self, cx: &mut Context, signal: Signal);
}

/// What goes down a chain besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The chain is about to start; `Context::opened` says as whom.
    Open,
    /// The call ends: hand on what is held back, report counts.
    Flush,
    /// The watermark of all inputs together has advanced to this.
    Watermark(i64),
    /// This input has ended.
    EndOfInput(u32),
    /// A barrier: what is held back must go on, and state must be written back.
    Snapshot,
}

/// The root of a chain: reads what the host brings.
pub(crate) trait Chain {
    fn process(&mut self, cx: &mut Context, input: u32, batch: &Batch);
    fn fire(&mut self, cx: &mut Context, timers: &TimerBatch);
    fn signal(&mut self, cx: &mut Context, signal: Signal);
}

impl<T: 'static> Collector<T> for Box<dyn Collector<T>> {
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        (**self).push(cx, value, timestamp);
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        (**self).signal(cx, signal);
    }
}

/// How many records went in and out of an operator during a call.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
}

impl Counts {
    /// Reports and starts again at zero.
    pub(crate) fn report(&mut self, cx: &mut Context, operator: u32) {
        cx.count(operator, self.records_in, self.records_out);
        *self = Self::default();
    }
}
