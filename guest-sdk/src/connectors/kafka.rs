//! Topics of Apache Kafka.

use std::fmt::Display;
use std::time::Duration;

use crate::connectors::{Connector, builder, duration};

builder!(
    /// See [`source`].
    KafkaSource
);
builder!(
    /// See [`sink`].
    KafkaSink
);

/// Reads a topic, or several separated by commas. Each partition is a split with its own watermark.
///
/// ```
/// # use tidemill::prelude::*;
/// # fn job(env: &Env) {
/// let clicks = env.source("clicks", kafka::source("clicks")
///     .bootstrap_servers("localhost:9092")
///     .group_id("click-counts")
///     .start_from(kafka::Start::Earliest));
/// # clicks.decode(Raw).discard();
/// # }
/// ```
pub fn source(topics: &str) -> KafkaSource {
    KafkaSource(Connector::new("kafka")).option("topics", topics)
}

/// Reads all topics whose names match a regular expression.
pub fn source_matching(pattern: &str) -> KafkaSource {
    KafkaSource(Connector::new("kafka")).option("topic-pattern", pattern)
}

/// Writes to a topic. Keys, timestamps and headers of the records are kept.
pub fn sink(topic: &str) -> KafkaSink {
    KafkaSink(Connector::new("kafka")).option("topic", topic)
}

/// Where a source begins that has no position in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first record there is (the default).
    Earliest,
    /// With the records that come from now on.
    Latest,
    /// With the first record at or after a time, in milliseconds since the epoch.
    Timestamp(i64),
    /// Where the consumer group has come to; without that, where it is said here.
    Committed(Reset),
}

/// Where a source begins whose consumer group has no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// With the first record there is.
    Earliest,
    /// With the records that come from now on.
    Latest,
}

/// Where a source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// With the last record there is when the job starts.
    Latest,
    /// Before the first record at or after a time, in milliseconds since the epoch.
    Timestamp(i64),
}

/// What a sink guarantees when the job fails and goes on from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing.
    None,
    /// Every record at least once.
    AtLeastOnce,
    /// Every record exactly once, for readers that read committed records only.
    ExactlyOnce,
}

impl KafkaSource {
    /// The brokers to begin with, as `host:port`, separated by commas.
    pub fn bootstrap_servers(self, servers: &str) -> Self {
        self.property("bootstrap.servers", servers)
    }

    /// The consumer group, under which positions are published. They are information only: the
    /// job goes on from its checkpoints.
    pub fn group_id(self, group: &str) -> Self {
        self.property("group.id", group)
    }

    /// Sets any option of librdkafka.
    pub fn property(self, key: &str, value: impl Display) -> Self {
        self.option(&format!("properties.{key}"), value)
    }

    /// Where to begin.
    pub fn start_from(self, start: Start) -> Self {
        let mode = |source: Self, mode| source.option("scan.startup.mode", mode);
        match start {
            Start::Earliest => mode(self, "earliest-offset"),
            Start::Latest => mode(self, "latest-offset"),
            Start::Timestamp(ms) => {
                mode(self, "timestamp").option("scan.startup.timestamp-millis", ms)
            }
            Start::Committed(Reset::Earliest) => {
                mode(self, "group-offsets").property("auto.offset.reset", "earliest")
            }
            Start::Committed(Reset::Latest) => {
                mode(self, "group-offsets").property("auto.offset.reset", "latest")
            }
        }
    }

    /// Where to end. Without this the source never does.
    pub fn bounded(self, bound: Bound) -> Self {
        match bound {
            Bound::Latest => self.option("scan.bounded.mode", "latest-offset"),
            Bound::Timestamp(ms) => self
                .option("scan.bounded.mode", "timestamp")
                .option("scan.bounded.timestamp-millis", ms),
        }
    }

    /// How often to look for new partitions; zero for never.
    pub fn partition_discovery(self, interval: Duration) -> Self {
        self.option(
            "scan.topic-partition-discovery.interval",
            duration(interval),
        )
    }

    /// Leaves out the records of transactions that are open or were aborted.
    pub fn read_committed(self) -> Self {
        self.option("isolation-level", "read_committed")
    }
}

impl KafkaSink {
    /// The brokers to begin with, as `host:port`, separated by commas.
    pub fn bootstrap_servers(self, servers: &str) -> Self {
        self.property("bootstrap.servers", servers)
    }

    /// Sets any option of librdkafka.
    pub fn property(self, key: &str, value: impl Display) -> Self {
        self.option(&format!("properties.{key}"), value)
    }

    /// What the sink guarantees; at least once by default.
    pub fn delivery(self, delivery: Delivery) -> Self {
        let guarantee = match delivery {
            Delivery::None => "none",
            Delivery::AtLeastOnce => "at-least-once",
            Delivery::ExactlyOnce => "exactly-once",
        };
        self.option("delivery-guarantee", guarantee)
    }

    /// How the names of the sink's transactions begin.
    pub fn transactional_id_prefix(self, prefix: &str) -> Self {
        self.option("transactional-id-prefix", prefix)
    }
}
