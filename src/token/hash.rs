//! What is kept of a secret, and how a presented one is compared with it.

use std::fmt;

use hmac::{
    block_api::HmacCore,
    digest::{
        Output,
        block_api::{Buffer, FixedOutputCore},
    },
};
use sha2::{Digest as _, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::{KeyId, LookupKey, PepperId, SECRET_LEN, hex};

/// What is stored of a secret: HMAC-SHA256 under a pepper, and which pepper it was. Of a token that
/// is one [opaque string](crate::DigestFormat), its SHA-256, or 32 bytes of its SHA-512.
///
/// An HMAC and not a password hash: a secret has 256 bits, and no guess at it is worth slowing down.
#[derive(Clone, Copy)]
pub struct SecretHash {
    /// None made a digest.
    pepper: Option<PepperId>,
    words: Words,
}

/// 32 bytes as four words, which `subtle` compares in a fifth of the time it needs for a slice.
pub(super) type Words = [u64; 4];

impl SecretHash {
    /// A hash as it is written in a database: 64 hex digits, and the id of its pepper.
    ///
    /// # Errors
    ///
    /// [`ParseSecretHashError`] where the text isn't 64 hex digits.
    pub fn from_hex(pepper: PepperId, text: &str) -> Result<Self, ParseSecretHashError> {
        Ok(Self::hmac(pepper, read(text)?))
    }

    /// SHA-256 of a whole token, as it is written in a database: 64 hex digits. A record with it is found
    /// under the first 24 bytes of it, and by the token alone.
    ///
    /// # Errors
    ///
    /// [`ParseSecretHashError`] where the text isn't 64 hex digits.
    pub fn from_digest_hex(text: &str) -> Result<Self, ParseSecretHashError> {
        Ok(Self::digest(read(text)?))
    }

    /// SHA-512 of a whole token, as it is written in a database: 128 hex digits. The first 32 bytes
    /// are kept, and [`to_hex`](Self::to_hex) gives those.
    ///
    /// # Errors
    ///
    /// [`ParseSecretHashError`] if the text is not 128 hex digits.
    pub fn from_sha512_hex(text: &str) -> Result<Self, ParseSecretHashError> {
        if text.len() != 128 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseSecretHashError(()));
        }
        Self::from_digest_hex(&text[..64])
    }

    pub(super) fn hmac(pepper: PepperId, words: Words) -> Self {
        Self {
            pepper: Some(pepper),
            words,
        }
    }

    pub(super) fn digest(words: Words) -> Self {
        Self {
            pepper: None,
            words,
        }
    }

    /// What the record of the key `id` is found by that has this hash.
    pub(crate) fn lookup_key(&self, id: &KeyId) -> LookupKey {
        match self.pepper {
            Some(_) => id.lookup_key(),
            None => lookup_key(&self.words),
        }
    }

    /// The hash as 64 lowercase hex digits, for a database.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.words.map(u64::to_ne_bytes).as_flattened())
    }

    /// Which pepper the hash was made with; nothing where it is the digest of a whole token.
    #[must_use]
    pub fn pepper(&self) -> Option<&PepperId> {
        self.pepper.as_ref()
    }

    /// Whether the other is the same hash, under the same pepper.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.pepper.eq(&other.pepper) && bool::from(Self::equal(Some(self), &other.words))
    }

    /// Whether `computed` is the stored hash, in the same time wherever they differ, and where none is.
    pub(super) fn equal(stored: Option<&Self>, computed: &Words) -> Choice {
        let words = stored.map_or(&[0; 4], |stored| &stored.words);
        words
            .iter()
            .zip(computed)
            .fold(Choice::from(1), |all, (stored, computed)| {
                all & stored.ct_eq(computed)
            })
    }
}

/// HMAC-SHA256 under a key that is scheduled already, which is two compressions less than keying it
/// anew; without the buffer of a message that comes in pieces, which is an eighth of the rest.
pub(super) type Keyed = HmacCore<Sha256>;

#[cfg(test)]
thread_local! {
    /// How many were computed on this thread.
    pub(crate) static HMACS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

pub(super) fn hmac(keyed: &Keyed, secret: &[u8; SECRET_LEN]) -> Words {
    const { assert!(SECRET_LEN < 64, "one block, with its padding") }
    #[cfg(test)]
    HMACS.set(HMACS.get() + 1);
    let mut keyed = keyed.clone();
    let mut hash = Output::<Keyed>::default();
    keyed.finalize_fixed_core(&mut Buffer::<Keyed>::new(secret), &mut hash);
    words(&hash.into())
}

/// HMAC-SHA256 of a text that says whose check value it is. It has a blank and a NUL, so no secret
/// is the same.
pub(super) fn pepper_check(keyed: &Keyed, id: &PepperId) -> Words {
    const PURPOSE: &[u8] = b"tower-api-key pepper check\0";
    const {
        assert!(
            PURPOSE.len() + PepperId::MAX_LEN < 56,
            "one block, with its padding"
        );
    }
    let text = [PURPOSE, id.as_str().as_bytes()].concat();
    let mut keyed = keyed.clone();
    let mut hash = Output::<Keyed>::default();
    keyed.finalize_fixed_core(&mut Buffer::<Keyed>::new(&text), &mut hash);
    words(&hash.into())
}

pub(super) fn digest(token: &[u8]) -> Words {
    words(&sha256(token))
}

/// The first half of SHA-512.
pub(super) fn digest_512(token: &[u8]) -> Words {
    let digest: [u8; 64] = Sha512::digest(token).into();
    let mut half = [0; 32];
    half.copy_from_slice(&digest[..32]);
    words(&half)
}

/// The first 24 bytes of a digest.
pub(super) fn lookup_key(digest: &Words) -> LookupKey {
    let [first, second, third, _] = digest.map(u64::to_ne_bytes);
    let mut bytes = [0; LookupKey::LEN];
    bytes.copy_from_slice([first, second, third].as_flattened());
    LookupKey::from_bytes(bytes)
}

fn read(text: &str) -> Result<Words, ParseSecretHashError> {
    if text.len() != 64 {
        return Err(ParseSecretHashError(()));
    }
    let bytes = hex::decode(text.as_bytes()).ok_or(ParseSecretHashError(()))?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| ParseSecretHashError(()))?;
    Ok(words(&bytes))
}

/// What is kept of a one-time token: it has 128 random bits, and lives for hours.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn words(bytes: &[u8; 32]) -> Words {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Shows the pepper's id, not the hash.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretHash")
            .field("pepper", &self.pepper)
            .finish_non_exhaustive()
    }
}

/// A stored hash doesn't have as many hex digits as it should. It doesn't repeat what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret's hash is 64 hex digits, or 128 of SHA-512")]
pub struct ParseSecretHashError(());
