//! tidemill-coordinator.
