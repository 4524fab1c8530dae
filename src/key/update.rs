//! What is to change of a key.

use std::time::{Duration, SystemTime};

use super::{ApiKey, Metadata, check_scopes, check_text, new::Expiry};
use crate::{error::InvalidKey, scope::Scopes};

/// What is to change of a key, for [`ApiKeyStore::update`](crate::ApiKeyStore::update). What isn't named
/// stays as it is.
///
/// ```
/// use tower_api_key::{KeyUpdate, Scopes};
///
/// let update = KeyUpdate::new().scopes(Scopes::of(["notes:read"])?).never_expires().if_version(3);
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing changes before it is given to `ApiKeyStore::update`"]
pub struct KeyUpdate {
    name: Option<New<String>>,
    metadata: Option<New<Metadata>>,
    scopes: Option<Scopes>,
    expiry: Option<Expiry>,
    version: Option<u64>,
}

#[derive(Debug, Clone)]
enum New<T> {
    None,
    Is(T),
}

impl<T: Clone> New<T> {
    fn value(&self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Is(value) => Some(value.clone()),
        }
    }
}

impl KeyUpdate {
    /// One that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another name, of the same form as [`NewApiKey::name`](super::NewApiKey::name).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(New::Is(name.into()));
        self
    }

    /// No name any more.
    pub fn no_name(mut self) -> Self {
        self.name = Some(New::None);
        self
    }

    /// Other metadata in place of what the service keeps with it.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(New::Is(metadata));
        self
    }

    /// No metadata any more.
    pub fn no_metadata(mut self) -> Self {
        self.metadata = Some(New::None);
        self
    }

    /// Other scopes in place of those that it has.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// Another end; see [`NewApiKey::expires_at`](super::NewApiKey::expires_at). A key that has expired works again where this one is in
    /// the future.
    pub fn expires_at(mut self, end: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(end));
        self
    }

    /// An end that is counted from the update; see [`NewApiKey::expires_in`](super::NewApiKey::expires_in).
    pub fn expires_in(mut self, duration: Duration) -> Self {
        self.expiry = Some(Expiry::In(duration));
        self
    }

    /// No end any more.
    pub fn never_expires(mut self) -> Self {
        self.expiry = Some(Expiry::Never);
        self
    }

    /// Only where the key has this [version](ApiKey::version) still: nothing that another has changed
    /// meanwhile is overwritten.
    pub fn if_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            name,
            scopes,
            metadata,
            expiry,
            version: _,
        } = self;
        name.is_none() && scopes.is_none() && metadata.is_none() && expiry.is_none()
    }

    pub(crate) fn is_for(&self, key: &ApiKey) -> bool {
        self.version.is_none_or(|version| version == key.version)
    }

    pub(crate) fn apply(&self, key: &mut ApiKey, now: SystemTime) {
        if let Some(name) = &self.name {
            key.name = name.value();
        }
        if let Some(metadata) = &self.metadata {
            key.metadata = metadata.value();
        }
        if let Some(scopes) = &self.scopes {
            key.scopes = scopes.clone();
        }
        if let Some(expiry) = self.expiry {
            key.expires_at = expiry.end(now);
        }
    }

    pub(crate) fn check(&self) -> Result<(), InvalidKey> {
        if let Some(New::Is(name)) = &self.name {
            check_text("name", name)?;
        }
        self.scopes.as_ref().map_or(Ok(()), check_scopes)?;
        match &self.metadata {
            Some(New::Is(metadata)) => metadata.check(),
            _ => Ok(()),
        }
    }
}
