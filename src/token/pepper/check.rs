//! Whether two instances have the same bytes under the id of a pepper.

use super::{Pepper, PepperId, SecretHash, hash};
use crate::token::ParseSecretHashError;

/// The check value of a pepper: HMAC-SHA256, under the pepper, of a text that no secret can be.
///
/// The backend keeps one for each pepper. An instance whose pepper has other bytes under the same id
/// is refused when its store is built, instead of refusing every key. `Debug` shows the id alone.
#[derive(Debug, Clone, Copy)]
pub struct PepperCheck {
    pepper: PepperId,
    value: SecretHash,
}

impl PepperCheck {
    /// The check value of the pepper `pepper`, as 64 hex digits.
    ///
    /// # Errors
    ///
    /// [`ParseSecretHashError`] if the text isn't 64 hex digits.
    pub fn from_hex(pepper: PepperId, text: &str) -> Result<Self, ParseSecretHashError> {
        let value = SecretHash::from_hex(pepper, text)?;
        Ok(Self { pepper, value })
    }

    pub(super) fn of(pepper: &Pepper) -> Self {
        let words = hash::pepper_check(&pepper.keyed, pepper.id());
        Self {
            pepper: *pepper.id(),
            value: SecretHash::hmac(*pepper.id(), words),
        }
    }

    /// Returns the pepper's id.
    #[must_use]
    pub fn pepper(&self) -> &PepperId {
        &self.pepper
    }

    /// Returns the value as 64 lowercase hex digits, for a database.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.value.to_hex()
    }

    /// Whether the other is the same value of the same pepper, in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.value.is_same(&other.value)
    }
}
