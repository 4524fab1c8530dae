//! Records as rows.

use std::{error::Error, time::SystemTime};

use crate::{
    clock::{from_unix_millis, unix_millis},
    error::BackendError,
    key::ApiKey,
    scope::Scopes,
    token::{KeyId, PepperId, SecretHash},
};

/// A record as it was read. Times are milliseconds since 1970.
pub(in crate::backend) struct Row {
    pub(in crate::backend) id: Vec<u8>,
    pub(in crate::backend) user_id: String,
    pub(in crate::backend) name: Option<String>,
    pub(in crate::backend) scopes: String,
    pub(in crate::backend) unrestricted: bool,
    pub(in crate::backend) display_prefix: String,
    pub(in crate::backend) pepper: String,
    pub(in crate::backend) secret_hash: String,
    pub(in crate::backend) created_at: i64,
    pub(in crate::backend) expires_at: Option<i64>,
    pub(in crate::backend) last_used_at: Option<i64>,
    pub(in crate::backend) revoked_at: Option<i64>,
    pub(in crate::backend) disabled_at: Option<i64>,
    pub(in crate::backend) version: i64,
}

impl Row {
    /// # Errors
    ///
    /// [`BackendError::corrupt`] where it is no record that we could have written.
    pub(in crate::backend) fn into_key(self) -> Result<ApiKey, BackendError> {
        self.read().map_err(BackendError::corrupt)
    }

    fn read(self) -> Result<ApiKey, Box<dyn Error + Send + Sync>> {
        let id = KeyId::from_bytes(
            self.id
                .try_into()
                .map_err(|_| "an id that isn't 24 bytes")?,
        );
        let scopes = match (self.unrestricted, self.scopes.as_str()) {
            (true, "") => Scopes::unrestricted(),
            (true, _) => return Err("a key that is unrestricted and has scopes".into()),
            (false, "") => Scopes::none(),
            (false, scopes) => Scopes::of(scopes.split(' '))?,
        };
        let pepper = PepperId::new(&self.pepper).map_err(|_| "a pepper's id that isn't one")?;
        let secret_hash = SecretHash::from_hex(pepper, &self.secret_hash)?;
        let mut key = ApiKey::new(id, self.user_id, scopes, secret_hash);
        key.name = self.name;
        key.display_prefix = self.display_prefix.parse()?;
        key.created_at = time(self.created_at)?;
        key.expires_at = self.expires_at.map(time).transpose()?;
        key.last_used_at = self.last_used_at.map(time).transpose()?;
        key.revoked_at = self.revoked_at.map(time).transpose()?;
        key.disabled_at = self.disabled_at.map(time).transpose()?;
        key.version = u64::try_from(self.version)?;
        Ok(key)
    }
}

fn time(millis: i64) -> Result<SystemTime, &'static str> {
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
