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
}

impl PepperUsage {
    /// `keys` records name `pepper`, of which `working` aren't revoked or past their end.
    #[must_use]
    pub const fn new(pepper: Option<PepperId>, keys: u64, working: u64) -> Self {
        Self {
            pepper,
            keys,
            working,
        }
    }
}
