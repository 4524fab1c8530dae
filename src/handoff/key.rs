//! What is given to whoever hands off a key.

use std::fmt;

use super::HandoffToken;
use crate::key::KeyGrant;

/// A key that was handed off, with what it is claimed with: the one time that it can be had.
#[derive(Clone)]
#[must_use = "what the key is claimed with can't be had again"]
pub struct HandedOff {
    token: HandoffToken,
    grant: KeyGrant,
}

impl HandedOff {
    pub(crate) fn new(token: HandoffToken, grant: KeyGrant) -> Self {
        Self { token, grant }
    }

    /// What the key is claimed with, to be handed to whom the key is for.
    #[must_use]
    pub fn token(&self) -> &HandoffToken {
        &self.token
    }

    /// What was stored.
    #[must_use]
    pub fn grant(&self) -> &KeyGrant {
        &self.grant
    }

    /// The token and the grant.
    #[must_use]
    pub fn into_parts(self) -> (HandoffToken, KeyGrant) {
        (self.token, self.grant)
    }
}

/// Doesn't show the token.
impl fmt::Debug for HandedOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedOff")
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
