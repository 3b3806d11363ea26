//! Frames of the data plane: what workers send each other over TCP.
//!
//! One worker dials another and sends records; the dialled one answers with credit. Many channels
//! share the connection, each with a number that the dialling side chose in its `Open`.
//!
//! ```text
//! frame   := length u32 | kind u8 | flags u8 | reserved u16 | channel u32 | payload
//! ```
//!
//! Everything is little endian; `length` counts what follows it. Columns travel as they are: lists
//! of numbers, then flat bytes, so that encoding and decoding are a few memory copies a batch.
//!
//! # Invariants
//!
//! 1. Decoding never panics and never allocates more than a small multiple of the frame's length,
//!    which is itself checked against a limit before anything is read.
//! 2. A decoded batch has passed [`Batch::validate`](tidemill_types::Batch::validate).
//! 3. A frame has no bytes left over; unknown kinds and flags are refused. New ones need a new
//!    [`VERSION`].

mod columns;
mod wire;

use std::sync::Arc;

use tidemill_types::{Attempt, Batch, CheckpointId, ColumnError, JobId, batch::BATCH_BYTES_MAX};

use wire::{Reader, put_bytes};

/// Opens every connection.
pub const MAGIC: u32 = u32::from_le_bytes(*b"TIDE");
/// The version of this format; both sides must speak the same.
pub const VERSION: u16 = 1;
/// The longest frame: the largest batch and what stands around it.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + (8 << 20);
/// The longest frame before a peer has introduced itself.
pub const HANDSHAKE_BYTES_MAX: usize = 4 << 10;
/// The longest text in a frame: reasons, names and locations.
pub const TEXT_BYTES_MAX: usize = 2 << 10;
/// Bytes of the length that precedes each frame.
pub const PREFIX_BYTES: usize = 4;
/// Set in the flags of a `Data` frame that is compressed with LZ4. Reserved: refused for now.
pub const FLAG_LZ4: u8 = 1;

/// Bytes between the length and the payload.
const HEAD_BYTES: usize = 8;

/// Names a channel everywhere: from one subtask to another, along one edge of the job graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// The job.
    pub job: JobId,
    /// The deployment of the job that it belongs to.
    pub attempt: Attempt,
    /// Position of the edge in the job graph.
    pub edge: u32,
    /// The upstream subtask.
    pub from: u32,
    /// The downstream subtask.
    pub to: u32,
}

impl std::fmt::Display for ChannelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            job,
            attempt,
            edge,
            from,
            to,
        } = self;
        write!(f, "{job}@{attempt} edge {edge} from subtask {from} to {to}")
    }
}

/// The mark that separates what belongs to a checkpoint from what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// When it was triggered, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// It is a savepoint: aligned and self-contained.
    pub savepoint: bool,
    /// The job stops after it.
    pub stop: bool,
    /// Before it stops, event time has been brought to its end.
    pub drain: bool,
    /// Where its files go: a directory URI.
    pub location: Arc<str>,
}

/// What the dialling side says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The worker that dials.
    pub worker: String,
    /// Where it listens itself, for messages.
    pub address: String,
    /// The secret that workers of a cluster share; empty if there is none.
    pub token: Vec<u8>,
}

/// One message on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First frame of the dialling side.
    Hello(Hello),
    /// First frame of the other side: go ahead.
    Welcome {
        /// The worker that was dialled.
        worker: String,
    },
    /// Instead of a welcome, or as last frame of a connection: why it is closed.
    Goodbye {
        /// For people.
        reason: String,
    },
    /// Downstream: announces a channel. Nothing may be sent on it before `Opened`.
    Open {
        /// The number it will have on this connection.
        channel: u32,
        /// Which channel it is.
        id: ChannelId,
    },
    /// Upstream: the receiver is there.
    Opened {
        /// The channel.
        channel: u32,
        /// How many bytes may be under way.
        capacity: u32,
    },
    /// Upstream: elements have been taken from the channel.
    Credit {
        /// The channel.
        channel: u32,
        /// The cost of the batches taken.
        bytes: u32,
        /// How many other elements were taken.
        controls: u32,
    },
    /// Either way: the channel ends before its `End`.
    Close {
        /// The channel.
        channel: u32,
        /// For people.
        reason: String,
    },
    /// Downstream: records.
    Data {
        /// The channel.
        channel: u32,
        /// The records.
        batch: Batch,
    },
    /// Downstream: a watermark.
    Watermark {
        /// The channel.
        channel: u32,
        /// The watermark.
        watermark: i64,
    },
    /// Downstream: the channel starts or stops to hold back the watermark.
    WatermarkStatus {
        /// The channel.
        channel: u32,
        /// Whether it is idle from now on.
        idle: bool,
    },
    /// Downstream: a barrier.
    Barrier {
        /// The channel.
        channel: u32,
        /// The barrier.
        barrier: Barrier,
    },
    /// Downstream: nothing follows on this channel.
    End {
        /// The channel.
        channel: u32,
    },
}

/// Why bytes from a peer are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is longer than allowed.
    #[error("a frame of {len} bytes; at most {max} are allowed")]
    TooLong {
        /// Its announced length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It ends before its content does.
    #[error("a frame ends within its {field}")]
    Truncated {
        /// What is cut off.
        field: &'static str,
    },
    /// There is more than belongs to it.
    #[error("a frame has {bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A kind, flag or value that this version does not know.
    #[error("a frame has the unknown {field} {value}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A text is too long or not UTF-8.
    #[error("a frame's {field} is not UTF-8 text of at most {TEXT_BYTES_MAX} bytes")]
    Text {
        /// Which text.
        field: &'static str,
    },
    /// The peer does not speak this protocol, or another version of it.
    #[error(
        "the peer speaks {spoken}, this worker version {VERSION} of the exchange protocol; run the same version of tidemill on all workers"
    )]
    Version {
        /// What the peer speaks, in words.
        spoken: String,
    },
    /// Its columns contradict each other.
    #[error("a frame holds an invalid batch: {0}")]
    Batch(#[from] ColumnError),
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const GOODBYE: u8 = 3;
    pub(super) const OPEN: u8 = 4;
    pub(super) const OPENED: u8 = 5;
    pub(super) const CREDIT: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const DATA: u8 = 8;
    pub(super) const WATERMARK: u8 = 9;
    pub(super) const WATERMARK_STATUS: u8 = 10;
    pub(super) const BARRIER: u8 = 11;
    pub(super) const END: u8 = 12;
}

/// The length of the frame that `buffer` begins with, without its prefix; `None` if that is not
/// known yet.
///
/// # Errors
///
/// [`FrameError`] if it is longer than `max` or too short to be a frame.
pub fn frame_length(buffer: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(*prefix) as usize;
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    if len < HEAD_BYTES {
        return Err(FrameError::Truncated { field: "head" });
    }
    Ok(Some(len))
}

impl Frame {
    /// Appends the frame to `out`, with its length in front.
    ///
    /// Texts are shortened to [`TEXT_BYTES_MAX`] bytes.
    ///
    /// # Panics
    ///
    /// If a batch is so large that no peer would accept it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let (kind, channel) = self.head();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&channel.to_le_bytes());
        self.encode_payload(out);
        let len = out.len() - start - PREFIX_BYTES;
        assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes");
        let len = u32::try_from(len).expect("below the limit");
        out[start..start + PREFIX_BYTES].copy_from_slice(&len.to_le_bytes());
    }

    fn head(&self) -> (u8, u32) {
        match self {
            Self::Hello(_) => (kind::HELLO, 0),
            Self::Welcome { .. } => (kind::WELCOME, 0),
            Self::Goodbye { .. } => (kind::GOODBYE, 0),
            Self::Open { channel, .. } => (kind::OPEN, *channel),
            Self::Opened { channel, .. } => (kind::OPENED, *channel),
            Self::Credit { channel, .. } => (kind::CREDIT, *channel),
            Self::Close { channel, .. } => (kind::CLOSE, *channel),
            Self::Data { channel, .. } => (kind::DATA, *channel),
            Self::Watermark { channel, .. } => (kind::WATERMARK, *channel),
            Self::WatermarkStatus { channel, .. } => (kind::WATERMARK_STATUS, *channel),
            Self::Barrier { channel, .. } => (kind::BARRIER, *channel),
            Self::End { channel } => (kind::END, *channel),
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                out.extend_from_slice(&MAGIC.to_le_bytes());
                out.extend_from_slice(&VERSION.to_le_bytes());
                put_bytes(out, hello.worker.as_bytes());
                put_bytes(out, hello.address.as_bytes());
                put_bytes(out, &hello.token);
            }
            Self::Welcome { worker } => put_bytes(out, worker.as_bytes()),
            Self::Goodbye { reason } | Self::Close { reason, .. } => {
                put_bytes(
                    out,
                    &reason.as_bytes()[..reason.floor_char_boundary(TEXT_BYTES_MAX)],
                );
            }
            Self::Open { id, .. } => {
                out.extend_from_slice(&id.job.as_u128().to_le_bytes());
                for number in [id.attempt.0, id.edge, id.from, id.to] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
            Self::Opened { capacity, .. } => out.extend_from_slice(&capacity.to_le_bytes()),
            Self::Credit {
                bytes, controls, ..
            } => {
                out.extend_from_slice(&bytes.to_le_bytes());
                out.extend_from_slice(&controls.to_le_bytes());
            }
            Self::Data { batch, .. } => columns::put_batch(out, batch),
            Self::Watermark { watermark, .. } => out.extend_from_slice(&watermark.to_le_bytes()),
            Self::WatermarkStatus { idle, .. } => out.push(u8::from(*idle)),
            Self::Barrier { barrier, .. } => put_barrier(out, barrier),
            Self::End { .. } => {}
        }
    }

    /// Reads a frame from `bytes`: what follows its length, completely.
    ///
    /// # Errors
    ///
    /// [`FrameError`] says what is wrong with it; the connection is of no use any more.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("kind")?;
        let flags = reader.u8("flags")?;
        if flags != 0 {
            return Err(FrameError::Unknown {
                field: "flags",
                value: flags.into(),
            });
        }
        let reserved = reader.u16("reserved")?;
        if reserved != 0 {
            return Err(FrameError::Unknown {
                field: "reserved bits",
                value: reserved.into(),
            });
        }
        let channel = reader.u32("channel")?;
        let frame = Self::decode_payload(kind, channel, &mut reader)?;
        reader.finish()?;
        Ok(frame)
    }

    fn decode_payload(kind: u8, channel: u32, reader: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(match kind {
            kind::HELLO => Self::Hello(read_hello(reader)?),
            kind::WELCOME => Self::Welcome {
                worker: reader.text("worker")?.to_owned(),
            },
            kind::GOODBYE => Self::Goodbye {
                reason: reader.text("reason")?.to_owned(),
            },
            kind::OPEN => Self::Open {
                channel,
                id: read_channel_id(reader)?,
            },
            kind::OPENED => Self::Opened {
                channel,
                capacity: reader.u32("capacity")?,
            },
            kind::CREDIT => Self::Credit {
                channel,
                bytes: reader.u32("credit")?,
                controls: reader.u32("controls")?,
            },
            kind::CLOSE => Self::Close {
                channel,
                reason: reader.text("reason")?.to_owned(),
            },
            kind::DATA => Self::Data {
                channel,
                batch: columns::read_batch(reader)?,
            },
            kind::WATERMARK => Self::Watermark {
                channel,
                watermark: reader.i64("watermark")?,
            },
            kind::WATERMARK_STATUS => Self::WatermarkStatus {
                channel,
                idle: reader.bits("status", 1)? != 0,
            },
            kind::BARRIER => Self::Barrier {
                channel,
                barrier: read_barrier(reader)?,
            },
            kind::END => Self::End { channel },
            other => {
                return Err(FrameError::Unknown {
                    field: "kind",
                    value: other.into(),
                });
            }
        })
    }
}

fn read_hello(reader: &mut Reader<'_>) -> Result<Hello, FrameError> {
    if reader.u32("magic")? != MAGIC {
        return Err(FrameError::Version {
            spoken: "something else".to_owned(),
        });
    }
    let version = reader.u16("version")?;
    if version != VERSION {
        return Err(FrameError::Version {
            spoken: format!("version {version}"),
        });
    }
    Ok(Hello {
        worker: reader.text("worker")?.to_owned(),
        address: reader.text("address")?.to_owned(),
        token: reader.bytes("token")?.to_vec(),
    })
}

fn read_channel_id(reader: &mut Reader<'_>) -> Result<ChannelId, FrameError> {
    Ok(ChannelId {
        job: JobId::from_u128(reader.u128("job")?),
        attempt: Attempt(reader.u32("attempt")?),
        edge: reader.u32("edge")?,
        from: reader.u32("upstream subtask")?,
        to: reader.u32("downstream subtask")?,
    })
}

fn put_barrier(out: &mut Vec<u8>, barrier: &Barrier) {
    out.extend_from_slice(&barrier.checkpoint.0.to_le_bytes());
    out.extend_from_slice(&barrier.timestamp_ms.to_le_bytes());
    let bits = [barrier.savepoint, barrier.stop, barrier.drain];
    out.push(
        bits.iter()
            .enumerate()
            .map(|(i, &set)| u8::from(set) << i)
            .sum(),
    );
    put_bytes(out, barrier.location.as_bytes());
}

fn read_barrier(reader: &mut Reader<'_>) -> Result<Barrier, FrameError> {
    let checkpoint = CheckpointId(reader.u64("checkpoint")?);
    let timestamp_ms = reader.i64("timestamp")?;
    let bits = reader.bits("barrier flags", 0b111)?;
    Ok(Barrier {
        checkpoint,
        timestamp_ms,
        savepoint: bits & 1 != 0,
        stop: bits & 2 != 0,
        drain: bits & 4 != 0,
        location: reader.text("location")?.into(),
    })
}

#[cfg(test)]
mod tests;
