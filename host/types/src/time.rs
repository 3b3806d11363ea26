//! Points in event time, in milliseconds since the epoch.

/// A watermark: no record with a timestamp at or before it is expected any more.
pub type Watermark = i64;

/// The watermark before any is known.
pub const NO_WATERMARK: Watermark = i64::MIN;

/// The watermark of a stream that has ended.
pub const MAX_WATERMARK: Watermark = i64::MAX;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = i64::MIN;
