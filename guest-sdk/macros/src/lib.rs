//! tidemill-macros.
