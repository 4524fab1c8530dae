//! How many keys need a pepper.

use crate::token::PepperId;

/// How many keys a pepper has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PepperUsage {
    /// The pepper; none for keys of which a digest is kept.
    pub pepper: Option<PepperId>,
    /// How many records name it.
    pub keys: u64,
    /// How many of them are neither revoked nor past their [end](crate::ApiKey::ends_at).
    pub working: u64,
    /// What this instance knows of the pepper. A backend says nothing here.
    pub status: Option<PepperStatus>,
}

/// What an instance knows of a pepper that stored keys are under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PepperStatus {
    /// It has the bytes that the keys were hashed with.
    Verified,
    /// It has a pepper with this id, and no check value was stored yet to compare it with: the first
    /// verification of a key under it stores one. A [weak](crate::Pepper::weak_for_import) pepper
    /// never has one.
    Unverified,
    /// It has a pepper with this id that has other bytes: it refuses the keys.
    Mismatch,
    /// It has no pepper with this id: it answers 503 for the keys.
    Missing,
}

impl PepperUsage {
    /// `keys` records name `pepper`, of which `working` aren't revoked or past their end.
    #[must_use]
    pub const fn new(pepper: Option<PepperId>, keys: u64, working: u64) -> Self {
        Self {
            pepper,
            keys,
            working,
            status: None,
        }
    }
}
