//! Running jobs natively, without a cluster: for tests and measurements. Not there in Wasm.
//!
//! [`JobTest`] runs a whole job in this process, one task for each vertex of its graph, and lets a
//! test play the part of everything around it: it sends records into sources, moves the clock,
//! ends the input, takes a checkpoint and restarts from it, and looks at what reached the sinks.
//!
//! ```
//! use std::time::Duration;
//! use tidemill::prelude::*;
//! use tidemill::testing::JobTest;
//!
//! fn counts(env: &Env, _args: &Args) -> Result<()> {
//!     env.source("words", kafka::source("words"))
//!         .decode(Text)
//!         .assign_timestamps(WatermarkStrategy::monotonous(), |word| word.len() as i64)
//!         .key_by_ref(|word| word)
//!         .window(Tumbling::event_time(Duration::from_secs(1)))
//!         .aggregate(Count, |_window, word, count| format!("{word}: {count}"))
//!         .encode(Text)
//!         .sink("counts", print::sink());
//!     Ok(())
//! }
//!
//! let mut job = JobTest::new(counts).start()?;
//! job.send("words", ["to", "be", "or", "not", "to", "be"])?;
//! assert!(job.texts("counts").is_empty());
//! job.end_input()?;
//! let mut lines = job.texts("counts");
//! lines.sort();
//! assert_eq!(lines, ["be: 2", "not: 1", "or: 1", "to: 2"]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! For measurements, an [`Instance`] runs one vertex of a job against any [`Host`], by the calls of
//! the contract: the same code that runs in the sandbox.

mod job_test;
mod memory_host;

pub use crate::bindings::exports::tidemill::job::{planner, task};
pub use crate::bindings::tidemill::job::{logging, state, types};
pub use crate::host::{Host, with_host};
pub use crate::instance::{Instance, JobFunction};
pub use job_test::{JobTest, RunningJob};
pub use memory_host::MemoryHost;
