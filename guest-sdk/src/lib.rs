//! Write stream-processing jobs for Tidemill.
//!
//! A job is a function that describes a dataflow: where records come from, what is done with them,
//! where the results go. Compiled to a WebAssembly component, it is uploaded to a cluster, which
//! runs it in a sandbox on as many machines as needed, keeps its state, and brings it back after
//! failures with every record counted exactly once.
//!
//! # A first job
//!
//! ```
//! use std::time::Duration;
//!
//! use serde::{Deserialize, Serialize};
//! use tidemill::prelude::*;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Click {
//!     page: String,
//!     timestamp: i64,
//! }
//!
//! #[tidemill::job]
//! fn clicks_per_minute(env: &Env, args: &Args) -> Result<()> {
//!     let brokers = args.get_or("bootstrap.servers", "localhost:9092");
//!     env.source("clicks", kafka::source(args.required("input-topic")?).bootstrap_servers(brokers))
//!         .decode(Json::<Click>::new())
//!         .assign_timestamps(
//!             WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(1)),
//!             |click| click.timestamp,
//!         )
//!         .key_by_ref(|click| &click.page)
//!         .window(Tumbling::event_time(Duration::from_secs(60)))
//!         .aggregate(Count, |window, page, count| format!("{page} {} {count}", window.start))
//!         .encode(Text)
//!         .sink("counts", kafka::sink(args.required("output-topic")?).bootstrap_servers(brokers));
//!     Ok(())
//! }
//! ```
//!
//! Its `Cargo.toml` says `crate-type = ["cdylib", "rlib"]`;
//! `cargo build --release --target wasm32-wasip2` makes the component.
//!
//! # What happens to it
//!
//! The function runs once when the job is submitted, to plan it, and again in each of the job's
//! parallel tasks, to rebuild the closures. Nothing is processed while it runs, and it has to
//! describe the same job each time: only its [`Args`] and the submitted configuration may make a
//! difference. An error that it returns reaches whoever submitted the job.
//!
//! Operators between two exchanges become one task and are compiled into one function, so that a
//! map after a filter costs no more than the code of both. An exchange is where records may change
//! places: at [`Stream::key_by`], and where one is asked for ([`Stream::rebalance`],
//! [`Stream::start_new_chain`], …). What crosses one must be [`Data`]: written and read by serde.
//!
//! # Time
//!
//! A record belongs to the time that [`Stream::assign_timestamps`] gives it. Watermarks say how far
//! that time has come; windows and event-time timers wait for them. The [`WatermarkStrategy`] says
//! how far out of order records may be. Windows and timers of *processing time* go by the clock.
//!
//! # State
//!
//! After `key_by`, an operator can keep state for each key: see [`KeyedProcess`] for one of your
//! own, [`KeyedStream::window`] and [`KeyedStream::reduce`] for ready ones. State is cached where it
//! is used, belongs to the cluster, is part of every checkpoint and follows its key when the job is
//! rescaled. Its types have a [`Schema`], so that other versions and other tools can read it. Give
//! operators with state a `uid`, by which a later version of the job finds it again.
//!
//! # When something goes wrong
//!
//! A record that cannot be decoded, or for which [`Stream::try_map`] or [`KeyedProcess::process`]
//! returns an error, is *rejected*: it fails the job, or is skipped and counted, as
//! [`Env::on_rejected`] says. A panic fails the task, which goes back to its last checkpoint; its
//! message is in the job's exceptions.
//!
//! # Tests
//!
//! The function is an ordinary one, and `testing::JobTest` (not in Wasm) runs the whole job in a
//! unit test, with watermarks, timers, checkpoints and restarts.

#[cfg(all(target_family = "wasm", feature = "allocator"))]
mod allocator;
mod args;
mod avro;
mod batch;
#[doc(hidden)]
pub mod bindings;
mod chain;
mod connectors;
mod context;
mod env;
mod error;
mod exchange;
mod format;
mod graph;
mod hash;
mod host;
mod instance;
mod key;
mod keyed;
pub mod ops;
mod panic;
mod process;
mod schema;
mod source;
mod state;
mod stream;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod time;
mod timers;
mod window;

pub use tidemill_macros::{Schema, job};

pub use crate::args::Args;
pub use crate::chain::Pipe;
pub use crate::connectors::{Connector, blackhole, datagen, file, kafka, print};
pub use crate::env::{Env, RejectedRecords};
pub use crate::error::{Error, Result};
pub use crate::format::{
    Decode, Encode, Encoded, Json, Raw, RawRecord, Record, RecordWriter, Sink, Text, decode_with,
};
pub use crate::key::{AsKey, Bytes, Key, KeySelector};
pub use crate::keyed::KeyedStream;
pub use crate::ops::Out;
pub use crate::process::{KeyedContext, KeyedProcess, Timer};
pub use crate::schema::{Definitions, Field, Schema, StateValue};
pub use crate::source::Source;
pub use crate::state::{States, ValueState};
pub use crate::stream::{Data, Stream};
pub use crate::time::WatermarkStrategy;
pub use crate::window::{
    Aggregate, Assigner, Count, Max, Min, Reduce, Sum, Tumbling, Window, WindowedStream,
};

/// What most jobs use.
pub mod prelude {
    pub use crate::{
        Aggregate, Args, Count, Data, Env, Error, Json, Key, KeyedContext, KeyedProcess,
        KeyedStream, Max, Min, Pipe, Raw, RejectedRecords, Result, States, Stream, Sum, Text,
        Timer, Tumbling, ValueState, WatermarkStrategy, Window, blackhole, datagen, file, kafka,
        print,
    };
}

/// What the macros' code needs; not for authors.
#[doc(hidden)]
pub mod rt {
    pub use crate::instance::{Exported, Instance, Job, JobFunction};
}

/// The job in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
