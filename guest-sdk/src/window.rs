//! Windows: stretches of time over which the values of a key are put together.
//!
//! Their semantics are Flink's: a window is `[start, end)`; it fires when the watermark (or the
//! clock) reaches its last millisecond, `end - 1`, which is also the timestamp of what comes out;
//! a record whose windows have all fired is late, is dropped and counted.

mod aggregate;
mod assigner;
mod combine;
mod operator;

pub use aggregate::{Aggregate, Count, Max, Min, Reduce, Sum};
pub use assigner::{Assigner, Tumbling, Window};
pub use operator::WindowedStream;
