//! tidemill-worker.
