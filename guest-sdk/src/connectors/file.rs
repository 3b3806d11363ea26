//! Files of lines.

use std::time::Duration;

use crate::connectors::{Connector, builder, duration};

builder!(
    /// See [`source`].
    FileSource
);
builder!(
    /// See [`sink`].
    FileSink
);

/// Reads the lines of a file, or of the files in a folder. The path may be a URL.
pub fn source(path: &str) -> FileSource {
    FileSource(Connector::new("file")).option("path", path)
}

/// Writes lines into part files in a folder. The path may be a URL.
pub fn sink(path: &str) -> FileSink {
    FileSink(Connector::new("file")).option("path", path)
}

impl FileSource {
    /// Whether folders within the folder are read too.
    pub fn recursive(self, recursive: bool) -> Self {
        self.option("recursive", recursive)
    }

    /// Looks for new files every `interval`, and so never ends.
    pub fn monitor(self, interval: Duration) -> Self {
        self.option("monitor-interval", duration(interval))
    }
}

impl FileSink {
    /// Begins a new part when one has this size.
    pub fn roll_at_bytes(self, bytes: u64) -> Self {
        self.option("rolling.file-size", bytes)
    }

    /// Begins a new part when one is this old.
    pub fn roll_after(self, interval: Duration) -> Self {
        self.option("rolling.interval", duration(interval))
    }

    /// Begins a new part when nothing was written for so long.
    pub fn roll_when_inactive(self, interval: Duration) -> Self {
        self.option("rolling.inactivity", duration(interval))
    }

    /// How the names of parts begin.
    pub fn part_prefix(self, prefix: &str) -> Self {
        self.option("part-prefix", prefix)
    }

    /// How the names of parts end.
    pub fn part_suffix(self, suffix: &str) -> Self {
        self.option("part-suffix", suffix)
    }
}
