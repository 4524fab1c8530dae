//! How a rotation stands.

use std::time::SystemTime;

use super::ApiKey;

/// A key, and the one that takes its place: what [`ApiKeyStore::rotation`](crate::ApiKeyStore::rotation)
/// says. `last_used_at` of the two tells whether the old key is still in use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rotation {
    /// The key that is replaced.
    pub old: ApiKey,
    /// The key that takes its place. Nothing where its record was removed since.
    pub successor: Option<ApiKey>,
}

impl Rotation {
    pub(crate) fn new(old: ApiKey, successor: Option<ApiKey>) -> Self {
        Self { old, successor }
    }

    /// From when on the old key no longer works, or when it was ended. Nothing where a cancellation was begun
    /// that isn't finished.
    #[must_use]
    pub fn overlap_ends_at(&self) -> Option<SystemTime> {
        let end = self.old.retires_at.and(self.old.ends_at());
        [end, self.old.revoked_at].into_iter().flatten().min()
    }
}
