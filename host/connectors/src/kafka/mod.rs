//! `kafka`: topics as source and sink, by librdkafka.
//!
//! # Source
//!
//! | option | meaning |
//! |---|---|
//! | `topics` | names, separated by commas; or |
//! | `topic-pattern` | a regular expression that whole names must match |
//! | `properties.*` | any option of librdkafka; `properties.bootstrap.servers` must be set |
//! | `scan.startup.mode` | `earliest-offset` (default), `latest-offset`, `group-offsets`, `timestamp` |
//! | `scan.startup.timestamp-millis` | for `timestamp` |
//! | `scan.bounded.mode` | `unbounded` (default), `latest-offset`, `timestamp` |
//! | `scan.bounded.timestamp-millis` | for `timestamp` |
//! | `scan.topic-partition-discovery.interval` | default `5 min`; `0`: never |
//! | `isolation-level` | `read_uncommitted` (default), `read_committed` |
//!
//! A split is a partition. Positions live in the checkpoint; group offsets are committed when a
//! checkpoint completes and only if `properties.group.id` is set, as information
//! (`properties.commit.offsets.on.checkpoint` = `false` switches that off). What is found missing
//! at a position (deleted by retention) fails the job unless `properties.auto.offset.reset` says
//! otherwise. Keys, timestamps, headers and null values are kept.
//!
//! # Sink
//!
//! | option | meaning |
//! |---|---|
//! | `topic` | its name |
//! | `properties.*` | any option of librdkafka; `properties.bootstrap.servers` must be set |
//! | `delivery-guarantee` | `none`, `at-least-once` (default) |
//! | `transactional-id-prefix` | for `exactly-once`, which this version refuses |
//!
//! Records are acknowledged by all replicas before a barrier goes on. Subtasks of one process
//! whose properties are the same share one producer. A record without a timestamp, and one whose
//! timestamp is 0 (librdkafka cannot tell the two apart), gets the time at which it is sent.

mod assignment;
mod client;
mod errors;
mod metadata;
mod offsets;
mod options;
mod producer;
mod sink;
mod source;
mod split;

pub(crate) use self::{
    metadata::{check_sink, check_source},
    options::{SinkOptions, SourceOptions},
    producer::ProducerPool,
    sink::KafkaSink,
    source::KafkaSource,
};
