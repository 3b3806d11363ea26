//! Frames of the data plane.
