//! What tokens begin with.

use std::{fmt, str::FromStr};

use super::short::ShortText;
use crate::error::ConfigError;

/// What tokens begin with: `pk`, unless a store says otherwise. 2 to 16 characters of `[a-z0-9]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Brand(ShortText<{ Self::MAX_LEN }>);

impl Brand {
    pub(super) const MAX_LEN: usize = 16;

    /// Checks and takes over `brand`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Brand`] unless it is 2 to 16 characters of `[a-z0-9]`.
    pub fn new(brand: &str) -> Result<Self, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        ShortText::new(brand, 2, allowed)
            .map(Self)
            .ok_or_else(|| ConfigError::Brand(brand.to_owned()))
    }

    /// The text of the brand.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Default for Brand {
    fn default() -> Self {
        let pk = ShortText::new("pk", 2, |_| true);
        Self(pk.expect("two bytes fit into sixteen"))
    }
}

impl FromStr for Brand {
    type Err = ConfigError;

    fn from_str(brand: &str) -> Result<Self, ConfigError> {
        Self::new(brand)
    }
}

impl fmt::Display for Brand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Brand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
