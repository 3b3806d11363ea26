//! A sink that prints records on the worker's standard output.

use crate::connectors::{Connector, builder};

builder!(
    /// See [`sink`].
    PrintSink
);

/// Prints each record's value as a line.
pub fn sink() -> PrintSink {
    PrintSink(Connector::new("print"))
}

impl PrintSink {
    /// Puts this before each line.
    pub fn prefix(self, prefix: &str) -> Self {
        self.option("prefix", prefix)
    }

    /// Prints on standard error instead.
    pub fn stderr(self) -> Self {
        self.option("stderr", true)
    }
}
