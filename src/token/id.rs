//! The public half of a token, and what a record is found by.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{alphabet, short::ascii};

/// The public half of a key: `key_` and 32 characters of base64url. Safe to show and to log.
///
/// ```
/// use tower_api_key::KeyId;
///
/// let id: KeyId = "key_aDNI9m3ZnvZGXeMqoQkM7phGzOX2VJkc".parse()?;
/// assert_eq!(id.to_string(), "key_aDNI9m3ZnvZGXeMqoQkM7phGzOX2VJkc");
/// # Ok::<(), tower_api_key::ParseKeyIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// How many random bytes an id is.
    pub const LEN: usize = 24;
    pub(super) const PREFIX: &str = "key_";
    pub(super) const ENCODED_LEN: usize = 32;

    /// The id that is these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// What the record of this key is found by in a [`KeySource`](crate::KeySource).
    #[must_use]
    pub const fn lookup_key(&self) -> LookupKey {
        LookupKey(self.0)
    }

    /// The 32 characters after `key_`.
    pub(super) fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut text = [0; Self::ENCODED_LEN];
        let written = BASE64_URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        debug_assert_eq!(written, Ok(Self::ENCODED_LEN));
        text
    }

    #[inline]
    pub(super) fn decode(text: &[u8; Self::ENCODED_LEN]) -> Option<Self> {
        alphabet::decode(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        f.write_str(ascii(&self.encode()))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, ParseKeyIdError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(|id| Self::decode(id.as_bytes().try_into().ok()?))
            .ok_or(ParseKeyIdError(()))
    }
}

/// A text is not `key_` and 32 characters of base64url.
///
/// It doesn't repeat the text, which may have been a whole token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id is `key_` and 32 characters of [A-Za-z0-9_-]")]
pub struct ParseKeyIdError(());

/// The 24 bytes that a record is stored and found under.
///
/// For a token of the form `pk.key_<id>.<secret>` they are the bytes of its id, and for one that is an
/// [opaque string](crate::DigestFormat) the first bytes of its digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupKey([u8; Self::LEN]);

impl LookupKey {
    /// Its length in bytes.
    pub const LEN: usize = 24;

    /// The look-up key that is these bytes, as they stand in a backend's column.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a backend's column or index.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Doesn't show the bytes: they need not be those of a public id.
impl fmt::Debug for LookupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookupKey(..)")
    }
}
