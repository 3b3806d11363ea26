//! Errors of the coordinator itself; those of requests are mapped in `rest::error`.

/// Why the coordinator does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// An address is not acceptable.
    #[error(
        "{key} is \"{value}\", but without authentication only loopback addresses are allowed: \
         use 127.0.0.1, ::1 or localhost"
    )]
    NotLoopback {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A port cannot be listened on.
    #[error("cannot listen on {address} ({key}): {error}")]
    Bind {
        /// The setting.
        key: &'static str,
        /// Host and port.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The storage directory is not usable.
    #[error("the storage directory {path} (tidemill.storage.dir) cannot be used: {reason}")]
    Storage {
        /// Where it is.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A server broke.
    #[error("{what} is no longer served: {error}")]
    Serve {
        /// Which one.
        what: &'static str,
        /// Why.
        error: String,
    },
}
