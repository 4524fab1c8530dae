//! What becomes of a key: changed, suspended.

use super::{ApiKeyStore, concurrency::Permit, manage::Retries};
use crate::{
    error::StoreError,
    key::{ApiKey, KeyUpdate},
    token::KeyId,
};

impl ApiKeyStore {
    /// Changes what an update names, and leaves everything else; returns the key as it is then, nothing
    /// where there is no such key. What it says counts at once here, and elsewhere as a revocation does. One that names
    /// nothing changes nothing.
    ///
    /// An id is public. Where users change their own keys, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// A hash that comes [under the current pepper](super::ApiKeyStoreBuilder::rewrap_retired_peppers) behind a request
    /// raises the version, too.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore, id: tower_api_key::KeyId) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::{KeyUpdate, Scopes};
    ///
    /// let update = KeyUpdate::new().name("CI, read only").scopes(Scopes::of(["notes:read"])?);
    /// let key = store.update(&id, update).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`]; [`StoreError::Conflict`] where the key doesn't have
    /// [the version](KeyUpdate::if_version) that was asked for; [`StoreError::Unavailable`] (it may have been
    /// changed or not).
    pub async fn update(
        &self,
        id: &KeyId,
        update: KeyUpdate,
    ) -> Result<Option<ApiKey>, StoreError> {
        update.check()?;
        if update.is_empty() {
            let key = self.get(id).await?;
            let is_for = key.as_ref().is_none_or(|key| update.is_for(key));
            return if is_for {
                Ok(key)
            } else {
                Err(StoreError::Conflict(*id))
            };
        }
        let (permit, now) = (self.limits.change().await?, self.resolver.now());
        self.change_by_id(id, permit, Retries::Few, move |key| {
            if !update.is_for(key) {
                return Err(StoreError::Conflict(key.id));
            }
            update.apply(key, now);
            Ok(true)
        })
        .await
    }

    /// Suspends a key until it is [enabled](Self::enable) again; returns whether this call did: `false` if
    /// there is no such key, or it is suspended or revoked already.
    ///
    /// Its successor, where it was rotated, and keys that were made with it go on.
    ///
    /// An id is public. Where users suspend their own keys, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the key may be suspended or not); [`StoreError::Conflict`] where others change it all
    /// the time: [revoke](Self::revoke) it then.
    pub async fn disable(&self, id: &KeyId) -> Result<bool, StoreError> {
        let (permit, now) = (self.limits.revoke().await, self.resolver.now());
        let disabled = self.change_by_id(id, permit, Retries::Many, move |key| {
            let changes = key.disabled_at.is_none() && key.revoked_at.is_none();
            if changes {
                key.disabled_at = Some(now);
            }
            Ok(changes)
        });
        Ok(disabled.await?.is_some())
    }

    /// Ends the suspension of a key; returns whether this call did. A revoked key stays as it is.
    ///
    /// Who may enable a key undoes a suspension by an operator, too. An id is public: where users enable their own keys,
    /// look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the key may be suspended still or not), [`StoreError::Conflict`].
    pub async fn enable(&self, id: &KeyId) -> Result<bool, StoreError> {
        let permit = self.limits.change().await?;
        let enabled = self.change_by_id(id, permit, Retries::Few, |key| {
            Ok(key.revoked_at.is_none() && key.disabled_at.take().is_some())
        });
        Ok(enabled.await?.is_some())
    }

    /// Changes the record of `id` as `change` says; returns what it is then, nothing where it is gone or
    /// was left as it was.
    async fn change_by_id(
        &self,
        id: &KeyId,
        permit: Permit,
        retries: Retries,
        change: impl Fn(&mut ApiKey) -> Result<bool, StoreError> + Send + 'static,
    ) -> Result<Option<ApiKey>, StoreError> {
        let id = *id;
        let changed = self.detached(|store| async move {
            if let Some(key) = store.look_up(&id).await? {
                return store.change(key, Some(permit), retries, change).await;
            }
            store.ended_already(&id);
            Ok(None)
        });
        changed.await
    }
}
