//! Which texts are tokens of ours.

use super::{ApiKeyToken, Brand, MalformedToken};

/// The tokens that a resolver takes for its own: those of one brand.
///
/// ```
/// use tower_api_key::{Brand, TokenFormat};
///
/// let format = TokenFormat::new(Brand::new("acme")?);
/// assert!(format.claims("acme.anything"));
/// assert!(!format.claims("eyJhbGciOiJIUzI1NiJ9.e30.c2ln"));
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
    pub fn claims(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
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
        let mut token = ApiKeyToken::unread();
        if self.read(text.as_ref(), &mut token) {
            Ok(token)
        } else {
            Err(MalformedToken(()))
        }
    }

    /// Reads a token in place; returns whether there is one.
    #[inline]
    pub(crate) fn read(&self, text: &[u8], token: &mut ApiKeyToken) -> bool {
        token.read(&self.brand, text).is_some()
    }

    /// Whether a token, which another format may have read, is one of these.
    pub(crate) fn is_of(&self, token: &ApiKeyToken) -> bool {
        self.claims(token.bytes())
    }

    pub(crate) fn brand(&self) -> &Brand {
        &self.brand
    }
}
