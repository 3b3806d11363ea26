//! tidemill-state.
