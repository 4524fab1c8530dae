//! The stored record of a key, and what one is made from.

mod grant;
mod json;
mod metadata;
mod new;
mod reason;
mod rotation;
mod update;

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

#[cfg(feature = "json")]
pub use self::metadata::ReadMetadataError;
pub use self::{
    grant::{ClaimHash, GrantId, GrantStatus, KeyGrant, ParseGrantIdError},
    metadata::Metadata,
    new::{IssuedKey, NewApiKey},
    reason::RevocationReason,
    rotation::Rotation,
    update::KeyUpdate,
};
use crate::{
    error::{BackendError, InvalidKey},
    scope::Scopes,
    token::{Brand, DisplayPrefix, KeyId, LookupKey, SecretHash},
};

/// A key as it is stored: everything but its secret.
///
/// Sources and backends make these from their rows: [`ApiKey::new`] takes what every key has, and
/// the fields can be set afterwards. Times have whole milliseconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiKey {
    /// The public half of the token. Of an [opaque](crate::DigestFormat) one, what was drawn for it.
    pub id: KeyId,
    /// Who the key belongs to.
    pub user_id: String,
    /// What its owner calls it.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// The first characters of the token, for lists.
    pub display_prefix: DisplayPrefix,
    /// What the secret is checked against.
    pub secret_hash: SecretHash,
    /// What the service keeps with it.
    pub metadata: Option<Metadata>,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it no longer works. To show when a key ends, take [`ends_at`](Self::ends_at), which knows of
    /// overlaps, too.
    pub expires_at: Option<SystemTime>,
    /// From when on it no longer works because another has taken its place: the end of the overlap of a
    /// rotation.
    pub retires_at: Option<SystemTime>,
    /// When it last let somebody in, to the minute.
    pub last_used_at: Option<SystemTime>,
    /// When it was revoked, for good.
    pub revoked_at: Option<SystemTime>,
    /// Why it was revoked, where that was said.
    pub revocation_reason: Option<RevocationReason>,
    /// When it was suspended, until it is enabled again.
    pub disabled_at: Option<SystemTime>,
    /// The key whose place it has taken.
    pub predecessor: Option<KeyId>,
    /// The key that takes its place.
    pub successor: Option<KeyId>,
    /// The key with which it was made, where a key made it.
    pub made_by: Option<KeyId>,
    /// Counts the changes, from 1. Being used isn't one.
    pub version: u64,
}

impl ApiKey {
    /// A key that is valid without end, has the version 1, and was created in 1970.
    ///
    /// `secret_hash` comes from [`Peppers::hash`](crate::Peppers::hash), or from where it was kept.
    /// The display prefix is that of a token of the brand `pk`. Set the other fields to what is
    /// known.
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use tower_api_key::{ApiKey, ApiKeyToken, Pepper, Peppers, Scopes};
    ///
    /// let peppers = Peppers::new(Pepper::random("v1")?);
    /// let token = ApiKeyToken::generate(&Default::default())?;
    /// let scopes = Scopes::of(["notes:read"])?;
    /// let id = token.key_id().ok_or("a new token has an id")?;
    /// let mut key = ApiKey::new(id, "user_1", scopes, peppers.hash(&token)?);
    /// key.name = Some("CI".to_owned());
    /// key.created_at = SystemTime::now();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(
        id: KeyId,
        user_id: impl Into<String>,
        scopes: Scopes,
        secret_hash: SecretHash,
    ) -> Self {
        Self {
            id,
            user_id: user_id.into(),
            name: None,
            scopes,
            display_prefix: DisplayPrefix::of(&Brand::default(), &id),
            secret_hash,
            metadata: None,
            created_at: UNIX_EPOCH,
            expires_at: None,
            retires_at: None,
            last_used_at: None,
            revoked_at: None,
            revocation_reason: None,
            disabled_at: None,
            predecessor: None,
            successor: None,
            made_by: None,
            version: 1,
        }
    }

    /// What this record is stored and found under: its id, or the first 24 bytes of the digest of an opaque
    /// token.
    #[must_use]
    pub fn lookup_key(&self) -> LookupKey {
        self.secret_hash.lookup_key(&self.id)
    }

    /// Whether the key works at `now`, and if not, why.
    ///
    /// A key that is revoked and expired is called revoked.
    #[must_use]
    pub fn status(&self, now: SystemTime) -> KeyStatus {
        match self.ended() {
            Some(ended) => ended,
            None if self.ends_at().is_some_and(|end| now >= end) => KeyStatus::Expired,
            None => KeyStatus::Active,
        }
    }

    /// From when on it no longer works, whether it expires or another takes its place.
    #[must_use]
    pub fn ends_at(&self) -> Option<SystemTime> {
        let ends = [self.expires_at, self.retires_at];
        ends.into_iter().flatten().min()
    }

    /// Whether it is neither revoked nor past its end at `now`; it may be suspended.
    pub(crate) fn may_work(&self, now: SystemTime) -> bool {
        self.revoked_at.is_none() && self.ends_at().is_none_or(|end| now < end)
    }

    /// Marks it as revoked; whether it wasn't already. The version is left alone.
    pub(crate) fn revoke(&mut self, at: SystemTime, reason: Option<&RevocationReason>) -> bool {
        let changes = self.revoked_at.is_none();
        if changes {
            self.revoked_at = Some(at);
            self.revocation_reason = reason.cloned();
        }
        changes
    }

    /// # Errors
    ///
    /// Where there is none: no record was changed so often.
    pub(crate) fn next_version(&self) -> Result<u64, BackendError> {
        self.version.checked_add(1).ok_or_else(|| {
            BackendError::corrupt("a record that claims to have been changed 2^64 times")
        })
    }

    /// What the key is whatever the time.
    pub(crate) fn ended(&self) -> Option<KeyStatus> {
        if self.revoked_at.is_some() {
            Some(KeyStatus::Revoked)
        } else {
            self.disabled_at.map(|_| KeyStatus::Disabled)
        }
    }
}

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyStatus {
    /// It works.
    Active,
    /// Its end has come, `expires_at` or `retires_at`.
    Expired,
    /// It is suspended, and may be enabled again.
    Disabled,
    /// It was revoked, for good.
    Revoked,
}

impl KeyStatus {
    /// The name of the state: `active`, `expired`, `disabled`, `revoked`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
fn check_text(field: &'static str, text: &str) -> Result<(), InvalidKey> {
    if text.len() > NewApiKey::MAX_TEXT_LEN {
        return Err(InvalidKey {
            field,
            problem: "is longer than 255 bytes",
        });
    }
    if text.chars().any(could_forge_a_line) {
        return Err(InvalidKey {
            field,
            problem: "has a character that controls lines or the direction of text, and could forge a log line",
        });
    }
    Ok(())
}

/// A cache holds keys by their number, so each has to be small.
pub(crate) fn check_scopes(scopes: &Scopes) -> Result<(), InvalidKey> {
    if scopes.len_in_bytes() > Scopes::MAX_BYTES {
        return Err(InvalidKey {
            field: "scopes",
            problem: "are longer than 4,096 bytes together",
        });
    }
    Ok(())
}

/// Control characters, line and paragraph separators, and what turns the direction of text.
fn could_forge_a_line(char: char) -> bool {
    let marks = ['\u{61c}', '\u{200e}', '\u{200f}'];
    char.is_control()
        || marks.contains(&char)
        || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
