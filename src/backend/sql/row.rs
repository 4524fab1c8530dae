//! Records as rows.

use std::{error::Error, time::SystemTime};

use crate::{
    backend::PepperUsage,
    clock::{from_unix_millis, unix_millis},
    error::BackendError,
    key::{ApiKey, Metadata},
    scope::Scopes,
    token::{KeyId, PepperCheck, PepperId, SecretHash},
};

/// A record as it is read and written. Times are milliseconds since 1970.
pub(in crate::backend) struct Row {
    pub(in crate::backend) id: Vec<u8>,
    pub(in crate::backend) user_id: String,
    pub(in crate::backend) name: Option<String>,
    pub(in crate::backend) scopes: String,
    pub(in crate::backend) unrestricted: bool,
    pub(in crate::backend) display_prefix: String,
    pub(in crate::backend) pepper: Option<String>,
    pub(in crate::backend) secret_hash: String,
    pub(in crate::backend) created_at: i64,
    pub(in crate::backend) expires_at: Option<i64>,
    pub(in crate::backend) last_used_at: Option<i64>,
    pub(in crate::backend) revoked_at: Option<i64>,
    pub(in crate::backend) disabled_at: Option<i64>,
    pub(in crate::backend) version: i64,
    pub(in crate::backend) retires_at: Option<i64>,
    pub(in crate::backend) revocation_reason: Option<String>,
    pub(in crate::backend) metadata: Option<String>,
    pub(in crate::backend) predecessor: Option<Vec<u8>>,
    pub(in crate::backend) successor: Option<Vec<u8>>,
    pub(in crate::backend) made_by: Option<Vec<u8>>,
}

impl Row {
    pub(in crate::backend) fn of(key: &ApiKey) -> Self {
        let (scopes, unrestricted) = scopes_text(&key.scopes);
        let bytes = |id: KeyId| id.as_bytes().to_vec();
        Self {
            id: bytes(key.id),
            user_id: key.user_id.clone(),
            name: key.name.clone(),
            scopes,
            unrestricted,
            display_prefix: key.display_prefix.as_str().to_owned(),
            pepper: key.secret_hash.pepper().map(ToString::to_string),
            secret_hash: key.secret_hash.to_hex(),
            created_at: millis(key.created_at),
            expires_at: key.expires_at.map(millis),
            last_used_at: key.last_used_at.map(millis),
            revoked_at: key.revoked_at.map(millis),
            disabled_at: key.disabled_at.map(millis),
            version: i64::try_from(key.version).unwrap_or(i64::MAX),
            retires_at: key.retires_at.map(millis),
            revocation_reason: key.revocation_reason.as_ref().map(ToString::to_string),
            metadata: key.metadata.as_ref().map(|it| it.as_str().to_owned()),
            predecessor: key.predecessor.map(bytes),
            successor: key.successor.map(bytes),
            made_by: key.made_by.map(bytes),
        }
    }

    /// What the key is looked up by, where that isn't its id.
    pub(in crate::backend) fn digest_key(key: &ApiKey) -> Option<Vec<u8>> {
        let is_digest = key.secret_hash.pepper().is_none();
        is_digest.then(|| key.lookup_key().as_bytes().to_vec())
    }

    /// # Errors
    ///
    /// [`BackendError::corrupt`] where it is no record that we could have written.
    pub(in crate::backend) fn into_key(self) -> Result<ApiKey, BackendError> {
        self.read().map_err(BackendError::corrupt)
    }

    fn read(self) -> Result<ApiKey, Box<dyn Error + Send + Sync>> {
        let id = id_of(self.id)?;
        let scopes = read_scopes(&self.scopes, self.unrestricted)?;
        let secret_hash = match self.pepper {
            None => SecretHash::from_digest_hex(&self.secret_hash)?,
            Some(pepper) => {
                let pepper = PepperId::new(&pepper).map_err(|_| "a pepper's id that isn't one")?;
                SecretHash::from_hex(pepper, &self.secret_hash)?
            }
        };
        let mut key = ApiKey::new(id, self.user_id, scopes, secret_hash);
        key.name = self.name;
        key.display_prefix = self.display_prefix.parse()?;
        key.created_at = time(self.created_at)?;
        key.expires_at = self.expires_at.map(time).transpose()?;
        key.last_used_at = self.last_used_at.map(time).transpose()?;
        key.revoked_at = self.revoked_at.map(time).transpose()?;
        key.disabled_at = self.disabled_at.map(time).transpose()?;
        key.retires_at = self.retires_at.map(time).transpose()?;
        key.revocation_reason = self.revocation_reason.map(|text| match text.parse() {
            Ok(reason) => reason,
        });
        key.metadata = self.metadata.map(Metadata::from_stored).transpose()?;
        key.predecessor = self.predecessor.map(id_of).transpose()?;
        key.successor = self.successor.map(id_of).transpose()?;
        key.made_by = self.made_by.map(id_of).transpose()?;
        key.version = u64::try_from(self.version)?;
        Ok(key)
    }
}

/// How many keys name a pepper, as a database counts them.
///
/// # Errors
///
/// [`BackendError::corrupt`] where there can be no such pepper.
pub(in crate::backend) fn read_pepper_usage(
    pepper: Option<String>,
    keys: i64,
    working: i64,
) -> Result<PepperUsage, BackendError> {
    let pepper = pepper.map(|id| PepperId::new(&id)).transpose();
    let pepper = pepper.map_err(|_| BackendError::corrupt("a pepper's id that isn't one"))?;
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    Ok(PepperUsage::new(pepper, count(keys), count(working)))
}

/// # Errors
///
/// [`BackendError::corrupt`] where it is no check value.
pub(in crate::backend) fn read_pepper_check(
    id: &str,
    check_value: &str,
) -> Result<PepperCheck, BackendError> {
    let id =
        PepperId::new(id).map_err(|_| BackendError::corrupt("a pepper's id that isn't one"))?;
    PepperCheck::from_hex(id, check_value).map_err(BackendError::corrupt)
}

/// # Errors
///
/// Where no key can have them.
pub(in crate::backend) fn read_scopes(
    scopes: &str,
    unrestricted: bool,
) -> Result<Scopes, Box<dyn Error + Send + Sync>> {
    match (unrestricted, scopes) {
        (true, "") => Ok(Scopes::unrestricted()),
        (true, _) => Err("a key that is unrestricted and has scopes".into()),
        (false, "") => Ok(Scopes::none()),
        (false, scopes) => Ok(Scopes::of(scopes.split(' '))?),
    }
}

/// # Errors
///
/// [`BackendError::corrupt`] where it isn't an id.
pub(in crate::backend) fn read_id(bytes: Vec<u8>) -> Result<KeyId, BackendError> {
    id_of(bytes).map_err(BackendError::corrupt)
}

pub(super) fn id_of(bytes: Vec<u8>) -> Result<KeyId, &'static str> {
    bytes_of(bytes, "an id that isn't 24 bytes").map(KeyId::from_bytes)
}

pub(super) fn bytes_of<const N: usize>(
    bytes: Vec<u8>,
    otherwise: &'static str,
) -> Result<[u8; N], &'static str> {
    bytes.try_into().map_err(|_| otherwise)
}

pub(super) fn time(millis: i64) -> Result<SystemTime, &'static str> {
    let millis = u64::try_from(millis).ok();
    millis
        .and_then(from_unix_millis)
        .ok_or("a time before 1970 or beyond all years")
}

/// The milliseconds since 1970.
pub(in crate::backend) fn millis(time: SystemTime) -> i64 {
    i64::try_from(unix_millis(time)).unwrap_or(i64::MAX)
}

/// The columns `scopes` and `unrestricted`: scopes with a space between them (RFC 6749 §3.3).
pub(in crate::backend) fn scopes_text(scopes: &Scopes) -> (String, bool) {
    if scopes.is_unrestricted() {
        (String::new(), true)
    } else {
        (scopes.iter().collect::<Vec<_>>().join(" "), false)
    }
}
