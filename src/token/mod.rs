//! The plaintext of a key: how it looks, how it is made, and what of it is kept.

mod alphabet;
mod brand;
mod digest;
mod display;
mod format;
mod hash;
mod hex;
mod id;
mod mint;
mod pepper;
mod short;

use std::{fmt, str::FromStr};

use zeroize::Zeroizing;

#[cfg(all(test, not(shuttle)))]
pub(crate) use self::hash::HMACS;
pub(crate) use self::{alphabet::decode_16, hash::sha256, mint::random};
pub use self::{
    brand::Brand,
    digest::{DigestAlgorithm, DigestFormat, TokenAlphabet},
    display::{DisplayPrefix, ParseDisplayPrefixError},
    format::TokenFormat,
    hash::{ParseSecretHashError, SecretHash},
    id::{KeyId, LookupKey, ParseKeyIdError},
    pepper::{Pepper, PepperCheck, PepperId, Peppers, UnknownPepper},
};

use self::digest::Digest;

/// The length of a secret, in characters of base64url.
const SECRET_LEN: usize = 43;
const MAX_LEN: usize =
    Brand::MAX_LEN + 1 + KeyId::PREFIX.len() + KeyId::ENCODED_LEN + 1 + SECRET_LEN;

/// A token: the whole plaintext of a key, `pk.key_<id>.<secret>`. That of an older key may be one opaque
/// string, which says nothing of the key's id: see [`DigestFormat`].
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
    lookup_key: LookupKey,
    /// Of an opaque one.
    digest: Option<Digest>,
    /// An opaque one for which there is no place in `text`.
    long: Option<Zeroizing<Box<[u8]>>>,
}

impl ApiKeyToken {
    /// The key's public id. An opaque token doesn't tell it; the record of its key does.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        match self.digest {
            None => Some(KeyId::from_bytes(*self.lookup_key.as_bytes())),
            Some(_) => None,
        }
    }

    /// The public id of a token that was made here, and so is of the first kind.
    pub(crate) fn new_id(&self) -> KeyId {
        KeyId::from_bytes(*self.lookup_key.as_bytes())
    }

    /// What the key's record is found by.
    #[must_use]
    pub fn lookup_key(&self) -> LookupKey {
        self.lookup_key
    }

    /// The first 16 characters, which never reach into the secret; of an opaque token, no more than the
    /// prefix that all tokens of its format have (`*` where they have none).
    #[must_use]
    pub fn display_prefix(&self) -> DisplayPrefix {
        let public = match &self.digest {
            None => self.bytes(),
            Some(digest) => &self.bytes()[..digest.prefix_len()],
        };
        DisplayPrefix::starting(public)
    }

    /// The plaintext. Give it to its owner, over TLS, and keep it nowhere.
    #[must_use]
    pub fn expose(&self) -> &str {
        short::ascii(self.bytes())
    }

    /// The 43 characters after the second dot. Of an opaque token it means nothing.
    fn secret(&self) -> &[u8; SECRET_LEN] {
        self.short().last_chunk().unwrap_or(&[0; SECRET_LEN])
    }

    fn bytes(&self) -> &[u8] {
        match &self.long {
            None => self.short(),
            Some(long) => long,
        }
    }

    fn short(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    #[inline]
    fn keep(&mut self, bytes: &[u8]) -> Option<()> {
        if let Some(place) = self.text.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
            self.len = u8::try_from(bytes.len()).ok()?;
        } else {
            self.long = Some(Zeroizing::new(bytes.into()));
        }
        Some(())
    }

    /// Room for a token that is read in place: copies of it on their way would have to be wiped, too.
    pub(crate) fn unread() -> Self {
        Self {
            text: [0; MAX_LEN],
            len: 0,
            lookup_key: LookupKey::from_bytes([0; LookupKey::LEN]),
            digest: None,
            long: None,
        }
    }

    /// Becomes the token that `bytes` are, if they are one. Lengths come first, then the fixed parts,
    /// then the alphabets.
    #[inline]
    fn read(&mut self, brand: &Brand, bytes: &[u8]) -> Option<()> {
        const PREFIX: usize = KeyId::PREFIX.len();
        const ID: usize = KeyId::ENCODED_LEN;

        let rest_len = 1 + PREFIX + ID + 1 + SECRET_LEN;
        if bytes.len() != brand.as_bytes().len() + rest_len {
            return None;
        }
        let rest = bytes.strip_prefix(brand.as_bytes())?.strip_prefix(b".")?;
        let rest = rest.strip_prefix(KeyId::PREFIX.as_bytes())?;
        let (id, rest) = rest.split_first_chunk::<ID>()?;
        let secret: &[u8; SECRET_LEN] = rest.strip_prefix(b".")?.first_chunk()?;
        if !alphabet::is_base64url(secret) {
            return None;
        }
        self.lookup_key = KeyId::decode(id)?.lookup_key();
        self.text[..bytes.len()].copy_from_slice(bytes);
        self.len = u8::try_from(bytes.len()).ok()?;
        Some(())
    }
}

impl Drop for ApiKeyToken {
    fn drop(&mut self) {
        // Wide stores, and a barrier that keeps them: byte by byte it takes five times as long.
        self.text.fill(0);
        zeroize::optimization_barrier(&self.text);
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
#[error(
    "not a token of the form <brand>.key_<32 characters>.<43 characters>, or of another known form"
)]
pub struct MalformedToken(());
