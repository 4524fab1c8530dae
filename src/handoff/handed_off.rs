//! What is given to whoever hands off a key.

use std::fmt;

use super::HandoffToken;
use crate::key::KeyGrant;

/// A key that was [handed off](crate::ApiKeyStore::hand_off): its grant, and the token that claims it, the one
/// time that it can be had.
#[derive(Clone)]
#[must_use = "the token that claims the key can't be had again"]
pub struct HandedOff {
    token: HandoffToken,
    grant: KeyGrant,
}

impl HandedOff {
    pub(crate) fn new(token: HandoffToken, grant: KeyGrant) -> Self {
        Self { token, grant }
    }

    /// The token that claims the key, to be handed to whom the key is for.
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
