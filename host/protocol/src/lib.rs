//! What coordinator and workers say to each other.
//!
//! [`control`] is the control plane, generated from `proto/control.proto`: gRPC, one stream per
//! worker. [`frame`] is the data plane between workers: length-prefixed frames over TCP.

pub mod control;
pub mod frame;

/// The version that both sides of a connection must share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
