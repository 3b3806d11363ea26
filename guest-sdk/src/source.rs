//! The beginning of a stream: a connector, and the format that turns its records into values.

use crate::batch::{Entries, NONE};
use crate::bindings::tidemill::job::types::{Batch, Header, TimerBatch};
use crate::chain::{Chain, Collector, Counts, Pipe, Signal};
use crate::context::Context;
use crate::env::Env;
use crate::format::{Decode, RawRecord};
use crate::graph::VertexIndex;
use crate::stream::Stream;

/// A source whose records have not been read yet.
#[derive(Debug)]
#[must_use = "a source that is not read is an error; go on with `.decode(…)`"]
pub struct Source {
    env: Env,
    vertex: VertexIndex,
}

impl Source {
    pub(crate) fn new(env: Env, vertex: VertexIndex) -> Self {
        Self { env, vertex }
    }

    /// Turns records into values. One that cannot be read is rejected
    /// (see [`Env::on_rejected`]).
    pub fn decode<D: Decode>(self, format: D) -> Stream<Decoded<D>> {
        let description = format!("Decode({})", format.describe());
        let operator = self
            .env
            .vertex(self.vertex, |draft| draft.add_step("Decode", description));
        let env = self.env.clone();
        let pipe = Decoded {
            env: self.env,
            vertex: self.vertex,
            operator,
            format,
        };
        Stream::new(env, pipe.vertex, None, pipe)
    }
}

/// The values of a source.
#[derive(Debug)]
pub struct Decoded<D> {
    env: Env,
    vertex: VertexIndex,
    operator: u32,
    format: D,
}

impl<D: Decode> Pipe for Decoded<D> {
    type Out = D::Out;

    fn attach<C: Collector<D::Out>>(self, down: C) {
        let Self {
            env,
            vertex,
            operator,
            format,
        } = self;
        env.set_chain(
            vertex,
            Decoder {
                operator,
                counts: Counts::default(),
                format,
                down,
            },
        );
    }
}

struct Decoder<D, C> {
    operator: u32,
    counts: Counts,
    format: D,
    down: C,
}

impl<D: Decode, C: Collector<D::Out>> Decoder<D, C> {
    #[inline]
    fn push(&mut self, cx: &mut Context, record: RawRecord<'_>) {
        cx.enter(self.operator);
        let timestamp = record.timestamp.unwrap_or(NONE);
        match self.format.decode(record) {
            Ok(value) => {
                self.counts.records_out += 1;
                self.down.push(cx, value, timestamp);
            }
            Err(error) => cx.reject(self.operator, error.into_message()),
        }
    }
}

impl<D: Decode, C: Collector<D::Out>> Chain for Decoder<D, C> {
    fn process(&mut self, cx: &mut Context, _input: u32, batch: &Batch) {
        let mut keys = Entries::of(&batch.keys);
        let mut values = Entries::of(&batch.values);
        let mut headers = Headers {
            rest: &batch.headers,
        };
        self.counts.records_in += batch.timestamps.len() as u64;
        for (record, timestamp) in (0_u32..).zip(&batch.timestamps) {
            cx.record = record;
            let i = record as usize;
            let mut record = RawRecord {
                key: None,
                value: values.at(i),
                timestamp: (*timestamp != NONE).then_some(*timestamp),
                headers: &[],
            };
            if D::WHOLE_RECORD {
                record.key = keys.at(i);
                record.headers = headers.of(i);
            }
            self.push(cx, record);
            if cx.failed() {
                return;
            }
        }
    }

    fn fire(&mut self, _cx: &mut Context, _timers: &TimerBatch) {}

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        if signal == Signal::Flush {
            self.counts.report(cx, self.operator);
        }
        self.down.signal(cx, signal);
    }
}

/// The headers of a batch, record by record.
struct Headers<'a> {
    rest: &'a [Header],
}

impl<'a> Headers<'a> {
    fn of(&mut self, record: usize) -> &'a [Header] {
        let count = self
            .rest
            .iter()
            .take_while(|h| h.record as usize <= record)
            .count();
        let (own, rest) = self.rest.split_at(count);
        self.rest = rest;
        own
    }
}
