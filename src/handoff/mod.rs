//! One-time tickets.

mod tokens;

pub use self::tokens::{HandoffError, HandoffToken, HandoffTokenConfig, HandoffTokenStore};
