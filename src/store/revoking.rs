//! Ending keys, and saying why.

use super::{
    ApiKeyStore,
    concurrency::{Permit, with_permit},
    manage::ending_of,
    write::{carry_out_and_tell, carry_out_for_user},
};
use crate::{
    backend::RevokedKey,
    error::{BackendError, StoreError},
    events::{Event, EventKind},
    key::{KeyStatus, RevocationReason},
    token::{ApiKeyToken, KeyId},
    verify::VerifyError,
};

/// How many keys are ended at once.
const BATCH: usize = 1_000;
/// How often, until none is left. What is made meanwhile is made with a key that works still, and the oldest end
/// first.
const MAX_PASSES: usize = 10_000;
/// Of more keys in a batch, one event tells, and not one of each: who has made many must not push out what others
/// have to be told.
const TOLD_ONE_BY_ONE: usize = 100;

impl ApiKeyStore {
    /// As [`revoke`](Self::revoke), for a reason that is kept with the key. The first revocation stays, and so
    /// does its reason, or that it had none.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore, id: tower_api_key::KeyId) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::RevocationReason;
    ///
    /// store.revoke_because(&id, RevocationReason::Other("unpaid".to_owned())).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`] where the reason can't be stored, and then nothing was revoked; and those of
    /// `revoke`.
    pub async fn revoke_because(
        &self,
        id: &KeyId,
        reason: RevocationReason,
    ) -> Result<bool, StoreError> {
        self.revoke_for(id, Some(reason.checked()?)).await
    }

    /// As [`revoke_token`](Self::revoke_token), for a reason that is kept with the key.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`] where the reason can't be stored, and then nothing was revoked; and those of
    /// `revoke_token`.
    pub async fn revoke_token_because(
        &self,
        token: impl AsRef<[u8]>,
        reason: RevocationReason,
    ) -> Result<bool, StoreError> {
        let reason = reason.checked()?;
        self.revoke_token_for(token.as_ref(), Some(reason)).await
    }

    /// As [`revoke_all_for_user`](Self::revoke_all_for_user), for a reason that is kept with the keys.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`] where the reason can't be stored, and then nothing was revoked; and those of
    /// `revoke_all_for_user`.
    pub async fn revoke_all_for_user_because(
        &self,
        user_id: &str,
        reason: RevocationReason,
    ) -> Result<usize, StoreError> {
        self.revoke_all_for(user_id, Some(reason.checked()?)).await
    }

    pub(super) async fn revoke_for(
        &self,
        id: &KeyId,
        reason: Option<RevocationReason>,
    ) -> Result<bool, StoreError> {
        let (permit, id) = (self.limits.revoke().await, *id);
        self.detached(|store| async move { store.revoke_found(id, reason, permit).await })
            .await
    }

    async fn revoke_found(
        &self,
        id: KeyId,
        reason: Option<RevocationReason>,
        permit: Permit,
    ) -> Result<bool, StoreError> {
        let Some(found) = self.look_up_to_end(&id).await? else {
            return Ok(false);
        };
        let (backend, now) = (self.backend.clone(), self.resolver.now());
        let kind = EventKind::Revoked {
            reason: reason.clone(),
        };
        let (place, event) = ending_of(&id, found.as_ref(), kind);
        let was_revoked = found.as_ref().is_some_and(|key| key.revoked_at.is_some());
        if was_revoked {
            self.resolver.cache().invalidate(&place);
            return Ok(false);
        }
        let revoke = async move {
            let is_revoked = backend.revoke(&id, now, reason.as_ref()).await?;
            let stays = !is_revoked
                && matches!(backend.get(&id).await?, Some(key) if key.revoked_at.is_none());
            if stays {
                return Err(BackendError::kept());
            }
            Ok(is_revoked)
        };
        let revoke = with_permit(permit, self.also_unread(id, found.is_none(), revoke));
        let tell = self.resolver.emitter().if_done(event);
        Ok(carry_out_and_tell(self.resolver.cache(), place, revoke, tell).await?)
    }

    pub(super) async fn revoke_token_for(
        &self,
        token: &[u8],
        reason: Option<RevocationReason>,
    ) -> Result<bool, StoreError> {
        let Ok(token) = self.parse(token) else {
            return Ok(false);
        };
        match self.identify(&token).await {
            Ok((_, KeyStatus::Revoked)) | Err(VerifyError::Unknown) => {
                self.resolver.cache().invalidate(&token.lookup_key());
                Ok(false)
            }
            Ok((id, _)) => self.revoke_for(&id, reason).await,
            Err(VerifyError::Unavailable(error)) => Err(StoreError::Unavailable(error)),
            Err(_) => Ok(false),
        }
    }

    /// Reads which key the token is of, and its status.
    pub(super) async fn identify(
        &self,
        token: &ApiKeyToken,
    ) -> Result<(KeyId, KeyStatus), VerifyError> {
        let permit = self.limits.revoke().await;
        with_permit(permit, self.resolver.identify(token)).await
    }

    pub(super) async fn revoke_all_for(
        &self,
        user_id: &str,
        reason: Option<RevocationReason>,
    ) -> Result<usize, StoreError> {
        let permit = self.limits.revoke_in_bulk().await;
        let (store, user) = (self.clone(), user_id.to_owned());
        let revoke = with_permit(
            permit,
            async move { store.revoke_batches(&user, reason).await },
        );
        carry_out_for_user(self.resolver.cache(), user_id.to_owned(), revoke).await
    }

    async fn revoke_batches(
        self,
        user_id: &str,
        reason: Option<RevocationReason>,
    ) -> Result<usize, StoreError> {
        let now = self.resolver.now();
        let mut count = 0;
        for pass in 0..MAX_PASSES {
            // Who ends one key waits for a batch, and not for all of them.
            let permit = self.limits.revoke().await;
            // Before the keys: else a claim could make one when the others have been ended already.
            let grants = self.revoke_grants_of_user(user_id).await;
            let revoked = self
                .backend
                .revoke_for_user(user_id, now, reason.as_ref(), BATCH)
                .await?;
            drop(permit);
            for key in &revoked {
                self.resolver.cache().invalidate(&key.lookup_key);
            }
            self.tell_of(user_id, &revoked, reason.as_ref());
            count += revoked.len();
            // Twice at the least: what came to be while the first went on is there by the second.
            if pass > 0 && revoked.is_empty() && !matches!(grants, Ok(1..)) {
                return grants.map(|_| count);
            }
        }
        Err(BackendError::unavailable("keys of the user came as fast as they were ended").into())
    }

    fn tell_of(&self, user_id: &str, revoked: &[RevokedKey], reason: Option<&RevocationReason>) {
        let emitter = self.resolver.emitter();
        let reason = || reason.cloned();
        if revoked.len() > TOLD_ONE_BY_ONE {
            let all = EventKind::ManyRevoked {
                keys: revoked.len() as u64,
                reason: reason(),
            };
            return emitter.emit(Event::of(all).user(user_id));
        }
        for key in revoked {
            let revoked = EventKind::Revoked { reason: reason() };
            emitter.emit(Event::of(revoked).key(key.id).user(user_id));
        }
    }
}
