//! Running modules: the only crate that knows Wasmtime.
//!
//! A [`Runtime`] (one per worker) loads compiled [`Module`]s from its cache; a module is
//! instantiated once per subtask, and a [`Guest`] is that instance: the worker calls it with
//! batches and serves its imports as a [`TaskHost`].
//!
//! # Invariants
//!
//! 1. Nothing a guest does makes the host panic, block or grow without bound: all its numbers are
//!    checked, memory, stack, time and output have limits, and each ends in a [`GuestError`].
//! 2. A worker never compiles. The planner process (see [`planner`]) does, and can be killed.
//! 3. Code is loaded from a cache that authenticates it.
//!
//! | module | what it does |
//! |---|---|
//! | `admission` | says whether uploaded bytes are a job |
//! | `cache` | keeps compiled code |
//! | `engine` | the engine's settings, loading |
//! | `guest` | instances and their calls |
//! | `imports`, `instance` | the host's side of a call |
//! | `interrupt` | ends calls: by a page taken away, or by epochs |
//! | `wasi`, `log` | what a guest sees and says |
//! | `planner` | the planner process |

mod admission;
mod bindings;
mod cache;
mod clock;
mod convert;
mod engine;
mod error;
mod guest;
mod host;
mod imports;
mod instance;
mod interrupt;
mod log;
pub mod planner;
mod wasi;

pub use engine::{Runtime, RuntimeConfig};
pub use error::{Error, Frames, GUEST_TEXT_BYTES_MAX, GuestError};
pub use guest::{Guest, Module};
pub use host::{
    Entries, GuestEnv, HostError, Level, Limits, OpenRequest, OperatorState, PlanRequest, Progress,
    Rejected, TaskHost,
};
pub use interrupt::{InterruptHandle, Interruption};
