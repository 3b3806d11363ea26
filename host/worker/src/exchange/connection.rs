//! What both directions of a connection share: a queue of frames to write, and reading and writing
//! them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    task::{Poll, Waker},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tidemill_protocol::frame::{Frame, FrameError, PREFIX_BYTES, frame_length};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Frames are gathered up to this size before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// A write buffer that has grown beyond this is given back.
const WRITE_BYTES_KEPT: usize = 1 << 20;
/// At least so much is read at once.
const READ_BYTES: usize = 64 << 10;
/// Frames that may wait to be written. Credit bounds the frames with records long before; this
/// bounds what a peer that never reads can make us keep.
const OUTBOX_FRAMES_MAX: usize = 1 << 20;

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The network, or the peer's process.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer has closed the connection.
    #[error("it was closed by the peer")]
    Eof,
    /// The peer has sent something that is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer has broken the rules.
    #[error("the peer broke the exchange protocol: {0}")]
    Violation(String),
    /// The peer has said why it closes the connection.
    #[error("the peer closed it: {0}")]
    Goodbye(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// This worker stops.
    #[error("this worker is shutting down")]
    Shutdown,
}

impl ConnectionError {
    pub(super) fn violation(what: impl Into<String>) -> Self {
        Self::Violation(what.into())
    }

    /// Whether the peer should be told, because it is at fault and still there.
    pub(super) fn is_worth_telling(&self) -> bool {
        matches!(
            self,
            Self::Frame(_) | Self::Violation(_) | Self::Timeout(_) | Self::Shutdown
        )
    }
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Nothing is accepted any more; what is queued is still written.
    finished: bool,
    waker: Option<Waker>,
}

/// Frames that wait to be written to a connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
}

impl Outbox {
    /// Appends a frame; dropped when the connection is finished or its peer does not read.
    pub(super) fn push(&self, frame: Frame) {
        let mut queue = self.queue.lock();
        if queue.finished {
            return;
        }
        queue.frames.push_back(frame);
        if queue.frames.len() > OUTBOX_FRAMES_MAX {
            queue.finished = true;
            queue.frames.clear();
        }
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Accepts no more frames; the writer ends after the last one.
    pub(super) fn finish(&self) {
        let mut queue = self.queue.lock();
        queue.finished = true;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves all frames into the empty `frames`, waiting for the first. `false` at the end.
    async fn take(&self, frames: &mut VecDeque<Frame>) -> bool {
        poll_fn(|context| {
            let mut queue = self.queue.lock();
            if !queue.frames.is_empty() {
                std::mem::swap(&mut queue.frames, frames);
                return Poll::Ready(true);
            }
            if queue.finished {
                return Poll::Ready(false);
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Writes frames as they come, as many at a time as there are. Ends when the outbox does.
pub(super) async fn write_frames(
    stream: &mut (impl AsyncWrite + Unpin),
    outbox: &Outbox,
) -> Result<(), ConnectionError> {
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    let mut frames = VecDeque::new();
    while outbox.take(&mut frames).await {
        while let Some(frame) = frames.pop_front() {
            frame.encode(&mut buffer);
            drop(frame);
            if buffer.len() >= WRITE_BYTES || frames.is_empty() {
                stream.write_all(&buffer).await?;
                buffer.clear();
                if buffer.capacity() > WRITE_BYTES_KEPT {
                    buffer = Vec::with_capacity(WRITE_BYTES);
                }
            }
        }
    }
    stream.shutdown().await?;
    Ok(())
}

/// Writes a single frame.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
) -> Result<(), ConnectionError> {
    let mut buffer = Vec::new();
    frame.encode(&mut buffer);
    stream.write_all(&buffer).await?;
    Ok(())
}

/// Takes frames out of a stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
        }
    }

    /// The next frame, at most `max` bytes long. What a peer announces is not believed: the buffer
    /// grows as the bytes arrive.
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        max: usize,
    ) -> Result<Frame, ConnectionError> {
        loop {
            if let Some(frame) = self.buffered(max)? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ConnectionError::Eof);
            }
        }
    }

    fn buffered(&mut self, max: usize) -> Result<Option<Frame>, FrameError> {
        let Some(len) = frame_length(&self.buffer, max)? else {
            return Ok(None);
        };
        let Some(body) = self.buffer.get(PREFIX_BYTES..PREFIX_BYTES + len) else {
            return Ok(None);
        };
        let frame = Frame::decode(body)?;
        self.buffer.advance(PREFIX_BYTES + len);
        Ok(Some(frame))
    }
}
