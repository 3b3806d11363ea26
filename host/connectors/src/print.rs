//! `print`: a sink that writes each value on a line of the process's standard output.
//!
//! | option | meaning |
//! |---|---|
//! | `prefix` | put before each line, followed by `> `; with several subtasks `prefix:N> ` |
//! | `stderr` | `true`: standard error instead |
//!
//! A batch is written at once, so that lines of several subtasks never mix. A null value is
//! written as `null`.

use std::{
    fmt,
    io::{self, Write as _},
    sync::Arc,
};

use async_trait::async_trait;
use tidemill_types::{Batch, CheckpointId, ConnectorConfig};

use crate::{ConnectorError, Sink, SinkContext, options::OptionReader};

/// Where printed lines go.
pub trait PrintOutput: Send + Sync {
    /// Writes whole lines.
    ///
    /// # Errors
    ///
    /// Whatever the stream behind it says.
    fn print(&self, cx: &SinkContext, stderr: bool, lines: &[u8]) -> io::Result<()>;
}

/// The standard streams of this process.
#[derive(Debug, Default)]
pub struct ProcessOutput;

impl PrintOutput for ProcessOutput {
    fn print(&self, _: &SinkContext, stderr: bool, lines: &[u8]) -> io::Result<()> {
        if stderr {
            return io::stderr().lock().write_all(lines);
        }
        let mut out = io::stdout().lock();
        out.write_all(lines)?;
        out.flush()
    }
}

/// The sink.
pub struct Print {
    output: Arc<dyn PrintOutput>,
    cx: SinkContext,
    prefix: String,
    stderr: bool,
    lines: Vec<u8>,
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Print")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

struct Options {
    prefix: String,
    stderr: bool,
}

fn read(config: &ConnectorConfig) -> Result<Options, ConnectorError> {
    let mut reader = OptionReader::new("print", &config.options);
    let options = Options {
        prefix: reader.text("prefix").unwrap_or_default().to_owned(),
        stderr: reader.boolean("stderr")?.unwrap_or(false),
    };
    reader.finish()?;
    Ok(options)
}

/// Checks the options.
///
/// # Errors
///
/// [`ConnectorError::Invalid`] names what is wrong.
pub fn validate(config: &ConnectorConfig) -> Result<(), ConnectorError> {
    read(config).map(drop)
}

impl Print {
    /// Opens the sink.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] for wrong options.
    pub fn new(
        config: &ConnectorConfig,
        cx: SinkContext,
        output: Arc<dyn PrintOutput>,
    ) -> Result<Self, ConnectorError> {
        let Options { prefix, stderr } = read(config)?;
        let prefix = match (prefix.is_empty(), cx.parallelism > 1) {
            (true, false) => String::new(),
            (true, true) => format!("{}> ", cx.subtask + 1),
            (false, false) => format!("{prefix}> "),
            (false, true) => format!("{prefix}:{}> ", cx.subtask + 1),
        };
        Ok(Self {
            output,
            cx,
            prefix,
            stderr,
            lines: Vec::new(),
        })
    }
}

#[async_trait]
impl Sink for Print {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectorError> {
        self.lines.clear();
        for index in 0..batch.len() {
            self.lines.extend_from_slice(self.prefix.as_bytes());
            self.lines
                .extend_from_slice(batch.values.get(index).unwrap_or(b"null"));
            self.lines.push(b'\n');
        }
        self.output
            .print(&self.cx, self.stderr, &self.lines)
            .map_err(|e| ConnectorError::failed(format!("print: standard output is closed: {e}")))
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Vec<u8>>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn commit(&mut self, _: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}
