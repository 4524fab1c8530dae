//! One-time tokens: the tickets of one process, and what keys are claimed with.

mod key;
mod tokens;

pub use self::{
    key::HandedOff,
    tokens::{
        HandoffError, HandoffToken, HandoffTokenConfig, HandoffTokenStore, ParseHandoffTokenError,
    },
};
