//! Grants as rows.

use std::{error::Error, time::Duration};

use super::row::{bytes_of, id_of, millis, read_scopes, scopes_text, time};
use crate::{
    clock,
    error::BackendError,
    key::{ClaimHash, GrantId, KeyGrant, Metadata},
    token::KeyId,
};

/// The columns of a grant, in the order of [`GrantRow`]'s fields.
pub(in crate::backend) const GRANT_COLUMNS: &str = "id, claim_hash, user_id, name, scopes, unrestricted, \
     metadata, key_expires_at, key_lifetime, made_by, made_at, expires_at, claimed_at, key_id, revoked_at";

/// A grant as it is read and written. Times are milliseconds since 1970, and the lifetime is in milliseconds.
pub(in crate::backend) struct GrantRow {
    pub(in crate::backend) id: Vec<u8>,
    pub(in crate::backend) claim_hash: Vec<u8>,
    pub(in crate::backend) user_id: String,
    pub(in crate::backend) name: Option<String>,
    pub(in crate::backend) scopes: String,
    pub(in crate::backend) unrestricted: bool,
    pub(in crate::backend) metadata: Option<String>,
    pub(in crate::backend) key_expires_at: Option<i64>,
    pub(in crate::backend) key_lifetime: Option<i64>,
    pub(in crate::backend) made_by: Option<Vec<u8>>,
    pub(in crate::backend) made_at: i64,
    pub(in crate::backend) expires_at: i64,
    pub(in crate::backend) claimed_at: Option<i64>,
    pub(in crate::backend) key_id: Option<Vec<u8>>,
    pub(in crate::backend) revoked_at: Option<i64>,
}

impl GrantRow {
    pub(in crate::backend) fn of(grant: &KeyGrant) -> Self {
        let (scopes, unrestricted) = scopes_text(&grant.scopes);
        let bytes = |id: KeyId| id.as_bytes().to_vec();
        let lifetime = |lifetime| i64::try_from(clock::millis(lifetime)).unwrap_or(i64::MAX);
        Self {
            id: grant.id.as_bytes().to_vec(),
            claim_hash: grant.claim_hash.as_bytes().to_vec(),
            user_id: grant.user_id.clone(),
            name: grant.name.clone(),
            scopes,
            unrestricted,
            metadata: grant.metadata.as_ref().map(|it| it.as_str().to_owned()),
            key_expires_at: grant.key_expires_at.map(millis),
            key_lifetime: grant.key_lifetime.map(lifetime),
            made_by: grant.made_by.map(bytes),
            made_at: millis(grant.made_at),
            expires_at: millis(grant.expires_at),
            claimed_at: grant.claimed_at.map(millis),
            key_id: grant.key_id.map(bytes),
            revoked_at: grant.revoked_at.map(millis),
        }
    }

    /// # Errors
    ///
    /// [`BackendError::corrupt`] where it is no grant that we could have written.
    pub(in crate::backend) fn into_grant(self) -> Result<KeyGrant, BackendError> {
        self.read().map_err(BackendError::corrupt)
    }

    fn read(self) -> Result<KeyGrant, Box<dyn Error + Send + Sync>> {
        let id = bytes_of(self.id, "a grant's id that isn't 16 bytes")?;
        let hash = bytes_of(self.claim_hash, "a hash of a claim that isn't 32 bytes")?;
        let scopes = read_scopes(&self.scopes, self.unrestricted)?;
        let (id, hash) = (GrantId::from_bytes(id), ClaimHash::from_bytes(hash));
        let mut grant = KeyGrant::new(id, hash, self.user_id, scopes);
        grant.name = self.name;
        grant.metadata = self.metadata.map(Metadata::from_stored).transpose()?;
        grant.key_expires_at = self.key_expires_at.map(time).transpose()?;
        let lifetime = self.key_lifetime.map(u64::try_from).transpose()?;
        grant.key_lifetime = lifetime.map(Duration::from_millis);
        grant.made_by = self.made_by.map(id_of).transpose()?;
        grant.made_at = time(self.made_at)?;
        grant.expires_at = time(self.expires_at)?;
        grant.claimed_at = self.claimed_at.map(time).transpose()?;
        grant.key_id = self.key_id.map(id_of).transpose()?;
        grant.revoked_at = self.revoked_at.map(time).transpose()?;
        Ok(grant)
    }
}
