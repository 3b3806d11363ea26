//! Between two vertices: values are written with postcard on one side and read on the other.
//!
//! The encoding never leaves the job: both sides are the same component.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::Entries;
use crate::bindings::tidemill::job::types::{Batch, TimerBatch};
use crate::chain::{Chain, Collector, Pipe, Signal};
use crate::context::Context;
use crate::env::Env;
use crate::graph::VertexIndex;
use crate::stream::Data;

/// Appends to a buffer, which postcard's own flavors only do by taking it along.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends `value`.
#[inline]
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(out))
}

/// Reads a value that [`write()`] wrote.
#[inline]
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<T> {
    postcard::from_bytes(bytes)
}

/// Sends values out by a port.
pub(crate) struct Sender<T> {
    port: u32,
    /// The operator before, which is blamed for what cannot be written.
    operator: u32,
    values: PhantomData<fn(T)>,
}

impl<T> Sender<T> {
    pub(crate) fn new(port: u32, operator: Option<u32>) -> Self {
        Self {
            port,
            operator: operator.unwrap_or(0),
            values: PhantomData,
        }
    }
}

impl<T: Data> Collector<T> for Sender<T> {
    #[inline]
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        let sent = cx
            .port(self.port)
            .push_with(timestamp, None, |out| write(&value, out));
        if let Err(error) = sent {
            cx.reject(
                self.operator,
                format!("cannot be sent to the next operator: {error}"),
            );
        }
    }

    fn signal(&mut self, _cx: &mut Context, _signal: Signal) {}
}

/// Values that come from another vertex.
pub struct Received<T> {
    env: Env,
    vertex: VertexIndex,
    values: PhantomData<fn() -> T>,
}

impl<T> Received<T> {
    pub(crate) fn new(env: Env, vertex: VertexIndex) -> Self {
        Self {
            env,
            vertex,
            values: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Received<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("vertex", &self.vertex)
            .finish_non_exhaustive()
    }
}

impl<T: Data> Pipe for Received<T> {
    type Out = T;

    fn attach<C: Collector<T>>(self, down: C) {
        let root = Receiver {
            down,
            values: PhantomData,
        };
        self.env.set_chain(self.vertex, root);
    }
}

struct Receiver<T, C> {
    down: C,
    values: PhantomData<fn(T)>,
}

impl<T: Data, C: Collector<T>> Chain for Receiver<T, C> {
    fn process(&mut self, cx: &mut Context, _input: u32, batch: &Batch) {
        let mut values = Entries::of(&batch.values);
        for (record, timestamp) in (0..).zip(&batch.timestamps) {
            cx.record = record;
            match read(values.at(record as usize).unwrap_or_default()) {
                Ok(value) => self.down.push(cx, value, *timestamp),
                Err(error) => cx.fail(0, unreadable(&error)),
            }
            if cx.failed() {
                return;
            }
        }
    }

    fn fire(&mut self, _cx: &mut Context, _timers: &TimerBatch) {}

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        self.down.signal(cx, signal);
    }
}

/// A value that the same component wrote cannot be read: its type does not read what it writes.
pub(crate) fn unreadable(error: &postcard::Error) -> String {
    format!(
        "a value from the operator before cannot be read ({error}); values that travel between \
         tasks must read back what they write, which types with serde's `flatten`, `untagged` or \
         `skip_serializing_if` do not"
    )
}
