//! The end of a stream: values are written into the batch that leaves for a connector.

use std::fmt;

use crate::batch::Entries;
use crate::bindings::exports::tidemill::job::planner::ShipStrategy;
use crate::bindings::tidemill::job::types::{Batch, TimerBatch};
use crate::chain::{Chain, Collector, Counts, Pipe, Signal};
use crate::connectors::Connector;
use crate::context::Context;
use crate::env::Env;
use crate::error::Result;
use crate::format::{Encode, RecordWriter};
use crate::graph::VertexIndex;
use crate::stream::Stream;

/// A stream of which is known how its values are written.
#[must_use = "a stream that leads nowhere is an error; end it with `.sink(…)`"]
pub struct Encoded<P, E> {
    stream: Stream<P>,
    format: E,
}

impl<P: Pipe, E: Encode<P::Out>> Encoded<P, E> {
    pub(crate) fn new(stream: Stream<P>, format: E) -> Self {
        Self { stream, format }
    }

    /// Gives each record a key for the external system, such as Kafka's message key.
    pub fn with_key<K, F>(self, key: F) -> Encoded<P, Keyed<E, F>>
    where
        K: AsRef<[u8]>,
        F: Fn(&P::Out) -> K + 'static,
    {
        let format = Keyed {
            format: self.format,
            key,
        };
        Encoded {
            stream: self.stream,
            format,
        }
    }

    /// Ends the stream in a connector, such as [`kafka::sink`](crate::kafka::sink).
    pub fn sink(self, name: &str, connector: impl Into<Connector>) -> Sink {
        let connector = connector.into();
        let (env, vertex, pipe) = self.stream.into_parts();
        if env.chaining() {
            let (operator, port) = add_sink(&env, vertex, name, connector);
            pipe.attach(Encoder::new(operator, port, self.format));
            return Sink {
                env,
                vertex,
                operator,
            };
        }
        // In a task of its own. What crosses is the encoded record, so that the values themselves
        // need no way to be written and read.
        let description = format!("Encode({})", self.format.describe());
        let encode = env.vertex(vertex, |draft| draft.add_step("Encode", description));
        let (to, port) = env.graph(|graph| graph.add_downstream(vertex, ShipStrategy::Forward));
        pipe.attach(Encoder::new(encode, port, self.format));
        let (operator, port) = add_sink(&env, to, name, connector);
        env.set_chain(
            to,
            PassThrough {
                operator,
                port,
                counts: Counts::default(),
            },
        );
        Sink {
            env,
            vertex: to,
            operator,
        }
    }
}

fn add_sink(env: &Env, vertex: VertexIndex, name: &str, connector: Connector) -> (u32, u32) {
    env.vertex(vertex, |draft| {
        let operator = draft.add_operator(name, format!("Sink({})", connector.describe()));
        let port = draft.add_port();
        draft.add_sink(operator, port, connector.into_inner());
        (operator, port)
    })
}

impl<P, E> fmt::Debug for Encoded<P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// The end of a stream, for what is left to say about it.
#[derive(Debug)]
pub struct Sink {
    env: Env,
    vertex: VertexIndex,
    operator: u32,
}

impl Sink {
    /// Gives the sink an id that stays when the job changes, by which its state is found again.
    pub fn uid(&self, uid: &str) -> &Self {
        self.env.vertex(self.vertex, |vertex| {
            vertex.set_uid(Some(self.operator), uid);
        });
        self
    }

    /// How many parallel tasks the sink's chain has.
    pub fn parallelism(&self, parallelism: u32) -> &Self {
        self.env
            .vertex(self.vertex, |vertex| vertex.set_parallelism(parallelism));
        self
    }
}

/// See [`Encoded::with_key`].
#[derive(Debug)]
pub struct Keyed<E, F> {
    format: E,
    key: F,
}

impl<T, K, E, F> Encode<T> for Keyed<E, F>
where
    K: AsRef<[u8]>,
    E: Encode<T>,
    F: Fn(&T) -> K + 'static,
{
    fn encode(&mut self, value: &T, record: &mut RecordWriter<'_>) -> Result<()> {
        record.set_key((self.key)(value).as_ref());
        self.format.encode(value, record)
    }

    fn describe(&self) -> String {
        self.format.describe()
    }
}

/// Writes values into the batch of a port.
struct Encoder<E> {
    operator: u32,
    port: u32,
    format: E,
    counts: Counts,
    headers: Vec<(String, Option<Vec<u8>>)>,
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl<E> Encoder<E> {
    fn new(operator: u32, port: u32, format: E) -> Self {
        Self {
            operator,
            port,
            format,
            counts: Counts::default(),
            headers: Vec::new(),
            key: Vec::new(),
            payload: Vec::new(),
        }
    }
}

impl<T: 'static, E: Encode<T>> Collector<T> for Encoder<E> {
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        cx.enter(self.operator);
        self.counts.records_in += 1;
        self.payload.clear();
        self.headers.clear();
        let (mut has_key, mut tombstone) = (false, false);
        let mut record = RecordWriter {
            value: &mut self.payload,
            key: &mut self.key,
            has_key: &mut has_key,
            headers: &mut self.headers,
            tombstone: &mut tombstone,
        };
        if let Err(error) = self.format.encode(&value, &mut record) {
            cx.reject(self.operator, error.into_message());
            return;
        }
        self.counts.records_out += 1;
        let port = cx.port(self.port);
        for (name, header) in self.headers.drain(..) {
            port.push_header(name, header);
        }
        let value = (!tombstone).then_some(self.payload.as_slice());
        port.push(timestamp, has_key.then_some(self.key.as_slice()), value);
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.counts.report(cx, self.operator);
        }
    }
}

/// The chain of a sink in a task of its own: what comes in goes out.
struct PassThrough {
    operator: u32,
    port: u32,
    counts: Counts,
}

impl Chain for PassThrough {
    fn process(&mut self, cx: &mut Context, _input: u32, batch: &Batch) {
        let mut keys = Entries::of(&batch.keys);
        let mut values = Entries::of(&batch.values);
        let mut headers = batch.headers.iter().peekable();
        let port = cx.port(self.port);
        for (i, timestamp) in batch.timestamps.iter().enumerate() {
            while let Some(header) = headers.next_if(|header| header.record as usize <= i) {
                port.push_header(header.name.clone(), header.value.clone());
            }
            port.push(*timestamp, keys.at(i), values.at(i));
        }
        self.counts.records_in += batch.timestamps.len() as u64;
        self.counts.records_out += batch.timestamps.len() as u64;
    }

    fn fire(&mut self, _cx: &mut Context, _timers: &TimerBatch) {}

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.counts.report(cx, self.operator);
        }
    }
}

/// The end of a stream without a sink.
pub(crate) struct Discarded {
    pub(crate) operator: u32,
    pub(crate) counts: Counts,
}

impl<T: 'static> Collector<T> for Discarded {
    fn push(&mut self, _cx: &mut Context, _value: T, _timestamp: i64) {
        self.counts.records_in += 1;
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.counts.report(cx, self.operator);
        }
    }
}
