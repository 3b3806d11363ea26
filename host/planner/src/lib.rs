//! tidemill-planner.
