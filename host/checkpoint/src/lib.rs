//! tidemill-checkpoint.
