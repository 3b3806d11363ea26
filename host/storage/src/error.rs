//! What can go wrong in a store, by what the caller can do about it.

use std::{error::Error as StdError, io};

use tidemill_types::ErrorKind;

/// An error of a store. The text names the operation and the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// There is no such object.
    #[error("{uri} does not exist")]
    NotFound {
        /// The object.
        uri: String,
    },
    /// Somebody else created the object before.
    #[error("{uri} exists already")]
    AlreadyExists {
        /// The object.
        uri: String,
    },
    /// The location or its settings are wrong, or access is refused: it will stay so.
    #[error("{0}")]
    Refused(String),
    /// The store failed or did not answer: it may come back.
    #[error("{0}")]
    Unavailable(String),
}

impl StorageError {
    /// What the caller can do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Refused(_) => ErrorKind::Invalid,
            Self::AlreadyExists { .. } => ErrorKind::Fenced,
            Self::Unavailable(_) => ErrorKind::Retry,
        }
    }

    /// Sorts an error of the store library. `action` is a verb: `read`, `write`, …
    pub(crate) fn sort(action: &str, uri: String, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::NotFound { uri },
            E::AlreadyExists { .. } => Self::AlreadyExists { uri },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::Refused(format!(
                "cannot {action} {uri}: access is denied: {}",
                root(error)
            )),
            E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => {
                Self::Refused(format!("cannot {action} {uri}: {}", root(error)))
            }
            _ if stays(error) => Self::Refused(format!("cannot {action} {uri}: {}", root(error))),
            _ => Self::Unavailable(format!("cannot {action} {uri}: {}", root(error))),
        }
    }
}

/// The causes of an error, from the outermost.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        (*error).source()
    })
}

/// The innermost cause, which says what happened.
fn root(error: &object_store::Error) -> String {
    causes(error)
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether a local error will not go away by itself.
fn stays(error: &object_store::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| {
            matches!(
                cause.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::ReadOnlyFilesystem
            )
        })
}
