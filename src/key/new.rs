//! What a new key is to be, and what it is then.

use std::time::{Duration, SystemTime};

use super::{ApiKey, ClaimHash, GrantId, KeyGrant, Metadata, check_scopes, check_text};
use crate::{
    clock::{saturating_add, storable, storable_duration},
    error::InvalidKey,
    scope::Scopes,
    token::{ApiKeyToken, KeyId, SecretHash},
};

/// What a key is to be, for [`ApiKeyStore::create`](crate::ApiKeyStore::create).
///
/// ```
/// use std::time::Duration;
/// use tower_api_key::{NewApiKey, Scopes};
///
/// let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?)
///     .name("CI")
///     .expires_in(Duration::from_secs(90 * 24 * 60 * 60));
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is made before it is given to `ApiKeyStore::create`"]
pub struct NewApiKey {
    user_id: String,
    name: Option<String>,
    scopes: Scopes,
    metadata: Option<Metadata>,
    expiry: Expiry,
    /// That of the key that makes it.
    latest_end: Option<SystemTime>,
    made_by: Option<KeyId>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Expiry {
    Never,
    At(SystemTime),
    In(Duration),
}

impl Expiry {
    pub(super) fn end(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(storable(end)),
            Self::In(duration) => Some(saturating_add(now, duration)),
        }
    }
}

impl NewApiKey {
    /// The longest user id and the longest name, in bytes.
    pub const MAX_TEXT_LEN: usize = 255;

    /// A key of `user_id` with these scopes, without a name, valid without end.
    ///
    /// A user id has 1 to 255 bytes, none of them a character
    /// that controls lines or the direction of text.
    pub fn for_user(user_id: impl Into<String>, scopes: Scopes) -> Self {
        Self {
            user_id: user_id.into(),
            name: None,
            scopes,
            metadata: None,
            expiry: Expiry::Never,
            latest_end: None,
            made_by: None,
        }
    }

    /// What the owner will know it by: at most 255 bytes, with the same exceptions as a
    /// user id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What the service keeps with it.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// The moment from which on the key no longer works. One that has passed makes a key that never
    /// worked.
    ///
    /// It is stored in whole milliseconds, between 1970 and the end of 9999.
    pub fn expires_at(mut self, end: SystemTime) -> Self {
        self.expiry = Expiry::At(end);
        self
    }

    /// How long the key works, counted from its creation, the end of 9999 at the latest.
    pub fn expires_in(mut self, duration: Duration) -> Self {
        self.expiry = Expiry::In(duration);
        self
    }

    pub(crate) fn user_id(&self) -> &str {
        &self.user_id
    }

    pub(crate) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// The same, made with the key `maker`, and ending with it at the latest.
    pub(crate) fn made_by(mut self, maker: &ApiKey) -> Self {
        self.latest_end = maker.ends_at();
        self.made_by = Some(maker.id);
        self
    }

    /// What is stored of such a key until it is claimed with what has this hash.
    pub(crate) fn into_grant(
        self,
        id: GrantId,
        claim_hash: ClaimHash,
        now: SystemTime,
        ttl: Duration,
    ) -> KeyGrant {
        let mut grant = KeyGrant::new(id, claim_hash, self.user_id, self.scopes);
        grant.name = self.name;
        grant.metadata = self.metadata;
        (grant.key_expires_at, grant.key_lifetime) = match self.expiry {
            Expiry::Never => (None, None),
            Expiry::At(end) => (Some(storable(end)), None),
            Expiry::In(duration) => (None, Some(storable_duration(duration))),
        };
        grant.key_expires_at = earliest([grant.key_expires_at, self.latest_end]);
        grant.made_by = self.made_by;
        grant.made_at = now;
        // It can't be claimed after the end of the key that it was made with.
        let end = saturating_add(now, ttl);
        grant.expires_at = self.latest_end.map_or(end, |latest| latest.min(end));
        grant
    }

    /// The record of such a key, made at `now` for `token`.
    pub(crate) fn into_key(
        self,
        token: &ApiKeyToken,
        secret_hash: SecretHash,
        now: SystemTime,
    ) -> ApiKey {
        // A new token says which key it is.
        let mut key = ApiKey::new(token.new_id(), self.user_id, self.scopes, secret_hash);
        key.display_prefix = token.display_prefix();
        key.name = self.name;
        key.metadata = self.metadata;
        key.created_at = now;
        key.expires_at = earliest([self.expiry.end(now), self.latest_end]);
        key.made_by = self.made_by;
        key
    }

    pub(crate) fn check(&self) -> Result<(), InvalidKey> {
        if self.user_id.is_empty() {
            return Err(InvalidKey {
                field: "user_id",
                problem: "is empty",
            });
        }
        check_text("user_id", &self.user_id)?;
        check_text("name", self.name.as_deref().unwrap_or_default())?;
        check_scopes(&self.scopes)?;
        self.metadata.as_ref().map_or(Ok(()), Metadata::check)
    }
}

/// The earliest of the ends that there are.
pub(super) fn earliest<const N: usize>(ends: [Option<SystemTime>; N]) -> Option<SystemTime> {
    ends.into_iter().flatten().min()
}

/// A key that was just made, with its token: the one time that the token can be had.
#[derive(Debug, Clone)]
#[must_use = "the token can't be had again"]
pub struct IssuedKey {
    pub(crate) token: ApiKeyToken,
    pub(crate) key: ApiKey,
}

impl IssuedKey {
    /// The plaintext, to be handed to the owner.
    #[must_use]
    pub fn token(&self) -> &ApiKeyToken {
        &self.token
    }

    /// What was stored.
    #[must_use]
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// The token and the key.
    #[must_use]
    pub fn into_parts(self) -> (ApiKeyToken, ApiKey) {
        (self.token, self.key)
    }
}
