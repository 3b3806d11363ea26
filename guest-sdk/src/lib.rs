//! Write stream-processing jobs for Tidemill.

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
        KeyedStream, Pipe, Raw, RejectedRecords, Result, States, Stream, Text, Timer, Tumbling,
        ValueState, WatermarkStrategy, Window, blackhole, datagen, file, kafka, print,
    };
}

/// What the macros' code needs; not for authors.
#[doc(hidden)]
pub mod rt {
    pub use crate::instance::{Exported, Instance, Job, JobFunction};
}
