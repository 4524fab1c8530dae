//! A key that is still to be made, for whoever presents a one-time token.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{ApiKey, Metadata, new::earliest};
use crate::{
    clock::{latest, saturating_add},
    scope::Scopes,
    token::{ApiKeyToken, KeyId, SecretHash},
};

/// What is stored of a key that was handed off: what it is to be, and what has become of the grant.
/// No token is in it, neither the key's, which doesn't exist before the claim, nor that of the claim.
///
/// Times have whole milliseconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeyGrant {
    /// Its public id; not the claim token.
    pub id: GrantId,
    /// What the claim's token is found by.
    pub claim_hash: ClaimHash,
    /// Who the key is going to belong to.
    pub user_id: String,
    /// What its owner is going to call it.
    pub name: Option<String>,
    /// What it is going to be allowed.
    pub scopes: Scopes,
    /// What the service is going to keep with it.
    pub metadata: Option<Metadata>,
    /// When the key ends at the latest.
    pub key_expires_at: Option<SystemTime>,
    /// How long the key works at the most, counted from the claim.
    pub key_lifetime: Option<Duration>,
    /// The key with which it was handed off: the grant ends with it.
    pub made_by: Option<KeyId>,
    /// When it was handed off.
    pub made_at: SystemTime,
    /// From when on it can't be claimed any more.
    pub expires_at: SystemTime,
    /// When it was claimed.
    pub claimed_at: Option<SystemTime>,
    /// The key that was made by the claim.
    pub key_id: Option<KeyId>,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
}

impl KeyGrant {
    /// One that was made in 1970, never expires, and is for a key that doesn't, either. Set the other
    /// fields to what is known.
    #[must_use]
    pub fn new(
        id: GrantId,
        claim_hash: ClaimHash,
        user_id: impl Into<String>,
        scopes: Scopes,
    ) -> Self {
        Self {
            id,
            claim_hash,
            user_id: user_id.into(),
            name: None,
            scopes,
            metadata: None,
            key_expires_at: None,
            key_lifetime: None,
            made_by: None,
            made_at: SystemTime::UNIX_EPOCH,
            expires_at: latest(),
            claimed_at: None,
            key_id: None,
            revoked_at: None,
        }
    }

    /// The key that is made by a claim at `now`, for `token`. It ends at `latest_end` where there is one and the
    /// grant has none that is earlier.
    pub(crate) fn to_key(
        &self,
        token: &ApiKeyToken,
        secret_hash: SecretHash,
        now: SystemTime,
        latest_end: Option<SystemTime>,
    ) -> ApiKey {
        let mut key = ApiKey::new(
            token.new_id(),
            self.user_id.clone(),
            self.scopes.clone(),
            secret_hash,
        );
        let lifetime = self.key_lifetime;
        let end_of_life = lifetime.map(|lifetime| saturating_add(now, lifetime));
        key.display_prefix = token.display_prefix();
        key.name.clone_from(&self.name);
        key.metadata.clone_from(&self.metadata);
        key.created_at = now;
        key.expires_at = earliest([self.key_expires_at, end_of_life, latest_end]);
        key.made_by = self.made_by;
        key
    }

    /// What has become of it at `now`. Whether the key that it was [made with](Self::made_by) still works isn't
    /// looked at: one that is pending is refused by the [claim](crate::ApiKeyStore::claim) where it doesn't.
    #[must_use]
    pub fn status(&self, now: SystemTime) -> GrantStatus {
        if self.claimed_at.is_some() {
            GrantStatus::Claimed
        } else if self.revoked_at.is_some() {
            GrantStatus::Revoked
        } else if now >= self.expires_at {
            GrantStatus::Expired
        } else {
            GrantStatus::Pending
        }
    }
}

/// What has become of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantStatus {
    /// Nobody has claimed it, and its time isn't over. Whether the key that it was made with still works is looked
    /// at by the claim.
    Pending,
    /// The key was made.
    Claimed,
    /// Its time was over before anybody claimed it.
    Expired,
    /// It was revoked before anybody claimed it.
    Revoked,
}

/// The name of a grant: `grant_` and 22 characters of base64url. Safe to show and to log: it isn't what
/// a key is claimed with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantId([u8; Self::LEN]);

impl GrantId {
    /// How many random bytes an id is.
    pub const LEN: usize = 16;
    const PREFIX: &str = "grant_";

    /// The id that is these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            Self::PREFIX,
            BASE64_URL_SAFE_NO_PAD.encode(self.0)
        )
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for GrantId {
    type Err = ParseGrantIdError;

    fn from_str(text: &str) -> Result<Self, ParseGrantIdError> {
        let mut id = [0; Self::LEN];
        let encoded = text
            .strip_prefix(Self::PREFIX)
            .ok_or(ParseGrantIdError(()))?;
        match BASE64_URL_SAFE_NO_PAD.decode_slice(encoded, &mut id) {
            Ok(Self::LEN) => Ok(Self(id)),
            _ => Err(ParseGrantIdError(())),
        }
    }
}

/// A text is not `grant_` and 22 characters of base64url. It doesn't repeat the text, which may have been
/// what a key is claimed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a grant's id is `grant_` and 22 characters of [A-Za-z0-9_-]")]
pub struct ParseGrantIdError(());

/// What is kept of the token that a key is claimed with: its SHA-256. `Debug` doesn't show it.
///
/// A plain hash and no HMAC: the token has 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimHash([u8; Self::LEN]);

impl ClaimHash {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// The hash that is these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a backend's column or index.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for ClaimHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimHash(..)")
    }
}
