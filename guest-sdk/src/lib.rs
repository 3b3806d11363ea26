//! tidemill.
pub mod bindings;
