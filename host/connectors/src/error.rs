//! What can go wrong in a connector, by what the caller can do about it.

use tidemill_types::ErrorKind;

/// An error of a source or a sink. The text names the connector, the thing, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorError {
    /// The options are wrong: whoever wrote the job must change them.
    #[error("{0}")]
    Invalid(String),
    /// The other side does not answer: it may come back.
    #[error("{0}")]
    Unreachable(String),
    /// Data that the job relies on is gone: going on would be silently wrong.
    #[error("{0}")]
    Lost(String),
    /// Reading or writing failed; starting again from the last checkpoint may help.
    #[error("{0}")]
    Failed(String),
}

impl ConnectorError {
    /// What the caller can do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unreachable(_) | Self::Failed(_) => ErrorKind::Retry,
            Self::Lost(_) => ErrorKind::Corrupt,
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self::Unreachable(text.into())
    }

    pub(crate) fn lost(text: impl Into<String>) -> Self {
        Self::Lost(text.into())
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}
