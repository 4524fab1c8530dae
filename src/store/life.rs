//! What becomes of a key: changed, suspended, reported as leaked.

use super::ApiKeyStore;
use crate::{
    error::StoreError,
    events::{Event, EventKind},
    key::{ApiKey, KeyUpdate, RevocationReason},
    token::KeyId,
    verify::VerifyError,
};

impl ApiKeyStore {
    /// Changes what an update names, and leaves everything else; returns the key as it is then, nothing
    /// where there is no such key. What it says counts at once here, and elsewhere as a revocation does. One that names
    /// nothing changes nothing.
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
        let now = self.resolver.now();
        self.change_by_id(id, move |key| {
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
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke).
    pub async fn disable(&self, id: &KeyId) -> Result<bool, StoreError> {
        let now = self.resolver.now();
        let disabled = self.change_by_id(id, move |key| {
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
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the key may be suspended still or not), [`StoreError::Conflict`].
    pub async fn enable(&self, id: &KeyId) -> Result<bool, StoreError> {
        let enabled = self.change_by_id(id, |key| {
            Ok(key.revoked_at.is_none() && key.disabled_at.take().is_some())
        });
        Ok(enabled.await?.is_some())
    }

    /// Revokes those of `tokens` that are tokens of keys of ours, as [leaked](RevocationReason::Leaked), and
    /// says of each, in their order, whether it was one: for what a scanner of public repositories reports, 1,000 at the most.
    ///
    /// White space around a token doesn't count. Only the right secret does, whatever state its key is in. What has the id of a key and another
    /// secret is `false`, and revokes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`], and then nothing was looked at. Otherwise the first error: where the backend
    /// can't be asked, the tokens after it weren't seen to, and otherwise they were. Report all of them again.
    pub async fn report_leaked(
        &self,
        tokens: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<Vec<bool>, StoreError> {
        let tokens: Vec<_> = tokens.into_iter().take(Self::MAX_LEAKED + 1).collect();
        if tokens.len() > Self::MAX_LEAKED {
            return Err(StoreError::TooMany {
                at_most: Self::MAX_LEAKED,
            });
        }
        let mut were_ours = Vec::with_capacity(tokens.len());
        let mut failed = None;
        for token in tokens {
            match self.revoke_leaked(token.as_ref()).await {
                Ok(was_ours) => were_ours.push(was_ours),
                // One after the other would take as long as it takes to give up each.
                Err(StoreError::Unavailable(error)) if error.is_outage() => {
                    return Err(StoreError::Unavailable(error));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(were_ours), Err)
    }

    /// How many tokens can be reported at once.
    pub const MAX_LEAKED: usize = 1_000;

    async fn revoke_leaked(&self, token: &[u8]) -> Result<bool, StoreError> {
        let Ok(token) = self.parse(token.trim_ascii()) else {
            return Ok(false);
        };
        match self.resolver.identify(&token).await {
            Ok((id, _)) => {
                let reported = Event::of(EventKind::LeakReported).key(id);
                self.resolver.emitter().emit(reported);
                self.revoke_for(&id, Some(RevocationReason::Leaked)).await?;
                Ok(true)
            }
            Err(VerifyError::Unavailable(error)) => Err(StoreError::Unavailable(error)),
            Err(_) => Ok(false),
        }
    }

    /// Changes the record of `id` as `change` says; returns what it is then, nothing where it is gone or
    /// was left as it was.
    async fn change_by_id(
        &self,
        id: &KeyId,
        change: impl Fn(&mut ApiKey) -> Result<bool, StoreError> + Send + 'static,
    ) -> Result<Option<ApiKey>, StoreError> {
        if let Some(key) = self.get(id).await? {
            return self.change(key, change).await;
        }
        self.ended_already(id);
        Ok(None)
    }
}
