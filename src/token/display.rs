//! What of a token may be shown.

use std::{fmt, str::FromStr};

use super::{
    Brand, KeyId,
    short::{ShortText, ascii},
};

/// The first 16 characters of a token, by which its owner recognizes it in a list. 1 to 16 visible characters
/// of ASCII.
///
/// Of a token that is one [opaque string](crate::DigestFormat) it is the prefix that all of them have, or
/// what was said when the key was imported: the first 16 characters would be a part of the secret.
///
/// ```
/// use tower_api_key::DisplayPrefix;
///
/// let stored: DisplayPrefix = "pk.key_aDNI9m3Zn".parse()?;
/// assert_eq!(stored.as_str(), "pk.key_aDNI9m3Zn");
/// # Ok::<(), tower_api_key::ParseDisplayPrefixError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DisplayPrefix(ShortText<{ Self::MAX_LEN }>);

impl DisplayPrefix {
    pub(super) const MAX_LEN: usize = 16;

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

    /// The beginning of `public`; a star where nothing may be shown.
    pub(super) fn starting(public: &[u8]) -> Self {
        let shown = match public {
            [] => b"*",
            public => &public[..public.len().min(Self::MAX_LEN)],
        };
        let shown = ShortText::new(ascii(shown), 1, |byte| byte.is_ascii_graphic());
        Self(shown.expect("1 to 16 visible characters"))
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Reads what was stored: 1 to 16 visible ASCII characters.
impl FromStr for DisplayPrefix {
    type Err = ParseDisplayPrefixError;

    fn from_str(text: &str) -> Result<Self, ParseDisplayPrefixError> {
        ShortText::new(text, 1, |byte| byte.is_ascii_graphic())
            .map(Self)
            .ok_or(ParseDisplayPrefixError(()))
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

/// A text is not 1 to 16 visible ASCII characters. It doesn't repeat the text, which may have been a
/// whole token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a display prefix is 1 to 16 visible ASCII characters")]
pub struct ParseDisplayPrefixError(());
