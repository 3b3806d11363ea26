//! Where checkpoints, savepoints, modules and files are kept: one kind of [`Location`] for every
//! store, opened from a URI.
//!
//! | scheme | store |
//! |---|---|
//! | `file://`, or an absolute path | the local file system; writes are synced to the disk |
//! | `s3://`, `s3a://` | Amazon S3 and everything that speaks its API (see [`s3`]) |
//! | `memory://name/` | this process's memory, for tests |
//!
//! # Invariants
//!
//! 1. A location never touches anything outside its prefix.
//! 2. An object appears whole or not at all, and is durable when `put` returns.
//! 3. [`Location::put_if_absent`] succeeds for exactly one of several writers. It is the only
//!    conditional write in use, since it works on every store.

pub mod error;
pub mod location;
pub mod open;
pub mod s3;

pub use error::StorageError;
pub use location::{Location, ObjectEntry};
