//! Ending keys, and saying why.

use super::{ApiKeyStore, turns::in_turn, write::carry_out_for_user};
use crate::{
    backend::KeyOfUser,
    error::{BackendError, StoreError},
    events::{Event, EventKind},
    key::{KeyStatus, RevocationReason},
    token::KeyId,
    verify::VerifyError,
};

/// How often the keys of a user are gone through until none is left. What is made meanwhile is made with a key that
/// works still, so each time there is less that makes more.
const MAX_PASSES: usize = 100;

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
        let turn = self.turns.end().await?;
        let Some(key) = self.get(id).await? else {
            self.ended_already(id);
            return Ok(false);
        };
        let now = self.resolver.now();
        let revoked = self.change(key, turn, move |key| {
            let changes = key.revoked_at.is_none();
            if changes {
                key.revoked_at = Some(now);
                key.revocation_reason.clone_from(&reason);
            }
            Ok(changes)
        });
        Ok(revoked.await?.is_some())
    }

    pub(super) async fn revoke_token_for(
        &self,
        token: &[u8],
        reason: Option<RevocationReason>,
    ) -> Result<bool, StoreError> {
        let Ok(token) = self.parse(token) else {
            return Ok(false);
        };
        match self.resolver.identify(&token).await {
            Ok((_, KeyStatus::Revoked)) | Err(VerifyError::Unknown) => {
                self.resolver.cache().invalidate(&token.lookup_key());
                Ok(false)
            }
            Ok((id, _)) => self.revoke_for(&id, reason).await,
            Err(VerifyError::Unavailable(error)) => Err(StoreError::Unavailable(error)),
            Err(_) => Ok(false),
        }
    }

    pub(super) async fn revoke_all_for(
        &self,
        user_id: &str,
        reason: Option<RevocationReason>,
    ) -> Result<usize, StoreError> {
        let turn = self.turns.end().await?;
        let (backend, user) = (self.backend.clone(), user_id.to_owned());
        let (now, why) = (self.resolver.now(), reason.clone());
        let (emitter, store) = (self.resolver.emitter().clone(), self.clone());
        let write = async move {
            let mut keys = Vec::new();
            for pass in 0..MAX_PASSES {
                // Before the keys: else a claim could make one when the others have been ended already.
                let grants = store.revoke_grants_of_user(&user).await;
                let ended = backend.revoke_all_for_user(&user, now, why.as_ref());
                let ended = match ended.await {
                    Ok(ended) => ended,
                    Err(error) => return (keys, Err(error.into())),
                };
                let has_ended_keys = ended.iter().any(|key| key.is_newly_revoked);
                keys.extend(ended);
                // Twice at the least: what came to be while the first went on is there by the second.
                match grants {
                    Ok(0) if pass > 0 && !has_ended_keys => return (keys, Ok(())),
                    Err(error) if pass > 0 && !has_ended_keys => return (keys, Err(error)),
                    _ => {}
                }
            }
            let too_fast = "keys of the user came as fast as they were ended";
            (keys, Err(BackendError::unavailable(too_fast).into()))
        };
        let user = user_id.to_owned();
        let tell = move |keys: &[KeyOfUser]| {
            for key in keys.iter().filter(|key| key.is_newly_revoked) {
                let reason = reason.clone();
                let revoked = Event::of(EventKind::Revoked { reason }).key(key.id);
                emitter.emit(revoked.user(&user));
            }
        };
        let cache = self.resolver.cache();
        let keys =
            carry_out_for_user(cache, user_id.to_owned(), in_turn(turn, write), tell).await?;
        Ok(keys.iter().filter(|key| key.is_newly_revoked).count())
    }
}
