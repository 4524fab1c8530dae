//! Which keys a list is of.

use std::time::{Duration, SystemTime};

use crate::{
    clock::storable,
    key::ApiKey,
    token::{KeyId, PepperId},
};

/// Which keys are listed: all that fit everything that was set. Revoked ones are left out unless
/// [they are asked for](Self::with_revoked). Times are rounded up to whole milliseconds, which those of keys have.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_api_key::KeyFilter;
///
/// let now = SystemTime::now();
/// let week = Duration::from_secs(7 * 24 * 60 * 60);
/// let expiring = KeyFilter::new().ends_from(now).ends_before(now + week);
/// let forgotten = KeyFilter::new().unused_since(now - 12 * week);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct KeyFilter {
    user_id: Option<String>,
    ends_from: Option<SystemTime>,
    ends_before: Option<SystemTime>,
    unused_since: Option<SystemTime>,
    made_by: Option<KeyId>,
    pepper: Option<PepperId>,
    with_revoked: bool,
}

impl KeyFilter {
    /// All keys but revoked ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys of this user.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.user_id = Some(user_id.into());
        self
    }

    /// Keys whose [end](ApiKey::ends_at) is at this moment or later.
    pub fn ends_from(mut self, time: SystemTime) -> Self {
        self.ends_from = Some(next_millisecond(time));
        self
    }

    /// Keys whose [end](ApiKey::ends_at) is before this moment.
    pub fn ends_before(mut self, time: SystemTime) -> Self {
        self.ends_before = Some(next_millisecond(time));
        self
    }

    /// Keys that were made before this moment, and not used since.
    pub fn unused_since(mut self, time: SystemTime) -> Self {
        self.unused_since = Some(next_millisecond(time));
        self
    }

    /// Keys that were [made with](ApiKey::made_by) this key.
    pub fn made_by(mut self, maker: KeyId) -> Self {
        self.made_by = Some(maker);
        self
    }

    /// Keys whose hash is under this pepper: those that nobody can check once it is dropped. Backends look at every
    /// record for it.
    ///
    /// [`pepper_usage`](crate::ApiKeyStore::pepper_usage) counts revoked keys, too. Here they have to be
    /// [asked for](Self::with_revoked).
    pub fn pepper(mut self, pepper: PepperId) -> Self {
        self.pepper = Some(pepper);
        self
    }

    /// Revoked keys, too.
    pub fn with_revoked(mut self) -> Self {
        self.with_revoked = true;
        self
    }

    /// Whose keys, where it isn't everybody's.
    #[must_use]
    pub fn wanted_user(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// The earliest end; without one, keys that never end fit, too, unless there is a latest.
    #[must_use]
    pub fn wanted_ends_from(&self) -> Option<SystemTime> {
        self.ends_from
    }

    /// The moment before which the end has to be.
    #[must_use]
    pub fn wanted_ends_before(&self) -> Option<SystemTime> {
        self.ends_before
    }

    /// The moment before which the last use has to be, or where there was none, the creation.
    #[must_use]
    pub fn wanted_unused_since(&self) -> Option<SystemTime> {
        self.unused_since
    }

    /// The key with which they were made, where it isn't any or none.
    #[must_use]
    pub fn wanted_made_by(&self) -> Option<&KeyId> {
        self.made_by.as_ref()
    }

    /// The pepper that their hashes are under, where it isn't any or none.
    #[must_use]
    pub fn wanted_pepper(&self) -> Option<&PepperId> {
        self.pepper.as_ref()
    }

    /// Whether revoked keys fit.
    #[must_use]
    pub fn wants_revoked(&self) -> bool {
        self.with_revoked
    }

    /// Whether `key` fits: what a backend's query has to say of each record.
    #[must_use]
    pub fn fits(&self, key: &ApiKey) -> bool {
        let ends = |fits: &dyn Fn(SystemTime) -> bool| key.ends_at().is_some_and(fits);
        let last_use = key.last_used_at.max(Some(key.created_at));
        (self.with_revoked || key.revoked_at.is_none())
            && self
                .user_id
                .as_ref()
                .is_none_or(|user| *user == key.user_id)
            && self.ends_from.is_none_or(|from| ends(&|end| end >= from))
            && self
                .ends_before
                .is_none_or(|before| ends(&|end| end < before))
            && self.unused_since.is_none_or(|since| last_use < Some(since))
            && (self.made_by.is_none() || self.made_by == key.made_by)
            && (self.pepper.is_none() || self.pepper.as_ref() == key.secret_hash.pepper())
    }
}

/// Compared with times of whole milliseconds, it is the same, and a database need keep no more.
fn next_millisecond(time: SystemTime) -> SystemTime {
    let up = Duration::from_nanos(999_999);
    storable(time.checked_add(up).unwrap_or(time))
}
