//! Bounds what guests write: log lines and standard output.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::clock::Moment;

/// The longest line.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 10;
/// How much standard output is kept between two looks at it.
const PIPE_BYTES_MAX: usize = 64 << 10;

/// Lets so many bytes per second pass and counts the lines that it holds back.
#[derive(Debug)]
pub(crate) struct Gate {
    per_second: usize,
    left: usize,
    filled_at: Moment,
    dropped: u64,
}

impl Gate {
    pub(crate) const fn new(per_second: usize, at: Moment) -> Self {
        Self {
            per_second,
            left: per_second,
            filled_at: at,
            dropped: 0,
        }
    }

    /// Whether a line may pass; if so, how many were held back before it.
    pub(crate) fn admit(&mut self, bytes: usize, at: Moment) -> Option<u64> {
        if at.saturating_duration_since(self.filled_at) >= Duration::from_secs(1) {
            self.filled_at = at;
            self.left = self.per_second;
        }
        if bytes > self.left {
            self.dropped += 1;
            return None;
        }
        self.left -= bytes;
        Some(std::mem::take(&mut self.dropped))
    }

    pub(crate) const fn count_dropped(&mut self, lines: u64) {
        self.dropped += lines;
    }
}

/// Standard output and standard error of a guest, until the next look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Piped>>);

#[derive(Debug, Default)]
struct Piped {
    bytes: Vec<u8>,
    lost_lines: u64,
}

impl Pipe {
    /// The complete lines so far (everything, if `all`), and how many were lost.
    pub(crate) fn take_lines(&self, all: bool) -> (Vec<String>, u64) {
        let mut piped = self.0.lock();
        let complete = piped
            .bytes
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |last| last + 1);
        let end = if all { piped.bytes.len() } else { complete };
        let lines = piped.bytes[..end]
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        piped.bytes.drain(..end);
        (lines, std::mem::take(&mut piped.lost_lines))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let piped = self.0.lock();
        piped.bytes.is_empty() && piped.lost_lines == 0
    }

    fn push(&self, bytes: &[u8]) {
        let mut piped = self.0.lock();
        let room = PIPE_BYTES_MAX - piped.bytes.len().min(PIPE_BYTES_MAX);
        let (kept, lost) = bytes.split_at(bytes.len().min(room));
        piped.bytes.extend_from_slice(kept);
        let lost = lost.iter().filter(|b| **b == b'\n').count();
        piped.lost_lines += lost as u64;
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which jobs are not given.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PIPE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[test]
    fn lines_beyond_the_rate_are_counted_and_reported_with_the_next() {
        let start = now();
        let mut gate = Gate::new(10, start);
        assert_eq!(gate.admit(8, start), Some(0));
        assert_eq!(gate.admit(8, start), None);
        assert_eq!(gate.admit(8, start), None);
        assert_eq!(gate.admit(8, start + Duration::from_secs(1)), Some(2));
    }

    #[test]
    fn output_is_cut_into_lines_and_bounded() {
        let pipe = Pipe::default();
        pipe.push(b"one\ntw");
        assert_eq!(pipe.take_lines(false), (vec!["one".to_owned()], 0));
        pipe.push(b"o");
        assert_eq!(pipe.take_lines(true), (vec!["two".to_owned()], 0));
        pipe.push(&b"x\n".repeat(PIPE_BYTES_MAX));
        let (lines, lost) = pipe.take_lines(true);
        assert_eq!(lines.len(), PIPE_BYTES_MAX / 2);
        assert_eq!(lost, (PIPE_BYTES_MAX - PIPE_BYTES_MAX / 2) as u64);
    }
}
