//! One-time tokens: the tickets of one process, and what keys are claimed with.

mod handed_off;
mod tokens;

pub use self::{
    handed_off::HandedOff,
    tokens::{
        HandoffError, HandoffToken, HandoffTokenConfig, HandoffTokenStore, ParseHandoffTokenError,
    },
};
