//! Which texts are tokens of ours.

use super::{ApiKeyToken, Brand, DigestAlgorithm, DigestFormat, DisplayPrefix, MalformedToken};
use crate::error::ConfigError;

/// The tokens that a resolver takes for its own: those of one brand, and opaque ones of other issuers where
/// their [formats](DigestFormat) are told.
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
    digests: Vec<DigestFormat>,
}

impl TokenFormat {
    /// Tokens that begin with `brand`.
    #[must_use]
    pub fn new(brand: Brand) -> Self {
        Self {
            brand,
            digests: Vec::new(),
        }
    }

    /// Takes the tokens of another issuer for its own, too. Of two formats that claim one text, either
    /// will do.
    ///
    /// # Errors
    ///
    /// [`ConfigError::DigestFormat`] where the tokens may begin with the brand and a dot, as do those
    /// that are made here: by their prefix, or by an alphabet with a dot.
    pub fn with_digests(mut self, format: DigestFormat) -> Result<Self, ConfigError> {
        if format.meets(&self.brand) {
            return Err(ConfigError::DigestFormat {
                problem: "has tokens that may begin with the brand and a dot, as new ones do",
            });
        }
        self.digests.push(format);
        Ok(self)
    }

    /// Whether the text is meant to be one of these tokens: it begins with the brand and a dot, well-formed
    /// or not, or has prefix, length and alphabet of another issuer's. What isn't is *foreign*: a JWT, a
    /// session id.
    #[must_use]
    pub fn claims(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        self.is_branded(text) || self.digest(text).is_some()
    }

    fn is_branded(&self, text: &[u8]) -> bool {
        text.strip_prefix(self.brand.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b'.'))
    }

    fn digest(&self, text: &[u8]) -> Option<&DigestFormat> {
        self.digests.iter().find(|format| format.claims(text))
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
            || (!self.digests.is_empty() && self.read_opaque(text, token))
    }

    #[cold]
    fn read_opaque(&self, text: &[u8], token: &mut ApiKeyToken) -> bool {
        let format = self.digest(text);
        format.is_some_and(|format| token.read_opaque(format, text).is_some())
    }

    /// Whether a token, which another format may have read, is one of these.
    pub(crate) fn is_of(&self, token: &ApiKeyToken) -> bool {
        match &token.digest {
            None => self.is_branded(token.bytes()),
            Some(_) => self.digest(token.bytes()).is_some(),
        }
    }

    pub(crate) fn has_digests(&self) -> bool {
        !self.digests.is_empty()
    }

    /// Returns what may be shown of a token of which no more than such a digest is known; nothing
    /// if no format has that algorithm.
    pub(crate) fn digest_prefix(&self, algorithm: DigestAlgorithm) -> Option<DisplayPrefix> {
        let mut formats = self.digests.iter();
        let mut next = || formats.find(|format| format.has(algorithm));
        let only = next().map(|first| match next() {
            None => first.prefix(),
            Some(_) => "",
        });
        only.map(|prefix| DisplayPrefix::starting(prefix.as_bytes()))
    }

    pub(crate) fn brand(&self) -> &Brand {
        &self.brand
    }
}
