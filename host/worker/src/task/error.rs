//! Why a task ends other than by reaching the end of its input.

use std::fmt;

use tidemill_connectors::ConnectorError;
use tidemill_runtime::GuestError;
use tidemill_types::ErrorKind;

use crate::{exchange, modules};

/// A port number from a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port(pub(crate) u32);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a task ends. The text is what the job's exceptions show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The module cannot be had or does not compile.
    #[error(transparent)]
    Module(#[from] modules::Error),
    /// The guest failed; `operator` is the one at fault, or the whole chain.
    #[error("operator \"{operator}\" subtask {subtask} {source}")]
    Guest {
        /// Which operator.
        operator: String,
        /// Which subtask.
        subtask: u32,
        /// What happened.
        source: GuestError,
    },
    /// A record was rejected and the job's policy is to fail.
    #[error(
        "operator \"{operator}\" subtask {subtask} rejected a record{place}: {message} (set tidemill.rejected-records to skip to go on without such records)"
    )]
    Rejected {
        /// Which operator.
        operator: String,
        /// Which subtask.
        subtask: u32,
        /// Where the record came from, if known.
        place: String,
        /// The operator's words.
        message: String,
    },
    /// The module planned something else than at submission.
    #[error(
        "the module planned another graph on the worker than at submission; a job must plan the same graph from the same arguments ({0})"
    )]
    PlanDiffers(String),
    /// The guest emitted to a port that leads nowhere.
    #[error("the module emitted to port {0}, which it did not plan")]
    NoSuchPort(Port),
    /// A source failed.
    #[error("source \"{name}\": {source}")]
    Source {
        /// Which source.
        name: String,
        /// What happened.
        source: ConnectorError,
    },
    /// A sink failed.
    #[error("sink \"{name}\": {source}")]
    Sink {
        /// Which sink.
        name: String,
        /// What happened.
        source: ConnectorError,
    },
    /// An exchange failed.
    #[error(transparent)]
    Exchange(#[from] exchange::ExchangeError),
    /// The task at the other end of a channel has gone.
    #[error("a downstream task has gone")]
    Closed(#[from] exchange::Closed),
    /// State cannot be restored.
    #[error("cannot restore state from checkpoint {checkpoint}: {reason}")]
    Restore {
        /// The checkpoint.
        checkpoint: u64,
        /// What happened.
        reason: String,
    },
    /// Settings of the job contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// Tidemill itself is at fault.
    #[error("internal error: {0}")]
    Bug(String),
}

impl TaskError {
    /// Whether restarting the job cannot help.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Module(error) => error.is_permanent(),
            Self::Source { source, .. } | Self::Sink { source, .. } => {
                matches!(source.kind(), ErrorKind::Invalid | ErrorKind::Corrupt)
            }
            Self::PlanDiffers(_) | Self::NoSuchPort(_) | Self::Invalid(_) => true,
            Self::Cancelled
            | Self::Guest { .. }
            | Self::Rejected { .. }
            | Self::Exchange(_)
            | Self::Closed(_)
            | Self::Restore { .. }
            | Self::Bug(_) => false,
        }
    }

    /// Whether this is only what is seen of a failure elsewhere.
    pub(crate) fn is_consequence(&self) -> bool {
        match self {
            Self::Exchange(error) | Self::Closed(exchange::Closed(error)) => error.is_consequence(),
            Self::Cancelled => true,
            _ => false,
        }
    }
}
