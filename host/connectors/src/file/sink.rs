//! The sink: parts that appear when they are safe.
//!
//! # Life of a part
//!
//! Open (hidden, growing) → closed (hidden, synced; at a size, an age or a barrier) → prepared
//! (listed in a checkpoint) → named (renamed, once that checkpoint is complete). Renaming is
//! repeatable: who restores a checkpoint names what it lists, whether or not it was named before.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_types::{Batch, CheckpointId, ConnectorConfig};
use tokio::time::Instant;

use super::path;
use crate::{ConnectorError, Sink, SinkContext, options::OptionReader};

/// Written to the file system at a time.
const BUFFER_BYTES: usize = 256 << 10;
const FILE_SIZE_DEFAULT: u64 = 128 << 20;
const INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct SinkOptions {
    folder: PathBuf,
    file_size: u64,
    interval: Duration,
    inactivity: Duration,
    prefix: String,
    suffix: String,
}

impl SinkOptions {
    pub(crate) fn read(config: &ConnectorConfig) -> Result<Self, ConnectorError> {
        let mut reader = OptionReader::new("file sink", &config.options);
        let options = Self {
            folder: path::read(&mut reader)?,
            file_size: reader
                .bytes("rolling.file-size")?
                .unwrap_or(FILE_SIZE_DEFAULT),
            interval: reader
                .duration("rolling.interval")?
                .unwrap_or(INTERVAL_DEFAULT),
            inactivity: reader
                .duration("rolling.inactivity")?
                .unwrap_or(INTERVAL_DEFAULT),
            prefix: reader.text("part-prefix").unwrap_or("part").to_owned(),
            suffix: reader.text("part-suffix").unwrap_or_default().to_owned(),
        };
        for (name, text) in [
            ("part-prefix", &options.prefix),
            ("part-suffix", &options.suffix),
        ] {
            if text.contains('/') || text.contains('\0') || text.len() > 100 {
                return Err(reader.invalid(&format!("`{name}` cannot be part of a file's name")));
            }
        }
        if options.prefix.is_empty() || options.prefix.starts_with('.') {
            return Err(reader.invalid("`part-prefix` must begin with something else than a dot"));
        }
        reader.finish()?;
        Ok(options)
    }

    /// Looks whether files can be written.
    pub(crate) async fn check(&self) -> Result<(), ConnectorError> {
        let folder = self.folder.clone();
        let probe = move || {
            fs::create_dir_all(&folder)?;
            let probe = folder.join(format!(".tidemill-probe-{}", std::process::id()));
            File::create(&probe)?;
            fs::remove_file(probe)
        };
        in_background(probe).await.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &io::Error) -> ConnectorError {
        let text = format!(
            "file sink: cannot write to {}: {error}",
            self.folder.display()
        );
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::ReadOnlyFilesystem => ConnectorError::Invalid(text),
            _ => ConnectorError::Failed(text),
        }
    }
}

/// A part that is closed, as a checkpoint lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Closed {
    folder: PathBuf,
    hidden: String,
    name: String,
}

impl Closed {
    /// A checkpoint may be started from wherever a user says, so what it lists may be forged:
    /// nothing but hidden files of this sink's own folder get another name in it.
    fn check(&self, folder: &Path) -> Result<(), ConnectorError> {
        let fine = self.folder == folder
            && self.hidden == hidden_name(&self.name)
            && !self.name.is_empty()
            && !self.name.starts_with('.')
            && !self.name.contains(['/', '\0']);
        if fine {
            return Ok(());
        }
        Err(ConnectorError::invalid(format!(
            "file sink: the checkpoint lists the part \"{}\" in {}, which is not one of the sink in {}; \
             a sink with parts that are not named yet must keep its `path`",
            self.name.escape_debug(),
            self.folder.display(),
            folder.display()
        )))
    }

    /// Gives the part its name, if it does not have it yet.
    fn publish(&self) -> io::Result<()> {
        let (from, to) = (self.folder.join(&self.hidden), self.folder.join(&self.name));
        match (from.exists(), to.exists()) {
            (true, false) => {
                fs::rename(&from, &to)?;
                File::open(&self.folder)?.sync_all()
            }
            (false, true) => Ok(()),
            (true, true) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists already", to.display()),
            )),
            (false, false) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} is gone before it was published", from.display()),
            )),
        }
    }
}

/// What a part is called until it gets its name.
fn hidden_name(name: &str) -> String {
    format!(".{name}.inprogress")
}

/// The part that grows.
#[derive(Debug)]
struct Open {
    part: Closed,
    file: Arc<File>,
    buffer: Vec<u8>,
    bytes: u64,
    began: Instant,
    written: Instant,
}

/// The sink.
#[derive(Debug)]
pub(crate) struct FileSink {
    options: SinkOptions,
    /// What distinguishes the parts of this subtask and attempt from all others.
    identity: String,
    next_part: u64,
    open: Option<Open>,
    /// Closed since the last barrier.
    closed: Vec<Closed>,
    /// Waiting for their checkpoints.
    prepared: VecDeque<(CheckpointId, Vec<Closed>)>,
    records: u64,
}

impl FileSink {
    pub(crate) async fn open(
        options: SinkOptions,
        cx: &SinkContext,
        restored: Vec<Vec<u8>>,
    ) -> Result<Self, ConnectorError> {
        let mut parts = Vec::with_capacity(restored.len());
        for committable in &restored {
            let part: Closed = serde_json::from_slice(committable).map_err(|e| {
                ConnectorError::lost(format!(
                    "file sink: the checkpoint lists a part that cannot be read: {e}"
                ))
            })?;
            part.check(&options.folder)?;
            parts.push(part);
        }
        let folder = options.folder.clone();
        let prepare = move || {
            fs::create_dir_all(&folder)?;
            parts.iter().try_for_each(Closed::publish)
        };
        in_background(prepare).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ConnectorError::lost(format!("file sink: {e}")),
            _ => options.failed(&e),
        })?;
        let job = format!("{:032x}", cx.job.as_u128());
        let sink = xxhash_rust::xxh3::xxh3_64(cx.sink_uid.as_bytes()) & 0xFFFF;
        let identity = format!("{}{sink:04x}-{}-{}", &job[..8], cx.attempt, cx.subtask);
        Ok(Self {
            options,
            identity,
            next_part: 0,
            open: None,
            closed: Vec::new(),
            prepared: VecDeque::new(),
            records: 0,
        })
    }

    fn begin(&mut self) -> Result<Open, ConnectorError> {
        let SinkOptions {
            prefix,
            suffix,
            folder,
            ..
        } = &self.options;
        let name = format!("{prefix}-{}-{}{suffix}", self.identity, self.next_part);
        let hidden = hidden_name(&name);
        self.next_part += 1;
        let path = folder.join(&hidden);
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.map_err(|e| self.options.failed(&e))?;
        let now = Instant::now();
        Ok(Open {
            part: Closed {
                folder: folder.clone(),
                hidden,
                name,
            },
            file: Arc::new(file),
            buffer: Vec::with_capacity(BUFFER_BYTES + 4096),
            bytes: 0,
            began: now,
            written: now,
        })
    }

    /// Writes the buffer to the file system.
    async fn flush(&mut self, sync: bool) -> Result<(), ConnectorError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let file = Arc::clone(&open.file);
        let buffer = std::mem::take(&mut open.buffer);
        let written = in_background(move || {
            (&*file).write_all(&buffer)?;
            if sync {
                file.sync_all()?;
            }
            Ok(buffer)
        });
        let mut buffer = written.await.map_err(|e| self.options.failed(&e))?;
        buffer.clear();
        open.buffer = buffer;
        Ok(())
    }

    /// Closes the part that grows.
    async fn roll(&mut self) -> Result<(), ConnectorError> {
        self.flush(true).await?;
        if let Some(open) = self.open.take() {
            self.closed.push(open.part);
        }
        Ok(())
    }

    /// Whether the part that grows has grown enough.
    fn is_due(&self, now: Instant) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.bytes >= self.options.file_size
                || now.duration_since(open.began) >= self.options.interval
                || now.duration_since(open.written) >= self.options.inactivity
        })
    }

    async fn publish(&self, parts: Vec<Closed>) -> Result<(), ConnectorError> {
        let publish = move || parts.iter().try_for_each(Closed::publish);
        in_background(publish).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ConnectorError::lost(format!("file sink: {e}")),
            _ => self.options.failed(&e),
        })
    }
}

/// Runs file operations off the task's thread.
async fn in_background<T: Send + 'static>(
    action: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(action)
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectorError> {
        let now = Instant::now();
        if self.is_due(now) {
            self.roll().await?;
        }
        for index in 0..batch.len() {
            if self.open.is_none() {
                self.open = Some(self.begin()?);
            }
            let open = self.open.as_mut().expect("it was just opened");
            let value = batch.values.get(index).unwrap_or_default();
            open.buffer.extend_from_slice(value);
            open.buffer.push(b'\n');
            open.bytes += value.len() as u64 + 1;
            open.written = now;
            let (full, large) = (
                open.buffer.len() >= BUFFER_BYTES,
                open.bytes >= self.options.file_size,
            );
            if large {
                self.roll().await?;
            } else if full {
                self.flush(false).await?;
            }
        }
        self.records += batch.len() as u64;
        Ok(())
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<Vec<u8>>, ConnectorError> {
        self.roll().await?;
        let closed = std::mem::take(&mut self.closed);
        self.prepared.push_back((checkpoint, closed));
        // Also what earlier checkpoints were to name: should one of them have been given up, this
        // one alone brings its parts over a crash.
        let waiting = self.prepared.iter().flat_map(|(_, parts)| parts);
        let committables = waiting.map(|part| {
            serde_json::to_vec(part).map_err(|e| {
                ConnectorError::failed(format!("file sink: the path cannot be kept: {e}"))
            })
        });
        committables.collect()
    }

    async fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), ConnectorError> {
        while self
            .prepared
            .front()
            .is_some_and(|(id, _)| *id <= checkpoint)
        {
            if let Some((_, parts)) = self.prepared.pop_front() {
                self.publish(parts).await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ConnectorError> {
        self.roll().await?;
        let prepared = self.prepared.drain(..).flat_map(|(_, parts)| parts);
        let parts = prepared.chain(std::mem::take(&mut self.closed)).collect();
        self.publish(parts).await
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics")]
    fn metrics(&self) -> Vec<(String, f64)> {
        vec![("numRecordsSend".to_owned(), self.records as f64)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_renames_nothing_but_parts_of_the_sink() {
        let part = |folder: &str, hidden: &str, name: &str| Closed {
            folder: folder.into(),
            hidden: hidden.into(),
            name: name.into(),
        };
        let check = |part: Closed| part.check(Path::new("/out"));
        assert!(check(part("/out", ".part-0.inprogress", "part-0")).is_ok());
        for forged in [
            part("/home/user", ".part-0.inprogress", "part-0"),
            part("/out", "../secret", "part-0"),
            part("/out", ".part-1.inprogress", "part-0"),
            part("/out", ".../x.inprogress", "../x"),
            part("/out", "..bashrc.inprogress", ".bashrc"),
            part("/out", "..inprogress", ""),
        ] {
            assert!(check(forged.clone()).is_err(), "{forged:?}");
        }
    }
}
