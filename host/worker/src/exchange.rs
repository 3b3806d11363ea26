//! The data plane: channels between subtasks, in one process or over TCP.
//!
//! An [`ExchangeService`] per worker hands out the two ends of a channel by its [`ChannelId`]: a
//! [`ChannelSender`] to the upstream subtask, a place in the [`InputGate`] of the downstream one.
//! Either end may come first. Ends in the same process share a queue and nothing is serialised; for
//! the others there is one TCP connection per ordered pair of workers, shared by all their channels.
//!
//! # Flow control
//!
//! A channel holds at most its capacity in bytes, counted from [`ChannelSender::send`] until
//! [`InputGate::next`] has taken the element; one batch may pass whatever its size when nothing is
//! under way. The receiver returns credit as elements are taken. Nothing is ever sent without
//! credit, so a connection's reader never waits for a slow task, and no channel holds up another.
//! Barriers, watermarks and the end of a channel keep their place among the batches but need no
//! credit: [`CONTROLS_MAX`] of them may be under way besides.
//!
//! # Invariants
//!
//! 1. Elements of a channel arrive in the order in which they were sent, each once, or the channel
//!    fails at both ends. Nothing is ever sent again: a new attempt starts from a checkpoint.
//! 2. What belongs to a released attempt is refused, whenever it arrives.
//! 3. Locks are taken in the order registry, connection, gate, window, and never across an await.

mod connection;
mod credit;
mod gate;
mod inbound;
mod lane;
mod outbound;
pub mod partition;
mod registry;
mod sender;
mod service;

use std::{sync::Arc, time::Duration};

use tidemill_types::{Batch, ColumnError, ErrorKind};

pub use gate::InputGate;
pub use partition::Partitioner;
pub use sender::{ChannelSender, TrySendError};
pub use service::ExchangeService;
pub use tidemill_protocol::frame::{Barrier, ChannelId};

/// Capacity of a channel unless the job says otherwise.
pub const DEFAULT_CAPACITY_BYTES: usize = 128 << 10;
/// How many barriers, watermarks and the like may be under way on a channel. Watermarks that wait
/// behind each other are merged, so that only a task that has stopped altogether gets there.
pub const CONTROLS_MAX: u32 = 256;
/// What a batch costs besides its bytes, so that many tiny ones do not pass for nothing.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// What travels on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// Records.
    Batch(Batch),
    /// Event time has come this far on this channel.
    Watermark(i64),
    /// The channel stops or starts to hold back event time.
    WatermarkStatus {
        /// Whether it is idle from now on.
        idle: bool,
    },
    /// What came before belongs to the checkpoint, what follows does not.
    Barrier(Barrier),
    /// Nothing follows.
    EndOfInput,
}

impl Element {
    /// What it takes of the channel's capacity; 0 for everything but batches.
    fn cost(&self) -> u32 {
        match self {
            Self::Batch(batch) => {
                u32::try_from(batch.byte_size().saturating_add(BATCH_OVERHEAD_BYTES))
                    .unwrap_or(u32::MAX)
            }
            Self::Watermark(_)
            | Self::WatermarkStatus { .. }
            | Self::Barrier(_)
            | Self::EndOfInput => 0,
        }
    }

    fn is_control(&self) -> bool {
        !matches!(self, Self::Batch(_))
    }
}

/// Settings of a worker's data plane.
#[derive(Debug, Clone)]
pub struct ExchangeConfig {
    /// A secret that all workers share; empty if there is none.
    pub token: Vec<u8>,
    /// How long a sender waits for its receiver to be deployed.
    pub open_timeout: Duration,
    /// How long dialling and introducing oneself may take.
    pub dial_timeout: Duration,
    /// How many workers may dial this one.
    pub connections_max: usize,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        Self {
            token: Vec::new(),
            open_timeout: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(10),
            connections_max: 4096,
        }
    }
}

/// Why a channel or a gate is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The worker at the other end died, or the network between.
    #[error("the connection to the worker at {address} was lost: {reason}")]
    PeerLost {
        /// Its data address.
        address: Arc<str>,
        /// What was noticed.
        reason: Arc<str>,
    },
    /// The receiver will not accept the channel, now or later.
    #[error("the receiver refuses channel {channel}: {reason}")]
    Refused {
        /// The channel.
        channel: ChannelId,
        /// Its reason.
        reason: Arc<str>,
    },
    /// The receiving task has ended before its input did.
    #[error("the receiver of channel {channel} is gone: {reason}")]
    ReceiverGone {
        /// The channel.
        channel: ChannelId,
        /// Its reason.
        reason: Arc<str>,
    },
    /// The sending task has ended without ending the channel.
    #[error("the sender of channel {channel} is gone: {reason}")]
    SenderGone {
        /// The channel.
        channel: ChannelId,
        /// Its reason.
        reason: Arc<str>,
    },
    /// The receiver was not deployed in time.
    #[error("the receiver of channel {channel} was not deployed within {waited:?}")]
    NotDeployed {
        /// The channel.
        channel: ChannelId,
        /// How long the sender waited.
        waited: Duration,
    },
    /// The attempt was released on this worker.
    #[error("the attempt that channel {channel} belongs to is over")]
    Released {
        /// The channel.
        channel: ChannelId,
    },
    /// Two tasks claim the same end of a channel.
    #[error("channel {channel} already has such an end on this worker")]
    Duplicate {
        /// The channel.
        channel: ChannelId,
    },
    /// Records that the job's own code made up contradict each other.
    #[error("the job emitted an invalid batch: {0}")]
    InvalidBatch(#[from] ColumnError),
    /// The channel, or all channels of the gate, have come to their end.
    #[error("nothing follows the end of input")]
    Ended,
}

/// What a sender gets when its channel cannot be used any more: why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Closed(#[from] pub ExchangeError);

impl ExchangeError {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PeerLost { .. }
            | Self::ReceiverGone { .. }
            | Self::SenderGone { .. }
            | Self::NotDeployed { .. } => ErrorKind::Retry,
            Self::Refused { .. } | Self::Released { .. } => ErrorKind::Fenced,
            Self::InvalidBatch(_) => ErrorKind::GuestFault,
            Self::Duplicate { .. } | Self::Ended => ErrorKind::Bug,
        }
    }

    /// Whether another task's failure is behind this one. It is better reported by that task; this
    /// one will be cancelled soon.
    #[must_use]
    pub fn is_consequence(&self) -> bool {
        matches!(
            self,
            Self::ReceiverGone { .. } | Self::SenderGone { .. } | Self::Released { .. }
        )
    }
}

#[cfg(test)]
mod tests;
