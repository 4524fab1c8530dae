//! The same as events of `tracing`.
