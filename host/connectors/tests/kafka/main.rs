//! Topics as source and sink, on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../suite/mod.rs"]
mod suite;

mod sink;
mod source;
mod trouble;

use tidemill_testkit::Kafka;
use tidemill_types::ConnectorConfig;

/// A source with these options.
fn source(kafka: &Kafka, topics: &str, options: &[(&str, &str)]) -> ConnectorConfig {
    let mut all = vec![
        ("topics", topics),
        ("properties.bootstrap.servers", kafka.bootstrap()),
    ];
    all.extend(options);
    suite::config("kafka", &all)
}

/// A sink with these options.
fn sink(kafka: &Kafka, topic: &str, options: &[(&str, &str)]) -> ConnectorConfig {
    let mut all = vec![
        ("topic", topic),
        ("properties.bootstrap.servers", kafka.bootstrap()),
    ];
    all.extend(options);
    suite::config("kafka", &all)
}

const BOUNDED: (&str, &str) = ("scan.bounded.mode", "latest-offset");
