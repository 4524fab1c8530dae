//! One-time tickets.

mod key;
mod tokens;

pub use self::{
    key::HandedOff,
    tokens::{
        HandoffError, HandoffToken, HandoffTokenConfig, HandoffTokenStore, ParseHandoffTokenError,
    },
};
