//! The server-side keys of the HMAC: where they come from, and which of them made a hash.

use std::{
    env, fmt, fs, io,
    io::Write,
    path::Path,
    sync::{Arc, OnceLock},
};

use hmac::{Hmac, KeyInit};
use rand::{TryRng, rngs::SysRng};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{ApiKeyToken, SecretHash, hash, hex};
use crate::error::{ConfigError, RandomError};

/// The name of a pepper, stored beside each hash: 1 to 15 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PepperId {
    text: [u8; Self::MAX_LEN],
    len: u8,
}

impl PepperId {
    const MAX_LEN: usize = 15;

    /// Checks and takes over `id`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperId`] unless it is 1 to 15 characters of `[A-Za-z0-9._-]`.
    pub fn new(id: &str) -> Result<Self, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let mut text = [0; Self::MAX_LEN];
        match (u8::try_from(id.len()), text.get_mut(..id.len())) {
            (Ok(len), Some(space)) if len > 0 && id.bytes().all(allowed) => {
                space.copy_from_slice(id.as_bytes());
                Ok(Self { text, len })
            }
            _ => Err(ConfigError::PepperId { len: id.len() }),
        }
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One server-side key of the HMAC. It lives apart from the database, so that who reads the one
/// can't test guesses against it without the other.
///
/// The bytes are scheduled once and then forgotten; `Debug` shows the id alone.
#[derive(Clone)]
pub struct Pepper {
    id: PepperId,
    keyed: Hmac<Sha256>,
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
        Self::checked(id, bytes.as_ref(), 1)
    }

    /// A pepper of 32 new random bytes, which end with the process.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Random`] where the operating system gives no randomness,
    /// [`ConfigError::PepperId`].
    pub fn random(id: &str) -> Result<Self, ConfigError> {
        Self::new(id, *random_bytes()?)
    }

    /// The pepper that the environment variable `variable` holds, as raw bytes: nothing is
    /// decoded or trimmed.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperNotSet`], and those of [`Pepper::new`].
    pub fn from_env(id: &str, variable: &str) -> Result<Self, ConfigError> {
        let value = env::var_os(variable).ok_or_else(|| not_set(variable))?;
        Self::new(id, &*Zeroizing::new(value.into_encoded_bytes()))
    }

    /// The pepper that the file at `path` holds, in hex, white space at its end aside.
    ///
    /// A file that isn't there is made, with 32 random bytes, readable by its owner alone (0600).
    /// It appears whole or not at all, also when several processes start at once.
    ///
    /// Blocks for as long as the file system does: call it at start.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperFile`] where the file can't be read or made or isn't hex,
    /// [`ConfigError::Random`], and those of [`Pepper::new`].
    pub fn from_file(id: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let failed = |source| ConfigError::PepperFile {
            path: path.display().to_string(),
            source,
        };
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = Zeroizing::new(hex::encode(&*random_bytes()?));
                publish(path, new.as_bytes())
                    .and_then(|()| fs::read(path))
                    .map_err(failed)?
            }
            read => read.map_err(failed)?,
        };
        let text = Zeroizing::new(text);
        let bytes = hex::decode(text.trim_ascii_end())
            .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "not hex")))?;
        Self::new(id, &*Zeroizing::new(bytes))
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
        let keyed = Hmac::new_from_slice(bytes).map_err(|_| too_short)?;
        Ok(Self { id, keyed })
    }

    /// The pepper's name.
    #[must_use]
    pub fn id(&self) -> &PepperId {
        &self.id
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn not_set(variable: &str) -> ConfigError {
    let usual = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let named = variable.bytes().all(usual);
    ConfigError::PepperNotSet(if named { variable } else { "(not shown)" }.to_owned())
}

fn random_bytes() -> Result<Zeroizing<[u8; Pepper::NEW_LEN]>, RandomError> {
    let mut bytes = Zeroizing::new([0; Pepper::NEW_LEN]);
    SysRng
        .try_fill_bytes(&mut *bytes)
        .map_err(RandomError::new)?;
    Ok(bytes)
}

/// Makes `path` with this content unless it exists by then. A link of a finished file is what
/// appears, so no reader meets half a pepper.
fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut unique = [0; 8];
    SysRng
        .try_fill_bytes(&mut unique)
        .map_err(io::Error::other)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.tmp", hex::encode(&unique)));
    let unfinished = Path::new(&unfinished);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(unfinished)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(unfinished, path));
    fs::remove_file(unfinished)?;
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written,
    }
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
    /// [`ConfigError::DuplicatePepper`] where another pepper has the same id.
    pub fn with_retired(self, pepper: Pepper) -> Result<Self, ConfigError> {
        let current = self.0.current.get().map_or(&EPHEMERAL, Pepper::id);
        let mut retired = self.0.retired.iter().map(Pepper::id);
        if current == pepper.id() || retired.any(|id| id == pepper.id()) {
            return Err(ConfigError::DuplicatePepper(*pepper.id()));
        }
        let mut known = Arc::unwrap_or_clone(self.0);
        known.retired.push(pepper);
        Ok(Self(Arc::new(known)))
    }

    /// The hash to store for `token`: HMAC-SHA256 of its secret under the current pepper.
    ///
    /// # Errors
    ///
    /// [`RandomError`] where the pepper is [ephemeral](Peppers::ephemeral), this is its first use,
    /// and the operating system gives no randomness.
    pub fn hash(&self, token: &ApiKeyToken) -> Result<SecretHash, RandomError> {
        let pepper = self.current()?;
        let words = hash::hmac(&pepper.keyed, token.secret());
        Ok(SecretHash::new(*pepper.id(), words))
    }

    /// Whether `token` has the secret that `stored` was made of. Without a stored hash the work is
    /// the same, and the answer is no.
    pub(crate) fn verify(
        &self,
        token: &ApiKeyToken,
        stored: Option<&SecretHash>,
    ) -> Result<bool, PepperError> {
        let pepper = match stored {
            Some(stored) => self
                .find(stored.pepper())
                .ok_or(UnknownPepper(*stored.pepper()))?,
            None => self.current()?,
        };
        let computed = hash::hmac(&pepper.keyed, token.secret());
        let stand_in = SecretHash::new(*pepper.id(), [0; 4]);
        let equal = stored.unwrap_or(&stand_in).equals(&computed);
        Ok(bool::from(equal) & stored.is_some())
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
        let keyed = Hmac::new_from_slice(&*random_bytes()?).map_err(RandomError::new)?;
        Ok(self.0.current.get_or_init(|| Pepper {
            id: EPHEMERAL,
            keyed,
        }))
    }
}

/// The id of a pepper that ends with the process.
const EPHEMERAL: PepperId = PepperId {
    text: *b"ephemeral\0\0\0\0\0\0",
    len: 9,
};

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peppers")
            .field("current", &self.0.current.get().map(Pepper::id))
            .field("retired", &self.0.retired)
            .finish()
    }
}

/// A hash can't be checked, and not because it is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PepperError {
    #[error(transparent)]
    Unknown(#[from] UnknownPepper),
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A record names a pepper that this node doesn't know, as happens while a new pepper is rolled
/// out: the key can't be checked here, which doesn't make it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node doesn't know the pepper {0}")]
pub struct UnknownPepper(PepperId);
