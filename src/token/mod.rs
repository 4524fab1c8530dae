//! The plaintext of a key: how it looks, how it is made, and what of it is kept.

mod brand;
mod display;
mod format;
mod hash;
mod hex;
mod id;
mod mint;
mod pepper;
mod short;

use std::{fmt, str::FromStr};

use zeroize::Zeroize;

pub use self::{
    brand::Brand,
    display::{DisplayPrefix, ParseDisplayPrefixError},
    format::TokenFormat,
    hash::{ParseSecretHashError, SecretHash},
    id::{KeyId, LookupKey, ParseKeyIdError},
    pepper::{Pepper, PepperId, Peppers, UnknownPepper},
};

/// The length of a secret, in characters of base64url.
const SECRET_LEN: usize = 43;
const MAX_LEN: usize =
    Brand::MAX_LEN + 1 + KeyId::PREFIX.len() + KeyId::ENCODED_LEN + 1 + SECRET_LEN;

/// A token: the whole plaintext of a key, `pk.key_<id>.<secret>`.
///
/// Its owner sees it once; nothing stores or logs it. `Debug` shows the display prefix, and the
/// memory is wiped when the token is dropped.
///
/// ```
/// use tower_api_key::ApiKeyToken;
///
/// let token = ApiKeyToken::generate(&Default::default())?;
/// let same: ApiKeyToken = token.expose().parse()?;
/// assert_eq!(same.key_id(), token.key_id());
/// assert_eq!(token.expose().len(), 83);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ApiKeyToken {
    text: [u8; MAX_LEN],
    len: u8,
    id: KeyId,
}

impl ApiKeyToken {
    /// The key's public id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// What the key's record is found by.
    #[must_use]
    pub fn lookup_key(&self) -> LookupKey {
        self.id.lookup_key()
    }

    /// The first 16 characters, which never reach into the secret.
    #[must_use]
    pub fn display_prefix(&self) -> DisplayPrefix {
        DisplayPrefix::starting(self.bytes())
    }

    /// The plaintext. Give it to its owner, over TLS, and keep it nowhere.
    #[must_use]
    pub fn expose(&self) -> &str {
        short::ascii(self.bytes())
    }

    /// The 43 characters after the second dot.
    pub(crate) fn secret(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[bytes.len() - SECRET_LEN..]
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// Lengths come first, then the fixed parts, then the alphabets.
    fn read(brand: &Brand, bytes: &[u8]) -> Option<Self> {
        const PREFIX: usize = KeyId::PREFIX.len();
        const ID: usize = KeyId::ENCODED_LEN;

        let rest_len = 1 + PREFIX + ID + 1 + SECRET_LEN;
        if bytes.len() != brand.as_bytes().len() + rest_len {
            return None;
        }
        let rest = bytes.strip_prefix(brand.as_bytes())?.strip_prefix(b".")?;
        let rest = rest.strip_prefix(KeyId::PREFIX.as_bytes())?;
        let (id, rest) = rest.split_at(ID);
        let secret = rest.strip_prefix(b".")?;
        if !is_base64url(secret) {
            return None;
        }
        let id = KeyId::decode(id)?;
        let mut text = [0; MAX_LEN];
        text[..bytes.len()].copy_from_slice(bytes);
        Some(Self {
            text,
            len: u8::try_from(bytes.len()).ok()?,
            id,
        })
    }
}

/// Whether every byte is of the base64url alphabet. No table is indexed by a byte of the secret,
/// and every byte is looked at whatever the others are.
fn is_base64url(bytes: &[u8]) -> bool {
    let others = bytes.iter().map(|&byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        let sign = u8::from(byte == b'-') | u8::from(byte == b'_');
        (u8::from(letter) | u8::from(digit) | sign) ^ 1
    });
    others.fold(0, |any, other| any | other) == 0
}

impl Drop for ApiKeyToken {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

/// Shows no more than the display prefix.
impl fmt::Debug for ApiKeyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyToken({}..)", self.display_prefix())
    }
}

/// Reads a token of the default brand, `pk`; see [`TokenFormat::parse`] for others.
impl FromStr for ApiKeyToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        TokenFormat::default().parse(text)
    }
}

/// A text is not exactly one well-formed token. It doesn't repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of the form <brand>.key_<32 characters>.<43 characters>")]
pub struct MalformedToken(());

#[cfg(test)]
mod tests {
    use super::is_base64url;

    #[test]
    fn the_arithmetic_alphabet_is_base64url_for_every_byte() {
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            assert_eq!(is_base64url(&[b'a', byte, b'b']), expected, "{byte:#x}");
        }
    }
}
