//! The decision: does this token open anything now? Pure, so that it can be read and tested alone.

use std::fmt;

use crate::{
    clock::Now,
    context::Caller,
    error::{BackendError, Unavailable},
    key::{ApiKey, KeyStatus},
    token::{ApiKeyToken, LookupKey, MalformedToken, Peppers, SecretHash},
};

/// Why a token was not accepted.
///
/// [`Unknown`](VerifyError::Unknown) and [`WrongSecret`](VerifyError::WrongSecret) are told apart
/// for the caller's own logs. Whoever presented the token must not see the difference, nor any
/// other before the secret was right; the layer sees to that.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The text is not a token.
    #[error(transparent)]
    Malformed(#[from] MalformedToken),
    /// There is no such key.
    #[error("there is no such key")]
    Unknown,
    /// The id is a key's, the secret isn't.
    #[error("the secret is wrong")]
    WrongSecret,
    /// The key's end has come: `now` is at or after `expires_at`, or the end of an overlap, `retires_at`.
    #[error("the key has expired")]
    Expired,
    /// The key was revoked.
    #[error("the key was revoked")]
    Revoked,
    /// The key is suspended.
    #[error("the key is disabled")]
    Disabled,
    /// Whether the key is good can't be told. Says nothing about the key.
    #[error("the key can't be checked now")]
    Unavailable(#[source] Unavailable),
}

impl VerifyError {
    /// What it is, without its cause.
    #[must_use]
    pub fn kind(&self) -> VerifyErrorKind {
        match self {
            Self::Malformed(_) => VerifyErrorKind::Malformed,
            Self::Unknown => VerifyErrorKind::Unknown,
            Self::WrongSecret => VerifyErrorKind::WrongSecret,
            Self::Expired => VerifyErrorKind::Expired,
            Self::Revoked => VerifyErrorKind::Revoked,
            Self::Disabled => VerifyErrorKind::Disabled,
            Self::Unavailable(_) => VerifyErrorKind::Unavailable,
        }
    }
}

/// A [`VerifyError`] without its cause: what is counted, logged and kept. Not what a stranger is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifyErrorKind {
    /// The text is not a token.
    Malformed,
    /// No key has this id.
    Unknown,
    /// The id is a key's, the secret isn't.
    WrongSecret,
    /// The key's end has come.
    Expired,
    /// The key was revoked.
    Revoked,
    /// The key is suspended.
    Disabled,
    /// Whether the key is good couldn't be told.
    Unavailable,
}

impl VerifyErrorKind {
    /// Its name: `malformed`, `unknown`, `wrong_secret`, `expired`, `revoked`, `disabled`, `unavailable`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::WrongSecret => "wrong_secret",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for VerifyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<BackendError> for VerifyError {
    fn from(error: BackendError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// What of a record is needed to check tokens, and to say who is calling.
pub(crate) struct KnownKey {
    caller: Caller,
    secret_hash: SecretHash,
    ended: Option<KeyStatus>,
}

impl KnownKey {
    pub(crate) fn of(key: &ApiKey) -> Self {
        Self {
            caller: Caller::of(key),
            secret_hash: key.secret_hash,
            ended: key.ended(),
        }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn lookup_key(&self) -> LookupKey {
        self.secret_hash.lookup_key(self.caller.key_id())
    }

    pub(crate) fn secret_hash(&self) -> &SecretHash {
        &self.secret_hash
    }

    pub(crate) fn status(&self, now: &Now<'_>) -> KeyStatus {
        match (self.ended, self.caller.expires_at()) {
            (Some(ended), _) => ended,
            (None, Some(end)) if now.wall_against(end) >= end => KeyStatus::Expired,
            (None, _) => KeyStatus::Active,
        }
    }
}

/// Whether `token` is the token of `key`, and `key` works now.
///
/// The secret comes first: only its holder learns that a key is expired, revoked or disabled. With
/// no key, a hash is computed and compared all the same.
pub(crate) fn verify(
    token: &ApiKeyToken,
    key: Option<&KnownKey>,
    peppers: &Peppers,
    now: &Now<'_>,
) -> Result<(), VerifyError> {
    let right = peppers
        .verify(token, key.map(|key| &key.secret_hash))
        .map_err(VerifyError::Unavailable)?;
    match key {
        None => Err(VerifyError::Unknown),
        Some(_) if !right => Err(VerifyError::WrongSecret),
        Some(key) => match key.status(now) {
            KeyStatus::Active => Ok(()),
            KeyStatus::Expired => Err(VerifyError::Expired),
            KeyStatus::Disabled => Err(VerifyError::Disabled),
            KeyStatus::Revoked => Err(VerifyError::Revoked),
        },
    }
}
