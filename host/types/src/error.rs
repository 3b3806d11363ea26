//! What a caller can do about an error, across crates.

/// The decision that an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It may go away by itself: try again, with back-off.
    Retry,
    /// Somebody newer has taken over: stop, and touch nothing.
    Fenced,
    /// The input was wrong and stays wrong: tell whoever sent it.
    Invalid,
    /// Stored data is not what was written: use another copy.
    Corrupt,
    /// The job's own code is at fault: fail the job.
    GuestFault,
    /// Tidemill is at fault.
    Bug,
}
