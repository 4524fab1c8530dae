//! Which texts are tokens of ours.

use std::fmt;

use super::{ApiKeyToken, MalformedToken};
use crate::error::ConfigError;

/// What tokens begin with: `pk`, unless a store says otherwise. 2 to 16 characters of `[a-z0-9]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Brand {
    text: [u8; Self::MAX_LEN],
    len: u8,
}

impl Brand {
    pub(super) const MAX_LEN: usize = 16;

    /// Checks and takes over `brand`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Brand`] unless it is 2 to 16 characters of `[a-z0-9]`.
    pub fn new(brand: &str) -> Result<Self, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut text = [0; Self::MAX_LEN];
        match (u8::try_from(brand.len()), text.get_mut(..brand.len())) {
            (Ok(len), Some(space)) if len >= 2 && brand.bytes().all(allowed) => {
                space.copy_from_slice(brand.as_bytes());
                Ok(Self { text, len })
            }
            _ => Err(ConfigError::Brand(brand.to_owned())),
        }
    }

    /// The text of the brand.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

impl Default for Brand {
    fn default() -> Self {
        let mut text = [0; Self::MAX_LEN];
        text[0] = b'p';
        text[1] = b'k';
        Self { text, len: 2 }
    }
}

impl fmt::Debug for Brand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Brand({})", self.as_str())
    }
}

/// The tokens that a resolver takes for its own: those of one brand.
///
/// ```
/// use tower_api_key::{Brand, TokenFormat};
///
/// let format = TokenFormat::new(Brand::new("acme")?);
/// assert!(format.claims(b"acme.anything"));
/// assert!(!format.claims(b"eyJhbGciOiJIUzI1NiJ9.e30.c2ln"));
/// # Ok::<(), tower_api_key::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenFormat {
    brand: Brand,
}

impl TokenFormat {
    /// Tokens that begin with `brand`.
    #[must_use]
    pub fn new(brand: Brand) -> Self {
        Self { brand }
    }

    /// Whether the text is meant to be one of these tokens, well-formed or not. What isn't is
    /// *foreign*: a JWT, a session id.
    #[must_use]
    pub fn claims(&self, text: &[u8]) -> bool {
        text.strip_prefix(self.brand.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b'.'))
    }

    /// Reads a token.
    ///
    /// Takes bytes, since a header needn't be UTF-8.
    ///
    /// # Errors
    ///
    /// [`MalformedToken`] where the text is anything but exactly one well-formed token.
    pub fn parse(&self, text: impl AsRef<[u8]>) -> Result<ApiKeyToken, MalformedToken> {
        ApiKeyToken::read(&self.brand, text.as_ref()).ok_or(MalformedToken(()))
    }

    pub(crate) fn brand(&self) -> &Brand {
        &self.brand
    }
}
