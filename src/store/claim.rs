//! A grant becomes a key, once.

use super::{
    ApiKeyStore,
    concurrency::{Permit, with_permit},
    manage::{ATTEMPTS, lacks},
    write::{carry_out_and_tell, or_look},
};
use crate::{
    error::{ClaimRefusal, StoreError},
    events::{Event, EventKind},
    handoff::HandoffToken,
    key::{ApiKey, GrantStatus, IssuedKey, KeyGrant},
    token::{ApiKeyToken, KeyId},
};

/// A grant that can be claimed, or why none can.
type FoundClaim = Result<(KeyGrant, Option<ApiKey>), (Option<KeyGrant>, ClaimRefusal)>;

impl ApiKeyStore {
    /// Makes the key that was [handed off](Self::hand_off) for `token`, and returns its plaintext, the one time.
    /// Of all who claim it, at the same moment or later, here or on other nodes, one gets it.
    ///
    /// **Claim in answer to a POST, and never to a GET**, which mail scanners and browsers send on their own;
    /// [`grant_of`](Self::grant_of) shows what is going to be claimed. Answer with `Cache-Control: no-store`.
    ///
    /// The key belongs to whom it was handed off for, and is counted from now where it has a lifetime.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotClaimable`] says why not. Where the one whom the key was for gets
    /// [`ClaimRefusal::Claimed`], somebody else has claimed it first: [`grant_of`](Self::grant_of) says as which key.
    ///
    /// [`StoreError::Unavailable`]: the grant may be used up, and its key then is nobody's. The same goes for a
    /// caller who goes away before the answer. Hand off another one. [`StoreError::Conflict`] where the key that it was
    /// handed off with changes all the time, [`StoreError::Random`], [`StoreError::Taken`], [`StoreError::Unsupported`].
    pub async fn claim(&self, token: &HandoffToken) -> Result<IssuedKey, StoreError> {
        let mut attempts = 0;
        loop {
            // Whoever has no token that claims anything stands in the way of nobody who makes keys.
            let (grant, maker) = match self.find_claim(token).await? {
                Ok(found) => found,
                Err((grant, why)) => return Err(self.refused(grant.as_ref(), why)),
            };
            let permit = self.limits.change().await?;
            let latest_end = maker.as_ref().and_then(ApiKey::ends_at);
            let maker = maker.map(|maker| (maker.id, maker.version));
            self.check_current_pepper().await?;
            let new = ApiKeyToken::generate(self.resolver.brand())?;
            let hash = self.resolver.peppers().hash(&new)?;
            let key = grant.to_key(&new, hash, self.resolver.now(), latest_end);
            if self.claim_as(&grant, &key, maker, permit).await? {
                return Ok(IssuedKey { token: new, key });
            }
            // Another was first, the maker's key has changed, or the id is taken: the next look says which.
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(match maker {
                    Some((maker, _)) => StoreError::Conflict(maker),
                    None => StoreError::Taken(key.id),
                });
            }
        }
    }

    /// The grant that [`claim`](Self::claim) would make a key of now. It uses nothing up, and is no event: for a page
    /// that asks first.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotClaimable`] says why it wouldn't; [`StoreError::Unavailable`], [`StoreError::Unsupported`].
    pub async fn claimable(&self, token: &HandoffToken) -> Result<KeyGrant, StoreError> {
        match self.find_claim(token).await? {
            Ok((grant, _)) => Ok(grant),
            Err((_, why)) => Err(StoreError::NotClaimable(why)),
        }
    }

    /// Returns what the token claims now, and the record of the key that it was handed off with; or
    /// why it claims nothing.
    async fn find_claim(&self, token: &HandoffToken) -> Result<FoundClaim, StoreError> {
        let (permit, hash) = (self.limits.look_up_claim().await?, token.claim_hash());
        let find = self.detached_with(permit, |store| async move {
            let Some(grant) = store.find_grant(hash).await? else {
                return Ok(Err((None, ClaimRefusal::Unknown)));
            };
            Ok(match store.maker_of(&grant).await? {
                Ok(maker) => Ok((grant, maker)),
                Err(why) => Err((Some(grant), why)),
            })
        });
        find.await
    }

    /// Whether the grant can be claimed now, and with which record of the key that it was handed off with.
    async fn maker_of(
        &self,
        grant: &KeyGrant,
    ) -> Result<Result<Option<ApiKey>, ClaimRefusal>, StoreError> {
        let now = self.resolver.now();
        match grant.status(now) {
            GrantStatus::Pending => {}
            GrantStatus::Claimed => return Ok(Err(ClaimRefusal::Claimed)),
            GrantStatus::Revoked => return Ok(Err(ClaimRefusal::Revoked)),
            GrantStatus::Expired => return Ok(Err(ClaimRefusal::Expired)),
        }
        let Some(maker) = &grant.made_by else {
            return Ok(Ok(None));
        };
        let maker = self.look_up(maker).await?;
        let holds_it = |maker: &ApiKey| lacks(maker, &grant.user_id, &grant.scopes, now).is_none();
        Ok(match maker.filter(holds_it) {
            Some(maker) => Ok(Some(maker)),
            None => Err(ClaimRefusal::MakerEnded),
        })
    }

    /// Marks the grant as claimed, and stores `key`: both or neither.
    async fn claim_as(
        &self,
        grant: &KeyGrant,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
        permit: Permit,
    ) -> Result<bool, StoreError> {
        let (backend, id, new) = (self.backend.clone(), grant.id, key.clone());
        let (place, key_id) = (key.lookup_key(), key.id);
        let claim = async move {
            let asked = backend.clone();
            let write = async move { asked.claim(&id, &new, maker).await };
            // The grant says whose it is.
            let was_done = async {
                let grant = backend.get_grant_by_id(&id).await?;
                Ok(grant.is_some_and(|grant| grant.key_id == Some(key_id)))
            };
            or_look(write, was_done).await
        };
        let happened = Event::of(EventKind::Claimed).key(key_id).grant(grant);
        let tell = self.resolver.emitter().if_done(happened);
        let claim = with_permit(permit, claim);
        Ok(carry_out_and_tell(self.resolver.cache(), place, claim, tell).await?)
    }

    /// Every refusal comes by here. Where it was claimed already, somebody may have intercepted the token.
    fn refused(&self, grant: Option<&KeyGrant>, reason: ClaimRefusal) -> StoreError {
        let event = Event::of(EventKind::ClaimRefused { reason });
        let event = match grant {
            Some(grant) => event.grant(grant),
            None => event,
        };
        self.resolver.emitter().emit(event);
        StoreError::NotClaimable(reason)
    }
}
