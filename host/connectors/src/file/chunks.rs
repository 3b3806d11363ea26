//! Reading a file line by line, a chunk ahead, off the task's thread.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use tokio::task::JoinHandle;

use crate::ConnectorError;

/// What is read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// The longest line.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The file and what was read of it; empty at its end.
type Chunk = io::Result<(File, Vec<u8>)>;

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Lines {
    name: String,
    /// What was read and not yet given out, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// No newline lies before this, so that long lines are not searched twice.
    searched: usize,
    /// The offset in the file of `buffer[start]`.
    position: u64,
    at_end: bool,
    /// The chunk that is being read. Kept here, so that waiting for it can be cancelled.
    reading: Option<JoinHandle<Chunk>>,
}

impl Lines {
    /// Begins to read at an offset.
    pub(super) fn open(name: &str, position: u64) -> Self {
        let path = name.to_owned();
        let reading = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            if length < position {
                let text = format!("it has {length} bytes and was read up to {position}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            file.seek(SeekFrom::Start(position))?;
            read_chunk(file)
        });
        Self {
            name: name.to_owned(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            position,
            at_end: false,
            reading: Some(reading),
        }
    }

    /// The offset of the next line.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// The next line that is in memory already.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let from = self.searched.max(self.start);
        let (end, next) = match memchr::memchr(b'\n', &self.buffer[from..]) {
            Some(newline) => (from + newline, from + newline + 1),
            None if self.at_end && self.start < self.buffer.len() => {
                (self.buffer.len(), self.buffer.len())
            }
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        let line = self.start..end;
        self.position += (next - self.start) as u64;
        self.start = next;
        self.searched = next;
        let line = &self.buffer[line];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Waits for more to be in memory; false at the end of the file.
    pub(super) async fn more(&mut self) -> Result<bool, ConnectorError> {
        let Some(reading) = &mut self.reading else {
            return Ok(false);
        };
        let read = reading.await;
        self.reading = None;
        let read = read.unwrap_or_else(|e| Err(io::Error::other(e)));
        let (file, chunk) = read.map_err(|e| self.failed(&e))?;
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if chunk.is_empty() {
            self.at_end = true;
            return Ok(!self.buffer.is_empty());
        }
        self.buffer.extend_from_slice(&chunk);
        if self.buffer.len() > LINE_BYTES_MAX + CHUNK_BYTES {
            return Err(ConnectorError::invalid(format!(
                "file source: {} has a line of more than {LINE_BYTES_MAX} bytes at offset {}",
                self.name, self.position
            )));
        }
        self.reading = Some(tokio::task::spawn_blocking(move || read_chunk(file)));
        Ok(true)
    }

    fn failed(&self, error: &io::Error) -> ConnectorError {
        let text = format!("file source: cannot read {}: {error}", self.name);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => ConnectorError::Lost(text),
            _ => ConnectorError::Failed(text),
        }
    }
}

fn read_chunk(mut file: File) -> Chunk {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    file.by_ref()
        .take(CHUNK_BYTES as u64)
        .read_to_end(&mut chunk)?;
    Ok((file, chunk))
}
