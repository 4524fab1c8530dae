//! New tokens, from the operating system's randomness or a generator that the caller gives.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::{TryCryptoRng, TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use super::{ApiKeyToken, Brand, KeyId, MAX_LEN, SECRET_LEN};
use crate::error::RandomError;

/// Bytes that are no secret for long: nothing wipes the copies that are made of them on their way.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(RandomError::new)?;
    Ok(bytes)
}

const SECRET_BYTES: usize = 32;

impl ApiKeyToken {
    /// A new token of `brand`, from the randomness of the operating system.
    ///
    /// # Errors
    ///
    /// [`RandomError`] where the operating system gives none. There is no weaker way.
    pub fn generate(brand: &Brand) -> Result<Self, RandomError> {
        Self::draw(brand, &mut SysRng)
    }

    /// A new token of `brand`, 24 bytes of id and 32 of secret taken from `rng` in that order: for
    /// tests that have to know what comes.
    ///
    /// # Errors
    ///
    /// [`RandomError`] where `rng` fails.
    #[cfg(feature = "test-util")]
    pub fn generate_with<R>(brand: &Brand, rng: &mut R) -> Result<Self, RandomError>
    where
        R: TryCryptoRng<Error: std::error::Error + Send + Sync + 'static>,
    {
        Self::draw(brand, rng)
    }

    fn draw<R>(brand: &Brand, rng: &mut R) -> Result<Self, RandomError>
    where
        R: TryCryptoRng<Error: std::error::Error + Send + Sync + 'static>,
    {
        let mut id = [0; KeyId::LEN];
        rng.try_fill_bytes(&mut id).map_err(RandomError::new)?;
        let id = KeyId::from_bytes(id);
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rng.try_fill_bytes(&mut *secret).map_err(RandomError::new)?;
        let mut encoded = Zeroizing::new([0; SECRET_LEN]);
        let written = BASE64_URL_SAFE_NO_PAD.encode_slice(secret.as_slice(), &mut *encoded);
        debug_assert_eq!(written, Ok(SECRET_LEN));

        let mut token = Self {
            text: [0; MAX_LEN],
            len: 0,
            lookup_key: id.lookup_key(),
            digest: None,
            long: None,
        };
        token.push(brand.as_bytes());
        token.push(b".");
        token.push(KeyId::PREFIX.as_bytes());
        token.push(&id.encode());
        token.push(b".");
        token.push(&*encoded);
        Ok(token)
    }

    fn push(&mut self, part: &[u8]) {
        for &byte in part {
            self.text[usize::from(self.len)] = byte;
            self.len += 1;
        }
    }
}
