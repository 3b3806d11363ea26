//! Sources and sinks: where records come from and where they go.
//!
//! A job names connectors and their options in its graph; the host carries them out, so that a
//! guest needs no network and no files. This crate alone talks to Kafka.
//!
//! - [`Source`] and [`Sink`]: what a task drives.
//! - [`Registry`]: opens connectors by kind, checks their options, and looks before a job starts
//!   whether what it names can be reached.
//! - [`kafka`], [`mod@file`], [`datagen`], [`mod@print`], [`blackhole`]: the connectors, each with its
//!   options documented at the head of its module.
//!
//! # Invariants
//!
//! 1. A source's snapshot describes exactly what `next` has returned, no more and no less.
//! 2. Every source reads splits; a split is read by one subtask at a time, in order. Who reads
//!    which split is a function of the split and the parallelism alone.
//! 3. Nothing is buffered without a bound; a source that is not asked does not read on.

pub mod blackhole;
pub mod datagen;
pub mod error;
pub mod file;
pub mod kafka;
pub mod options;
pub mod print;
pub mod registry;
pub mod sink;
pub mod source;

pub use error::ConnectorError;
pub use print::PrintOutput;
pub use registry::Registry;
pub use sink::{Sink, SinkContext};
pub use source::{BatchBudget, Source, SourceContext, SourceEvent, SplitState};
