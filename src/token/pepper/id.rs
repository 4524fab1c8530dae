//! The names of peppers.

use std::{fmt, str::FromStr};

use super::super::short::ShortText;
use crate::error::ConfigError;

/// The name of a pepper, stored beside each hash: 1 to 15 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PepperId(ShortText<15>);

impl PepperId {
    pub(crate) const MAX_LEN: usize = 15;

    /// Checks and takes over `id`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperId`] unless it is 1 to 15 characters of `[A-Za-z0-9._-]`.
    pub fn new(id: &str) -> Result<Self, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ShortText::new(id, 1, allowed)
            .map(Self)
            .ok_or(ConfigError::PepperId { len: id.len() })
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for PepperId {
    type Err = ConfigError;

    fn from_str(id: &str) -> Result<Self, ConfigError> {
        Self::new(id)
    }
}

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
