//! A whole job in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::batch::{ColumnExt, Entries, NONE, empty};
use crate::bindings::exports::tidemill::job::planner::{JobGraph, PlanRequest};
use crate::bindings::exports::tidemill::job::task::{OpenRequest, Progress};
use crate::bindings::tidemill::job::types::{Batch, Failure};
use crate::format::Record;
use crate::host::with_host;
use crate::instance::{Instance, JobFunction};
use crate::testing::memory_host::{Kept, MemoryHost};
use crate::time::millis;
use crate::{Error, Result};

/// Few timers come in one batch, so that tests go through the borders between batches.
const TIMERS_PER_BATCH: usize = 3;

/// A job to be run natively: what it is submitted with.
#[derive(Debug, Clone)]
pub struct JobTest {
    job: JobFunction,
    args: Vec<String>,
    config: Vec<(String, String)>,
    cache_bytes: u64,
}

impl JobTest {
    /// The job that a function marked with [`job`](crate::job) describes.
    #[must_use]
    pub fn new(job: JobFunction) -> Self {
        Self {
            job,
            args: Vec::new(),
            config: Vec::new(),
            cache_bytes: 64 << 20,
        }
    }

    /// The job's arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// An option of the configuration that the job is submitted with.
    #[must_use]
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.config.push((key.to_owned(), value.to_owned()));
        self
    }

    /// How many bytes of keyed state each task may keep cached.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Plans the job without running it.
    ///
    /// # Errors
    ///
    /// What whoever submits the job would be told.
    pub fn plan(&self) -> Result<JobGraph> {
        let host = MemoryHost::default();
        let (_, graph) = with_host(Box::new(host), || self.plan_in(&mut Instance::default()));
        graph
    }

    fn plan_in(&self, instance: &mut Instance) -> Result<JobGraph> {
        let request = PlanRequest {
            args: self.args.clone(),
            config: self.config.clone(),
        };
        instance.plan("test", self.job, request).map_err(Error::new)
    }

    /// Starts the job.
    ///
    /// # Errors
    ///
    /// What whoever submits the job would be told.
    pub fn start(self) -> Result<RunningJob> {
        let graph = self.plan()?;
        let mut job = RunningJob {
            tasks: Vec::new(),
            sinks: BTreeMap::new(),
            rejected: Vec::new(),
            checkpoint: None,
            now_ms: 0,
            test: self,
            graph,
        };
        job.open_tasks(None)?;
        Ok(job)
    }
}

/// A vertex of the job, running.
struct Task {
    instance: Instance,
    host: MemoryHost,
    /// The watermarks of the splits of its source.
    splits: BTreeMap<u32, i64>,
    /// The watermarks of its inputs.
    inputs: BTreeMap<u32, i64>,
    watermark: i64,
    counts: Vec<u64>,
}

/// A job that runs in this process.
pub struct RunningJob {
    test: JobTest,
    graph: JobGraph,
    tasks: Vec<Task>,
    sinks: BTreeMap<String, Vec<(i64, Record)>>,
    rejected: Vec<String>,
    checkpoint: Option<Vec<Kept>>,
    now_ms: i64,
}

impl RunningJob {
    /// Sends payloads into a source, as one batch of its first split.
    ///
    /// # Errors
    ///
    /// When the job fails.
    pub fn send<V: AsRef<[u8]>>(
        &mut self,
        source: &str,
        payloads: impl IntoIterator<Item = V>,
    ) -> Result<()> {
        self.send_to_split(source, 0, payloads)
    }

    /// Sends payloads into one split of a source, as one batch.
    ///
    /// # Errors
    ///
    /// When the job fails.
    pub fn send_to_split<V: AsRef<[u8]>>(
        &mut self,
        source: &str,
        split: u32,
        payloads: impl IntoIterator<Item = V>,
    ) -> Result<()> {
        let mut batch = Batch {
            timestamps: Vec::new(),
            keys: empty(),
            values: empty(),
            headers: Vec::new(),
        };
        for payload in payloads {
            batch.timestamps.push(NONE);
            batch.values.push(payload.as_ref());
        }
        self.send_batch(source, split, &batch)
    }

    /// Sends a batch, with everything that records can have, into one split of a source.
    ///
    /// # Errors
    ///
    /// When the job fails.
    pub fn send_batch(&mut self, source: &str, split: u32, batch: &Batch) -> Result<()> {
        let vertex = self.source_vertex(source)?;
        let progress = self.call(vertex, |instance| instance.process(0, split, batch))?;
        if progress.watermark != NONE {
            self.tasks[vertex].splits.insert(split, progress.watermark);
            let slowest = self.tasks[vertex].splits.values().copied().min();
            self.advance(vertex, slowest.unwrap_or(NONE))?;
        }
        Ok(())
    }

    /// Ends all sources: event time goes to its end, and every window fires.
    ///
    /// # Errors
    ///
    /// When the job fails.
    pub fn end_input(&mut self) -> Result<()> {
        for vertex in 0..self.graph.vertices.len() {
            if self.graph.vertices[vertex].source.is_some() {
                self.call(vertex, |instance| instance.end_of_input(0))?;
                self.advance(vertex, i64::MAX)?;
            }
            for edge in self.graph.edges.clone() {
                if edge.from as usize == vertex {
                    self.call(edge.to as usize, |instance| {
                        instance.end_of_input(edge.input)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Moves the clock and runs the timers that become due by it.
    ///
    /// # Errors
    ///
    /// When the job fails.
    pub fn advance_clock(&mut self, by: Duration) -> Result<()> {
        self.now_ms += millis(by);
        for vertex in 0..self.tasks.len() {
            self.tasks[vertex].host.set_now(self.now_ms);
            self.fire(vertex, false, self.now_ms)?;
        }
        Ok(())
    }

    /// Takes a checkpoint.
    ///
    /// # Errors
    ///
    /// When the job fails.
    pub fn checkpoint(&mut self) -> Result<()> {
        let mut kept = Vec::new();
        for vertex in 0..self.tasks.len() {
            let Task { instance, host, .. } = &mut self.tasks[vertex];
            let (_, done) = with_host(Box::new(host.clone()), || instance.snapshot());
            done.map_err(|failure| self.describe(vertex, &failure))?;
            self.deliver(vertex)?;
            kept.push(self.tasks[vertex].host.kept());
        }
        self.checkpoint = Some(kept);
        Ok(())
    }

    /// Forgets everything since the last checkpoint (or the start) but what reached the sinks, and
    /// goes on from there, as after a failure. Sending records again is up to the test.
    ///
    /// # Errors
    ///
    /// When the job cannot be planned again.
    pub fn restart_from_checkpoint(&mut self) -> Result<()> {
        self.tasks.clear();
        self.open_tasks(self.checkpoint.clone())
    }

    /// Takes the records that have reached a sink since the last time, with their timestamps.
    pub fn records(&mut self, sink: &str) -> Vec<(i64, Record)> {
        self.sinks
            .get_mut(sink)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Takes what has reached a sink since the last time, as text.
    pub fn texts(&mut self, sink: &str) -> Vec<String> {
        let records = self.records(sink).into_iter();
        let values = records.map(|(_, record)| record.value.unwrap_or_default());
        values
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .collect()
    }

    /// Takes what has reached a sink since the last time, read as JSON.
    ///
    /// # Errors
    ///
    /// When a record is not a `T`.
    pub fn json<T: DeserializeOwned>(&mut self, sink: &str) -> Result<Vec<T>> {
        self.texts(sink)
            .iter()
            .map(|text| Ok(serde_json::from_str(text)?))
            .collect()
    }

    /// What was rejected so far, as messages.
    #[must_use]
    pub fn rejected(&self) -> &[String] {
        &self.rejected
    }

    /// A counter, summed over the job.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        self.tasks.iter().map(|task| task.host.metric(name)).sum()
    }

    /// Records in and out of an operator so far.
    #[must_use]
    pub fn counts(&self, operator: &str) -> Option<(u64, u64)> {
        self.graph
            .vertices
            .iter()
            .zip(&self.tasks)
            .find_map(|(vertex, task)| {
                let i = vertex
                    .operators
                    .iter()
                    .position(|own| own.name == operator)?;
                Some((*task.counts.get(i * 2)?, *task.counts.get(i * 2 + 1)?))
            })
    }

    /// The graph that runs.
    #[must_use]
    pub fn graph(&self) -> &JobGraph {
        &self.graph
    }

    /// The host's part for a vertex, by its name.
    #[must_use]
    pub fn host(&self, vertex: &str) -> Option<&MemoryHost> {
        let i = self
            .graph
            .vertices
            .iter()
            .position(|own| own.name == vertex)?;
        self.tasks.get(i).map(|task| &task.host)
    }

    fn open_tasks(&mut self, from: Option<Vec<Kept>>) -> Result<()> {
        let restored = from.is_some();
        let mut from = from.unwrap_or_default().into_iter();
        for vertex in 0..self.graph.vertices.len() {
            let host = MemoryHost::with_kept(from.next().unwrap_or_default());
            host.set_now(self.now_ms);
            let mut instance = Instance::default();
            let request = OpenRequest {
                vertex: u32::try_from(vertex)?,
                subtask: 0,
                parallelism: 1,
                max_parallelism: 128,
                attempt: u32::from(restored),
                cache_bytes: self.test.cache_bytes,
                restored,
            };
            let (_, opened) = with_host(Box::new(host.clone()), || {
                let graph = self.test.plan_in(&mut instance)?;
                if graph != self.graph {
                    return Err(Error::new("the job plans another graph each time"));
                }
                instance
                    .open(&request)
                    .map_err(|failure| Error::new(failure.message))
            });
            opened?;
            self.tasks.push(Task {
                instance,
                host,
                splits: BTreeMap::new(),
                inputs: BTreeMap::new(),
                watermark: NONE,
                counts: Vec::new(),
            });
        }
        Ok(())
    }

    fn source_vertex(&self, name: &str) -> Result<usize> {
        let mut vertices = self.graph.vertices.iter();
        vertices
            .position(|vertex| {
                vertex
                    .source
                    .as_ref()
                    .is_some_and(|source| source.name == name)
            })
            .ok_or_else(|| Error::new(format!("the job has no source `{name}`")))
    }

    /// Makes a call of the contract, and delivers what it sent out.
    fn call(
        &mut self,
        vertex: usize,
        f: impl FnOnce(&mut Instance) -> Result<Progress, Failure>,
    ) -> Result<Progress> {
        let Task { instance, host, .. } = &mut self.tasks[vertex];
        let (_, progress) = with_host(Box::new(host.clone()), || f(instance));
        let progress = progress.map_err(|failure| self.describe(vertex, &failure))?;
        self.note(vertex, &progress)?;
        self.deliver(vertex)?;
        Ok(progress)
    }

    fn note(&mut self, vertex: usize, progress: &Progress) -> Result<()> {
        let counts = &mut self.tasks[vertex].counts;
        counts.resize(progress.counts.len(), 0);
        counts
            .iter_mut()
            .zip(&progress.counts)
            .for_each(|(sum, new)| *sum += new);
        let policy = self
            .graph
            .config
            .iter()
            .find(|(key, _)| key == "tidemill.rejected-records");
        let fails = policy.is_none_or(|(_, policy)| policy != "skip");
        for rejected in &progress.rejected {
            let operator = &self.graph.vertices[vertex].operators[rejected.operator as usize];
            let message = format!("{}: {}", operator.name, rejected.message);
            if fails {
                return Err(Error::new(message));
            }
            self.rejected.push(message);
        }
        Ok(())
    }

    fn describe(&self, vertex: usize, failure: &Failure) -> Error {
        let vertex = &self.graph.vertices[vertex];
        let operator = failure
            .operator
            .and_then(|i| vertex.operators.get(i as usize));
        let name = operator.map_or(&vertex.name, |operator| &operator.name);
        Error::new(format!("{name}: {}", failure.message))
    }

    fn deliver(&mut self, vertex: usize) -> Result<()> {
        for (port, batch) in self.tasks[vertex].host.take_emitted() {
            let sinks = self.graph.vertices[vertex].sinks.iter();
            if let Some(sink) = sinks.clone().find(|sink| sink.port == port) {
                let name = sink.name.clone();
                self.sinks
                    .entry(name)
                    .or_default()
                    .extend(records_of(&batch));
            }
            for edge in self.graph.edges.clone() {
                if (edge.from as usize, edge.port) == (vertex, port) {
                    let to = edge.to as usize;
                    self.call(to, |instance| instance.process(edge.input, 0, &batch))?;
                }
            }
        }
        Ok(())
    }

    /// Event time has come to `watermark` at what `vertex` sends out.
    fn advance(&mut self, vertex: usize, watermark: i64) -> Result<()> {
        if watermark <= self.tasks[vertex].watermark {
            return Ok(());
        }
        self.tasks[vertex].watermark = watermark;
        self.fire(vertex, true, watermark)?;
        if self.graph.vertices[vertex].wants_watermarks {
            self.call(vertex, |instance| instance.watermark(watermark))?;
        }
        for edge in self.graph.edges.clone() {
            if edge.from as usize == vertex {
                self.arrive(edge.to as usize, edge.input, watermark)?;
            }
        }
        Ok(())
    }

    fn arrive(&mut self, vertex: usize, input: u32, watermark: i64) -> Result<()> {
        self.tasks[vertex].inputs.insert(input, watermark);
        let all = self
            .graph
            .edges
            .iter()
            .filter(|edge| edge.to as usize == vertex);
        let inputs = &self.tasks[vertex].inputs;
        let slowest = all
            .map(|edge| inputs.get(&edge.input).copied().unwrap_or(NONE))
            .min();
        self.advance(vertex, slowest.unwrap_or(NONE))
    }

    fn fire(&mut self, vertex: usize, event_time: bool, now: i64) -> Result<()> {
        while let Some(due) = self.tasks[vertex]
            .host
            .take_due(event_time, now, TIMERS_PER_BATCH)
        {
            self.call(vertex, |instance| instance.fire_timers(&due, now))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RunningJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningJob")
            .field("name", &self.graph.name)
            .finish_non_exhaustive()
    }
}

fn records_of(batch: &Batch) -> Vec<(i64, Record)> {
    let mut keys = Entries::of(&batch.keys);
    let mut values = Entries::of(&batch.values);
    let record = |(i, timestamp): (usize, &i64)| {
        let headers = batch
            .headers
            .iter()
            .filter(|header| header.record as usize == i);
        let headers = headers
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect();
        let (key, value) = (keys.at(i), values.at(i));
        let own = Record {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers,
        };
        (*timestamp, own)
    };
    batch.timestamps.iter().enumerate().map(record).collect()
}
