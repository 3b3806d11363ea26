//! A sink that drops everything, for measuring what comes before it.

use crate::connectors::{Connector, builder};

builder!(
    /// See [`sink`].
    BlackholeSink
);

/// Drops all records.
pub fn sink() -> BlackholeSink {
    BlackholeSink(Connector::new("blackhole"))
}
