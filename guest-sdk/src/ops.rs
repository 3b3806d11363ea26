//! The operators that handle one record after another.
//!
//! Each comes as a pair: a pipe that describes it and a collector that does it.

mod fan_out;
mod flat_map;
mod record;
mod timestamps;

pub use fan_out::{Boxed, Shared};
pub use flat_map::{FlatMap, Out};
pub use record::{Filter, FilterMap, Map, TryMap};
pub use timestamps::Timestamps;

/// What an operator is built on: the pipe before it, and its place in the vertex.
#[derive(Debug)]
pub struct Stage<P> {
    pub(crate) pipe: P,
    pub(crate) operator: u32,
}
