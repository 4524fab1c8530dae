//! What of a token may be shown.

use std::{fmt, str::FromStr};

use super::{Brand, KeyId, short::ascii};

/// The first 16 characters of a token, by which its owner recognizes it in a list.
///
/// ```
/// use tower_api_key::DisplayPrefix;
///
/// let stored: DisplayPrefix = "pk.key_aDNI9m3Zn".parse()?;
/// assert_eq!(stored.as_str(), "pk.key_aDNI9m3Zn");
/// # Ok::<(), tower_api_key::ParseDisplayPrefixError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DisplayPrefix([u8; Self::LEN]);

impl DisplayPrefix {
    const LEN: usize = 16;

    /// That of a token of `brand` with this id.
    #[must_use]
    pub fn of(brand: &Brand, id: &KeyId) -> Self {
        let public = [
            brand.as_bytes(),
            b".",
            KeyId::PREFIX.as_bytes(),
            &id.encode(),
        ];
        Self::starting(&public.concat())
    }

    /// The beginning of `token`, which is longer.
    pub(super) fn starting(token: &[u8]) -> Self {
        let mut prefix = [0; Self::LEN];
        prefix.copy_from_slice(&token[..Self::LEN]);
        Self(prefix)
    }

    /// The 16 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

/// Reads what was stored: exactly 16 visible ASCII characters.
impl FromStr for DisplayPrefix {
    type Err = ParseDisplayPrefixError;

    fn from_str(text: &str) -> Result<Self, ParseDisplayPrefixError> {
        match text.as_bytes().try_into() {
            Ok(prefix) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(prefix)),
            _ => Err(ParseDisplayPrefixError(())),
        }
    }
}

impl fmt::Display for DisplayPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DisplayPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A text is not 16 visible ASCII characters. It doesn't repeat the text, which may have been a
/// whole token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a display prefix is 16 visible ASCII characters")]
pub struct ParseDisplayPrefixError(());
