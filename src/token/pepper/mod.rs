//! The server-side keys of the HMAC, and which of them made a hash.

mod check;
mod id;
mod outside;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::KeyInit;
use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

pub use self::{check::PepperCheck, id::PepperId};
use super::{
    ApiKeyToken, SecretHash,
    hash::{self, Keyed},
    random,
};
use crate::error::{ConfigError, RandomError, Unavailable};

/// One server-side key of the HMAC. It lives apart from the database, so that who reads the one
/// can't test guesses against it without the other.
///
/// The bytes are scheduled once and then forgotten; `Debug` shows the id alone.
#[derive(Clone)]
pub struct Pepper {
    id: PepperId,
    keyed: Keyed,
    is_weak: bool,
}

impl Pepper {
    /// The least number of bytes of a pepper that new keys are made with.
    pub const MIN_LEN: usize = 16;
    const NEW_LEN: usize = 32;

    /// A pepper that is these bytes, as they are. 32 random ones are best.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperTooShort`] below [`Pepper::MIN_LEN`], [`ConfigError::PepperId`].
    pub fn new(id: &str, bytes: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::checked(id, bytes.as_ref(), Self::MIN_LEN)
    }

    /// A pepper of any length but none, for keys that came to be under one that is too short.
    ///
    /// Make it a [retired](Peppers::with_retired) one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperTooShort`] if it is empty, [`ConfigError::PepperId`].
    pub fn weak_for_import(id: &str, bytes: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let mut pepper = Self::checked(id, bytes.as_ref(), 1)?;
        pepper.is_weak = true;
        Ok(pepper)
    }

    /// A pepper of 32 new random bytes, which end with the process.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Random`] where the operating system gives no randomness,
    /// [`ConfigError::PepperId`].
    pub fn random(id: &str) -> Result<Self, ConfigError> {
        Self::new(id, random_bytes()?.as_slice())
    }

    /// A random one under a random id, so that no other process takes its hashes for its own.
    fn ephemeral() -> Result<Self, RandomError> {
        let unique: [u8; 8] = random()?;
        let id = format!("eph-{}", BASE64_URL_SAFE_NO_PAD.encode(unique));
        Self::random(&id).map_err(|error| match error {
            ConfigError::Random(error) => error,
            error => RandomError::new(error),
        })
    }

    fn checked(id: &str, bytes: &[u8], at_least: usize) -> Result<Self, ConfigError> {
        let id = PepperId::new(id)?;
        let too_short = ConfigError::PepperTooShort {
            id,
            len: bytes.len(),
        };
        if bytes.len() < at_least {
            return Err(too_short);
        }
        let keyed = Keyed::new_from_slice(bytes).map_err(|_| too_short)?;
        Ok(Self {
            id,
            keyed,
            is_weak: false,
        })
    }

    /// The pepper's name.
    #[must_use]
    pub fn id(&self) -> &PepperId {
        &self.id
    }
}

/// What was scheduled is overwritten. The hmac crate's own way would wipe the copy that each request
/// makes, too, and take a fifth of the HMAC's time for it.
impl Drop for Pepper {
    fn drop(&mut self) {
        if let Ok(blank) = Keyed::new_from_slice(&[0]) {
            self.keyed = blank;
        }
        zeroize::optimization_barrier(&self.keyed);
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn random_bytes() -> Result<Zeroizing<[u8; Pepper::NEW_LEN]>, RandomError> {
    let mut bytes = Zeroizing::new([0; Pepper::NEW_LEN]);
    SysRng
        .try_fill_bytes(&mut *bytes)
        .map_err(RandomError::new)?;
    Ok(bytes)
}

/// The peppers that a node knows: the one that new keys are made with, and those that older keys
/// were made with. Clones are the same peppers.
///
/// ```
/// use tower_api_key::{Pepper, Peppers};
///
/// let peppers = Peppers::new(Pepper::random("2026-11")?)
///     .with_retired(Pepper::new("2025-02", "the pepper that was in use before")?)?;
/// # Ok::<(), tower_api_key::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Peppers(Arc<Known>);

#[derive(Clone)]
struct Known {
    /// Empty until an ephemeral one is first needed.
    current: OnceLock<Pepper>,
    retired: Vec<Pepper>,
}

impl Peppers {
    /// `current` is what new keys are made with.
    #[must_use]
    pub fn new(current: Pepper) -> Self {
        Self(Arc::new(Known {
            current: OnceLock::from(current),
            retired: Vec::new(),
        }))
    }

    /// One random pepper that is drawn when it is first needed and ends with the process, as do
    /// the keys made with it: for stores in memory.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self(Arc::new(Known {
            current: OnceLock::new(),
            retired: Vec::new(),
        }))
    }

    /// Adds a pepper that keys are still verified with, but no longer made with.
    ///
    /// # Errors
    ///
    /// [`ConfigError::DuplicatePepper`] where another pepper has the same id,
    /// [`ConfigError::Random`] where these are ephemeral and the operating system gives no
    /// randomness.
    pub fn with_retired(self, pepper: Pepper) -> Result<Self, ConfigError> {
        // Drawn before the peppers are copied, so that the copy has the same one.
        self.current()?;
        if self.find(pepper.id()).is_some() {
            return Err(ConfigError::DuplicatePepper(*pepper.id()));
        }
        let mut known = Arc::unwrap_or_clone(self.0);
        known.retired.push(pepper);
        Ok(Self(Arc::new(known)))
    }

    /// The hash to store for `token`: HMAC-SHA256 of its secret under the current pepper. Of an opaque token
    /// it is the digest.
    ///
    /// # Errors
    ///
    /// [`RandomError`] where the pepper is [ephemeral](Peppers::ephemeral), this is its first use,
    /// and the operating system gives no randomness.
    pub fn hash(&self, token: &ApiKeyToken) -> Result<SecretHash, RandomError> {
        if let Some(digest) = &token.digest {
            return Ok(SecretHash::digest(digest.words));
        }
        let pepper = self.current()?;
        let words = hash::hmac(&pepper.keyed, token.secret());
        Ok(SecretHash::hmac(*pepper.id(), words))
    }

    /// Whether `token` has the secret that `stored` was made of. Without a stored hash, or with that of
    /// another kind of token, the work is the same, and the answer is no.
    pub(crate) fn verify(
        &self,
        token: &ApiKeyToken,
        stored: Option<&SecretHash>,
    ) -> Result<bool, Unavailable> {
        if let Some(digest) = &token.digest {
            let stored = stored.filter(|stored| stored.pepper().is_none());
            let equal = SecretHash::equal(stored, &digest.words);
            return Ok(bool::from(equal) & stored.is_some());
        }
        let stored = stored.filter(|stored| stored.pepper().is_some());
        let named = stored.and_then(SecretHash::pepper);
        let known = named.and_then(|pepper| self.find(pepper));
        let pepper = match known {
            Some(pepper) => pepper,
            None => self.current()?,
        };
        let computed = hash::hmac(&pepper.keyed, token.secret());
        let equal = SecretHash::equal(stored, &computed);
        match named {
            Some(unknown) if known.is_none() => Err(UnknownPepper(*unknown).into()),
            named => Ok(bool::from(equal) & named.is_some()),
        }
    }

    /// # Errors
    ///
    /// Where no hash can be checked that was made with this pepper.
    pub(crate) fn knows(&self, id: &PepperId) -> Result<(), UnknownPepper> {
        self.find(id).map(drop).ok_or(UnknownPepper(*id))
    }

    /// Whether hashes under this pepper are to come under the current one.
    pub(crate) fn is_retired(&self, id: &PepperId) -> bool {
        let current = self.0.current.get();
        current.is_some_and(|current| current.id() != id)
    }

    /// Returns the check values. A [weak](Pepper::weak_for_import) pepper has none, since one could
    /// try out its few bytes with it, nor has one that is still to be drawn.
    pub(crate) fn checks(&self) -> Vec<PepperCheck> {
        let current = self.0.current.get().into_iter();
        let strong = current
            .chain(&self.0.retired)
            .filter(|pepper| !pepper.is_weak);
        strong.map(PepperCheck::of).collect()
    }

    /// Returns the id of the pepper that new keys are made with; none if it is still to be drawn.
    pub(crate) fn current_id(&self) -> Option<PepperId> {
        self.0.current.get().map(|current| *current.id())
    }

    fn find(&self, id: &PepperId) -> Option<&Pepper> {
        let current = self.0.current.get().into_iter();
        current
            .chain(&self.0.retired)
            .find(|pepper| pepper.id() == id)
    }

    fn current(&self) -> Result<&Pepper, RandomError> {
        if let Some(current) = self.0.current.get() {
            return Ok(current);
        }
        let drawn = Pepper::ephemeral()?;
        Ok(self.0.current.get_or_init(|| drawn))
    }
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peppers")
            .field("current", &self.0.current.get().map(Pepper::id))
            .field("retired", &self.0.retired)
            .finish()
    }
}

/// A record names a pepper that this node doesn't know, as happens while a new pepper is rolled
/// out: the key can't be checked here, which doesn't make it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node doesn't know the pepper {0}")]
pub struct UnknownPepper(PepperId);

impl UnknownPepper {
    /// Which pepper it is.
    #[must_use]
    pub fn pepper(&self) -> &PepperId {
        &self.0
    }
}
