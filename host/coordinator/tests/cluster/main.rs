//! A coordinator with workers that only speak the protocol: what it does when they work, fail and
//! vanish, and what its API says about it.

#![expect(clippy::disallowed_methods, reason = "tests spawn as they like")]
#![expect(clippy::too_many_lines, reason = "lists of fields are long")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod fake;
mod jobs;
