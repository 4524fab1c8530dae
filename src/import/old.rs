//! A key of another program, said field by field.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{OldScopes, RefusedReason, RefusedRow};
use crate::{
    clock::storable,
    error::{InvalidKey, RandomError},
    key::{ApiKey, Metadata, NewApiKey, check_scopes},
    scope::Scopes,
    token::{
        DigestAlgorithm, DisplayPrefix, KeyId, PepperId, Peppers, SecretHash, TokenFormat, random,
    },
};

/// A key that another program has made, for [`ApiKeyStore::import`](crate::ApiKeyStore::import).
///
/// What can't be taken over as it stands is found out by the import, which refuses that key and goes on with
/// the others.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use tower_api_key::OldKey;
///
/// let hash = "d78e54e63c5632796697bf55383eadee954f9a6c39f85f4f7d6d78dda806de92";
/// let old = OldKey::by_digest(hash, "user_1")
///     .name("CI")
///     .scopes(["notes:read"])
///     .created_at(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
/// ```
#[derive(Clone)]
#[must_use = "nothing is imported before it is given to `ApiKeyStore::import`"]
pub struct OldKey {
    hash: Hash,
    user_id: String,
    name: Option<String>,
    scopes: Vec<String>,
    display_prefix: Option<DisplayPrefix>,
    metadata: Option<Metadata>,
    created_at: Option<SystemTime>,
    expires_at: Option<SystemTime>,
    last_used_at: Option<SystemTime>,
    revoked_at: Option<SystemTime>,
    disabled_at: Option<SystemTime>,
}

/// What was kept of the secret, as it was found.
#[derive(Clone)]
enum Hash {
    Digest(String, DigestAlgorithm),
    Hmac {
        id: String,
        pepper: PepperId,
        hash: String,
    },
}

/// What a store knows that keys are imported into.
pub(crate) struct Known<'a> {
    pub(crate) peppers: &'a Peppers,
    pub(crate) format: &'a TokenFormat,
    pub(crate) now: SystemTime,
}

impl OldKey {
    /// The key of `user_id` of whose token `digest` is the SHA-256, in hex. The store has to know
    /// [how the tokens look](crate::ApiKeyStoreBuilder::digest_format). The key gets a random id.
    pub fn by_digest(digest: impl Into<String>, user_id: impl Into<String>) -> Self {
        let hash = Hash::Digest(digest.into(), DigestAlgorithm::Sha256);
        Self::new(hash, user_id.into())
    }

    /// The same, of whose token `digest` is the SHA-512, in hex. One of the store's
    /// [formats](crate::ApiKeyStoreBuilder::digest_format) has to have that
    /// [algorithm](crate::DigestFormat::algorithm).
    pub fn by_sha512(digest: impl Into<String>, user_id: impl Into<String>) -> Self {
        let hash = Hash::Digest(digest.into(), DigestAlgorithm::Sha512);
        Self::new(hash, user_id.into())
    }

    /// The key `id` of `user_id`, which was made elsewhere in the form of our own: its token is
    /// `<brand>.<id>.<secret>`, and `hash` is HMAC-SHA256 of the secret under `pepper`, in hex. The store has to
    /// know that pepper.
    pub fn by_hmac(
        id: impl Into<String>,
        pepper: PepperId,
        hash: impl Into<String>,
        user_id: impl Into<String>,
    ) -> Self {
        let (id, hash) = (id.into(), hash.into());
        Self::new(Hash::Hmac { id, pepper, hash }, user_id.into())
    }

    fn new(hash: Hash, user_id: String) -> Self {
        Self {
            hash,
            user_id,
            name: None,
            scopes: Vec::new(),
            display_prefix: None,
            metadata: None,
            created_at: None,
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
            disabled_at: None,
        }
    }

    /// What its owner calls it. An empty one is none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into()).filter(|name| !name.is_empty());
        self
    }

    /// What it may do, one scope each. What it means that there are none, or a `*` among them, is said to the
    /// import.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item: Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// What is shown of its token in lists. By a digest it is otherwise the prefix of the one
    /// [format](crate::DigestFormat) that the store knows, or `*`.
    pub fn display_prefix(mut self, prefix: DisplayPrefix) -> Self {
        self.display_prefix = Some(prefix);
        self
    }

    /// What the service keeps with it.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// When it was made. Where it isn't known, it is the time of the import.
    pub fn created_at(mut self, at: SystemTime) -> Self {
        self.created_at = Some(at);
        self
    }

    /// From when on it no longer works.
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// When it was last used.
    pub fn last_used_at(mut self, at: SystemTime) -> Self {
        self.last_used_at = Some(at);
        self
    }

    /// When it was revoked, for good.
    pub fn revoked_at(mut self, at: SystemTime) -> Self {
        self.revoked_at = Some(at);
        self
    }

    /// When it was suspended, until it is [enabled](crate::ApiKeyStore::enable) again.
    pub fn disabled_at(mut self, at: SystemTime) -> Self {
        self.disabled_at = Some(at);
        self
    }

    /// The record of such a key. `number` is its place among those that are imported.
    pub(crate) fn into_key(
        self,
        scopes: &OldScopes,
        known: &Known<'_>,
        number: usize,
    ) -> Result<Result<ApiKey, RefusedRow>, RandomError> {
        let drawn = KeyId::from_bytes(random()?);
        let (hash, user_id) = (self.hash.clone(), self.user_id.clone());
        let key = self.record(drawn, scopes, known);
        Ok(key.map_err(|reason| match hash {
            Hash::Digest(..) => RefusedRow::of_number(number, &user_id, reason),
            Hash::Hmac { id, .. } => RefusedRow::of(&id, reason),
        }))
    }

    fn record(
        self,
        drawn: KeyId,
        scopes: &OldScopes,
        known: &Known<'_>,
    ) -> Result<ApiKey, RefusedReason> {
        let (id, hash, prefix) = match &self.hash {
            Hash::Digest(digest, algorithm) => {
                let prefix = known.format.digest_prefix(*algorithm);
                let prefix = prefix.ok_or(RefusedReason::NoDigestFormat)?;
                let hash = match algorithm {
                    DigestAlgorithm::Sha512 => SecretHash::from_sha512_hex(digest)?,
                    DigestAlgorithm::Sha256 => SecretHash::from_digest_hex(digest)?,
                };
                (drawn, hash, prefix)
            }
            Hash::Hmac { id, pepper, hash } => {
                let id: KeyId = id.parse()?;
                let hash = SecretHash::from_hex(*pepper, hash)?;
                known.peppers.knows(pepper)?;
                (id, hash, DisplayPrefix::of(known.format.brand(), &id))
            }
        };
        let as_new = NewApiKey::for_user(&self.user_id, Scopes::none());
        let as_new = as_new.name(self.name.as_deref().unwrap_or_default());
        match &self.metadata {
            Some(metadata) => as_new.metadata(metadata.clone()).check()?,
            None => as_new.check()?,
        }
        let scopes = scopes.of(self.scopes.iter().map(String::as_str))?;
        check_scopes(&scopes)?;
        let mut key = ApiKey::new(id, self.user_id, scopes, hash);
        key.name = self.name;
        key.display_prefix = self.display_prefix.unwrap_or(prefix);
        key.metadata = self.metadata;
        key.created_at = time("created_at", self.created_at)?.unwrap_or(known.now);
        key.expires_at = time("expires_at", self.expires_at)?;
        key.last_used_at = time("last_used_at", self.last_used_at)?;
        key.revoked_at = time("revoked_at", self.revoked_at)?;
        key.disabled_at = time("disabled_at", self.disabled_at)?;
        Ok(key)
    }
}

fn time(
    field: &'static str,
    time: Option<SystemTime>,
) -> Result<Option<SystemTime>, RefusedReason> {
    let Some(time) = time else { return Ok(None) };
    let stored = storable(time);
    // What is left out is less than a millisecond, unless it is a time that can't be stored.
    let is_kept = time
        .duration_since(stored)
        .is_ok_and(|rest| rest < Duration::from_millis(1));
    if time < UNIX_EPOCH || !is_kept {
        let problem = "is not between 1970 and 9999";
        return Err(RefusedReason::Field(InvalidKey { field, problem }));
    }
    Ok(Some(stored))
}

/// Shows nothing of the secret's hash.
impl fmt::Debug for OldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldKey")
            .field("user_id", &self.user_id)
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
