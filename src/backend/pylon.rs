//! Keys that `pylon` 0.3 has written.
