//! Which peppers are still needed.

use std::time::Duration;

use super::ApiKeyStore;
use crate::{
    ask::ask_in_time,
    backend::{PepperStatus, PepperUsage},
    error::StoreError,
    resolver::PepperState,
};

/// How long a count of all records may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(120);

impl ApiKeyStore {
    /// Returns the number of keys per pepper, and whether this instance has the right bytes of each.
    ///
    /// How many keys each pepper has that a record names, in the order of the peppers' ids: a retired one that
    /// isn't named, or that no key needs any more that works, can be dropped.
    ///
    /// A new pepper comes in four steps, each on every node before the next begins, since a node can't check
    /// keys under a pepper that it doesn't know:
    ///
    /// 1. add it as a [retired](crate::Peppers::with_retired) one beside the one in use,
    /// 2. make it the current one, and the one that was in use a retired one,
    /// 3. switch on
    ///    [`rewrap_retired_peppers`](super::ApiKeyStoreBuilder::rewrap_retired_peppers), and wait until what
    ///    this says of the old one is small enough: a key that isn't used stays under it,
    /// 4. drop the old one, and switch it off again. Tokens of keys that are left under the old one are then
    ///    answered as an outage, 503, also where the key was revoked: without its pepper nobody can tell a right
    ///    secret from a wrong one. So [list](crate::KeyFilter::pepper) these keys before, tell their owners, and
    ///    [delete](Self::delete) them.
    ///
    /// The backend looks at every record.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::{KeyFilter, PageRequest, PepperId};
    ///
    /// for usage in store.pepper_usage().await? {
    ///     println!("{:?}: {} keys, {} of them work", usage.pepper, usage.keys, usage.working);
    /// }
    /// // Which keys those are, one page of them.
    /// let left = KeyFilter::new().pepper(PepperId::new("v1")?).with_revoked();
    /// for key in store.list(left, PageRequest::new()).await?.keys {
    ///     println!("{} of {}", key.id, key.user_id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Unsupported`] where the backend has no
    /// [such count](crate::ApiKeyBackend::pepper_usage).
    pub async fn pepper_usage(&self) -> Result<Vec<PepperUsage>, StoreError> {
        let permit = self.limits.read().await?;
        // It looks at every record, and may take longer than other reads.
        let count = self.detached_with(permit, |store| async move {
            let now = store.resolver.now();
            let count = async { store.backend.pepper_usage(now).await };
            Ok(ask_in_time(COUNT_TIMEOUT, count).await?)
        });
        let mut usage = count.await?;
        self.compare_peppers(&mut usage).await;
        usage.sort_by(|a, b| {
            let id = |usage: &PepperUsage| usage.pepper.map(|id| id.as_str().to_owned());
            id(a).cmp(&id(b))
        });
        Ok(usage)
    }

    /// Compares the peppers with the stored check values, again. Where those can't be read, what was
    /// known before counts.
    async fn compare_peppers(&self, usage: &mut [PepperUsage]) {
        let Some(checks) = self.resolver.pepper_checks() else {
            return;
        };
        let _ = checks.compare().await;
        for usage in usage {
            usage.status = usage.pepper.as_ref().map(|id| match checks.state(id) {
                Some(PepperState::Verified) => PepperStatus::Verified,
                Some(PepperState::Mismatch) => PepperStatus::Mismatch,
                Some(PepperState::Unknown | PepperState::Unconfirmed) => PepperStatus::Unverified,
                None if self.resolver.peppers().knows(id).is_ok() => PepperStatus::Unverified,
                None => PepperStatus::Missing,
            });
        }
    }
}
