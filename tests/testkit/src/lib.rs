//! Real servers for tests: a Kafka broker, an S3 server; and waiting without sleeping blindly.
//!
//! Servers listen on free ports of the loopback interface, keep their data below `target/testkit`,
//! and end with the process that started them, however that ends. What they are made of is fetched
//! on first use (Maven Central, crates.io) and kept below `target`.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests of real processes wait in real time"
)]

mod kafka;
mod process;
mod s3;
mod wait;

pub use kafka::{Kafka, ReadRecord, Record};
pub use process::{free_port, project_root, target_dir};
pub use s3::S3;
pub use wait::{eventually, wait_until};
