//! What can go wrong outside a request: the database, the set-up, the randomness.

mod claim;
mod rotation;

use std::{error::Error, fmt, sync::Arc};

pub use self::{claim::ClaimRefusal, rotation::RotationError};
use crate::token::{KeyId, Pepper, PepperId, UnknownPepper};

/// A source or a backend could not do what was asked of it.
///
/// The cause is kept and given by [`Error::source`]. Clones share it, since several requests
/// that waited for one read are told of the same failure.
///
/// ```
/// use std::{error::Error, io};
/// use tower_api_key::BackendError;
///
/// let error = BackendError::unavailable(io::Error::other("connection reset"));
/// assert_eq!(error.source().unwrap().to_string(), "connection reset");
/// ```
#[derive(Clone)]
pub struct BackendError {
    kind: BackendErrorKind,
    source: Arc<dyn Error + Send + Sync>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BackendErrorKind {
    Unavailable,
    Corrupt,
    Unsupported,
    Constraint(Arc<str>),
    InvalidText,
}

impl BackendError {
    /// The backend can't be reached, or didn't answer in time: trying again may help.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(BackendErrorKind::Unavailable, source)
    }

    /// A record was found that isn't one: a short hash, an unknown scope syntax.
    ///
    /// Never answer "not found" for such a record: it would look as if the key had never been.
    pub fn corrupt(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(BackendErrorKind::Corrupt, source)
    }

    /// The backend has no such thing as `what`: what a method of
    /// [`ApiKeyBackend`](crate::ApiKeyBackend) answers that wasn't written. The store passes it on as
    /// [`StoreError::Unsupported`].
    #[must_use]
    pub fn unsupported(what: &'static str) -> Self {
        Self::new(BackendErrorKind::Unsupported, what)
    }

    /// A constraint of the database refuses what was to be written: a unique index of the operator's, a
    /// check, a column that is too short. Trying again doesn't help. `name` is what an operator finds it by.
    ///
    /// A key whose id or lookup key is taken is no such error: [`insert`](crate::ApiKeyBackend::insert)
    /// returns `false`. The store passes it on as [`StoreError::Constraint`].
    pub fn constraint(name: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(BackendErrorKind::Constraint(name.into()), source)
    }

    /// A text has characters that the database's encoding doesn't have. The store passes it on as
    /// [`StoreError::InvalidKey`].
    pub fn invalid_text(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(BackendErrorKind::InvalidText, source)
    }

    /// A write changed nothing, and the record is still there to be changed: a trigger, rule or policy
    /// of the database keeps it.
    pub(crate) fn kept() -> Self {
        Self::unavailable(
            "the database kept the row from being changed: a trigger, rule or policy is in the way",
        )
    }

    fn new(kind: BackendErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Arc::from(source.into()),
        }
    }

    /// Whether a record was read that can't be understood.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.kind == BackendErrorKind::Corrupt
    }

    /// Whether a database refused the data itself.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.kind,
            BackendErrorKind::Constraint(_) | BackendErrorKind::InvalidText
        )
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        self.kind == BackendErrorKind::Unavailable
    }

    /// Returns the name of the constraint that refused a write, if one did.
    #[must_use]
    pub fn constraint_name(&self) -> Option<&str> {
        match &self.kind {
            BackendErrorKind::Constraint(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the backend can't do what was asked of it, now or later.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.kind == BackendErrorKind::Unsupported
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            BackendErrorKind::Unavailable => "the backend can't be asked",
            BackendErrorKind::Corrupt => "the backend holds a record that can't be read",
            BackendErrorKind::Unsupported => "the backend can't do that",
            BackendErrorKind::Constraint(name) => {
                return write!(
                    f,
                    "the constraint {name} of the database refuses the record"
                );
            }
            BackendErrorKind::InvalidText => "the database's encoding can't hold the text",
        })
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Whether a key is good, or what there is to manage, can't be told now. Says nothing about the key.
///
/// Its text and its source are those of the cause: a backend that failed, a
/// [pepper that this node doesn't know](crate::UnknownPepper), a lack of randomness, or too many
/// requests that wait for the backend already.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Unavailable(Cause);

#[derive(Debug, Clone, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Backend(BackendError),
    #[error(transparent)]
    Pepper(UnknownPepper),
    #[error(transparent)]
    Random(RandomError),
    #[error("{0}")]
    Load(&'static str),
    #[error("the key wasn't read in time")]
    TooSlow,
    #[error(transparent)]
    Mismatch(PepperMismatch),
}

impl Unavailable {
    /// The key wasn't read, which isn't the backend's doing, or not for certain.
    pub(crate) fn load_failed(why: &'static str) -> Self {
        Self(Cause::Load(why))
    }

    /// Nothing has come from the backend in time.
    pub(crate) fn too_slow() -> Self {
        Self(Cause::TooSlow)
    }

    /// Whether the backend couldn't be asked. It could where it gave a record that can't be read, and
    /// wasn't where too many others wait.
    pub(crate) fn is_outage(&self) -> bool {
        match &self.0 {
            Cause::Backend(error) => error.is_unavailable(),
            Cause::TooSlow => true,
            Cause::Pepper(_) | Cause::Random(_) | Cause::Load(_) | Cause::Mismatch(_) => false,
        }
    }

    /// The failure of the backend, where that is the cause.
    #[must_use]
    pub fn backend(&self) -> Option<&BackendError> {
        match &self.0 {
            Cause::Backend(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the pepper that has other bytes here than elsewhere, if that is the cause.
    #[must_use]
    pub fn pepper_mismatch(&self) -> Option<&PepperMismatch> {
        match &self.0 {
            Cause::Mismatch(mismatch) => Some(mismatch),
            _ => None,
        }
    }

    /// The pepper that this node doesn't know, where that is the cause.
    #[must_use]
    pub fn unknown_pepper(&self) -> Option<&UnknownPepper> {
        match &self.0 {
            Cause::Pepper(unknown) => Some(unknown),
            _ => None,
        }
    }
}

impl From<BackendError> for Unavailable {
    fn from(error: BackendError) -> Self {
        Self(Cause::Backend(error))
    }
}

impl From<PepperMismatch> for Unavailable {
    fn from(error: PepperMismatch) -> Self {
        Self(Cause::Mismatch(error))
    }
}

/// A pepper has other bytes on this instance than the stored keys were hashed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the pepper {0} has other bytes here than the stored keys were hashed with: give every instance \
     the same pepper, and a new pepper a new id"
)]
pub struct PepperMismatch(pub(crate) PepperId);

impl PepperMismatch {
    /// Returns the id of the pepper.
    #[must_use]
    pub fn pepper(&self) -> &PepperId {
        &self.0
    }
}

impl From<UnknownPepper> for Unavailable {
    fn from(error: UnknownPepper) -> Self {
        Self(Cause::Pepper(error))
    }
}

impl From<RandomError> for Unavailable {
    fn from(error: RandomError) -> Self {
        Self(Cause::Random(error))
    }
}

/// Managing keys failed.
///
/// `Debug` is the text for people, since that is what a `main` that returns it prints.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The backend failed, or a token couldn't be checked. A write may have been carried out all
    /// the same.
    #[error("the key store can't answer")]
    Unavailable(#[source] Unavailable),
    /// The backend can't do what was asked of it, now or later: it has no such method, and trying again doesn't
    /// help. Nothing was done.
    #[error(transparent)]
    Unsupported(BackendError),
    /// The operating system gave no randomness, so no key was made.
    #[error("no key can be made")]
    Random(#[from] RandomError),
    /// The key that was asked for isn't one that can be stored.
    #[error("the key can't be stored")]
    InvalidKey(#[from] InvalidKey),
    /// A constraint of the database refused the write: a unique index or a check of the operator's, a column
    /// that is too short. Nothing was changed, and trying again doesn't help.
    #[error("the database's constraint {name} refuses the change")]
    #[non_exhaustive]
    Constraint {
        /// The constraint or index; where the database names none, the column or its error code.
        name: String,
        /// What the database said.
        source: BackendError,
    },
    /// The new key's id was taken, and so were those drawn after it: the operating system's
    /// randomness repeats itself.
    #[error("{0} is taken already, as were the ids drawn before")]
    Taken(KeyId),
    /// Others have changed the same key: since the version that was asked for, or so often that no attempt
    /// came through.
    #[error("{0} was changed by others meanwhile; read it again")]
    Conflict(KeyId),
    /// A key isn't rotated, or its rotation not ended that way.
    #[error("the rotation of {id} is refused")]
    #[non_exhaustive]
    Rotation {
        /// Which key.
        id: KeyId,
        /// Why.
        #[source]
        problem: RotationError,
    },
    /// Nobody gives more than they hold: what the caller would have had to hold.
    #[error("the caller doesn't hold {0}")]
    NotHeld(&'static str),
    /// A key can't be claimed.
    #[error("the key can't be claimed")]
    NotClaimable(#[source] ClaimRefusal),
    /// As many keys of one user wait to be claimed as may.
    #[error("{at_most} keys of this user wait to be claimed, and no more may")]
    #[non_exhaustive]
    UserGrantsFull {
        /// How many may.
        at_most: usize,
    },
    /// As many keys wait to be claimed as may.
    #[error("{at_most} keys wait to be claimed, and no more may")]
    #[non_exhaustive]
    GrantsFull {
        /// How many may.
        at_most: usize,
    },
    /// More was asked for at once than can be done.
    #[error("no more than {at_most} at once")]
    #[non_exhaustive]
    TooMany {
        /// How many can be.
        at_most: usize,
    },
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_causes(self, f)
    }
}

impl From<Unavailable> for StoreError {
    fn from(error: Unavailable) -> Self {
        match error.0 {
            Cause::Backend(error) => error.into(),
            cause => Self::Unavailable(Unavailable(cause)),
        }
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        match &error.kind {
            BackendErrorKind::Unsupported => Self::Unsupported(error),
            BackendErrorKind::Constraint(name) => Self::Constraint {
                name: name.to_string(),
                source: error,
            },
            BackendErrorKind::InvalidText => Self::InvalidKey(InvalidKey {
                field: "text",
                problem: "has characters that the database's encoding can't hold",
            }),
            BackendErrorKind::Unavailable | BackendErrorKind::Corrupt => {
                Self::Unavailable(error.into())
            }
        }
    }
}

/// A field of a [`NewApiKey`](crate::NewApiKey), or of what a key is changed to, can't be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct InvalidKey {
    pub(crate) field: &'static str,
    pub(crate) problem: &'static str,
}

impl InvalidKey {
    /// The name of the field: `user_id`, `name`, `metadata`, `revocation_reason`, or, of a key that is imported,
    /// any other of its fields; `text` where the database doesn't say which.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }
}

/// The operating system's source of randomness failed.
#[derive(Debug, Clone)]
pub struct RandomError(Arc<dyn Error + Send + Sync>);

impl RandomError {
    pub(crate) fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

impl fmt::Display for RandomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the source of randomness failed")
    }
}

impl Error for RandomError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// A set-up that would not be safe, or would not work. It is reported at start.
///
/// `Debug` is the text for people, since that is what a `main` that returns it prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A brand is not 2 to 16 characters of `[a-z0-9]`.
    #[error("a brand is 2 to 16 characters of [a-z0-9], not {0:?}")]
    Brand(String),
    /// A pepper's id is not 1 to 15 characters of `[A-Za-z0-9._-]`. It isn't repeated: it may be
    /// the pepper, given in the wrong place.
    #[error("a pepper's id is 1 to 15 characters of [A-Za-z0-9._-]; this one has {len} bytes")]
    #[non_exhaustive]
    PepperId {
        /// The length of what was given, in bytes.
        len: usize,
    },
    /// A pepper is shorter than it may be.
    #[error(
        "pepper {id} has {len} bytes, but needs at least {}: take 32 random ones",
        Pepper::MIN_LEN
    )]
    #[non_exhaustive]
    PepperTooShort {
        /// Which pepper.
        id: PepperId,
        /// Its length in bytes.
        len: usize,
    },
    /// Two peppers have one id, so a stored hash wouldn't say which of them made it.
    #[error("two peppers have the id {0}")]
    DuplicatePepper(PepperId),
    /// No pepper was given.
    #[error(
        "no pepper: call `.peppers(Peppers::new(Pepper::from_env(\"v1\", \"API_KEY_PEPPER\")?))`"
    )]
    MissingPeppers,
    /// The environment variable that should hold a pepper isn't set. A name that has other
    /// characters than `[A-Z0-9_]`, or is longer than 40, isn't repeated: it may be the pepper,
    /// given in the wrong place.
    #[error("the environment variable {0} should hold a pepper, but isn't set")]
    PepperNotSet(String),
    /// The environment variable that holds a pepper begins or ends with what is probably no part of
    /// it. Another instance, which gets the same pepper another way, would have other bytes.
    #[error(
        "the environment variable {variable} begins or ends with {problem}: remove it, or give the \
         bytes to `Pepper::new` if it is part of the pepper"
    )]
    #[non_exhaustive]
    PepperPadded {
        /// The name of the variable.
        variable: String,
        /// What surrounds the pepper.
        problem: &'static str,
    },
    /// The file that holds a pepper can't be read or created.
    #[error("the pepper file {path} can't be used")]
    #[non_exhaustive]
    PepperFile {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// This instance has other bytes under the id of a pepper than the stored keys were hashed with:
    /// it would refuse all of them.
    #[error(transparent)]
    PepperMismatch(PepperMismatch),
    /// A setting of the cache can't work.
    #[error("`CacheConfig::{setting}` {problem}")]
    #[non_exhaustive]
    Cache {
        /// The method of [`CacheConfig`](crate::CacheConfig) that set it.
        setting: &'static str,
        /// What it has to be.
        problem: &'static str,
    },
    /// A [`DigestFormat`](crate::DigestFormat) can't be one, or can't stand beside the brand. The prefix isn't
    /// repeated: it may be a token, given in the wrong place.
    #[error("a digest format {problem}")]
    #[non_exhaustive]
    DigestFormat {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The interval in which uses of keys are written is 0.
    #[error("`note_use_every` must be more than 0")]
    NoteUseEvery,
    /// No event could be kept for those who read them.
    #[error("`event_buffer` must be more than 0")]
    EventBuffer,
    /// A new pepper was needed, and the operating system gave no randomness.
    #[error("no pepper can be made")]
    Random(#[from] RandomError),
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_causes(self, f)
    }
}

/// The text of `error`, and those of what caused it.
pub(crate) fn write_with_causes(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    fmt::Display::fmt(error, f)?;
    let causes = std::iter::successors(error.source(), |&error| error.source());
    for cause in causes {
        write!(f, ": {cause}")?;
    }
    Ok(())
}
