//! A key's place is taken by another, while both work for a while.

use std::time::{Duration, SystemTime};

use super::{
    ApiKeyStore,
    concurrency::{Permit, with_permit},
    manage::{ATTEMPTS, MAX_DRAWN, Retries},
    write::{carry_out, carry_out_and_tell, or_look},
};
use crate::{
    clock::saturating_add,
    context::AuthContext,
    error::{RotationError, StoreError},
    events::{Event, EventKind},
    key::{ApiKey, IssuedKey, KeyStatus, NewApiKey, RevocationReason, Rotation},
    token::{ApiKeyToken, KeyId},
};

impl ApiKeyStore {
    /// Makes a successor of a key, with the same owner, name, scopes, metadata and expiry, and a token of its
    /// own. The old key goes on for `overlap`, and never past its own expiry. Zero ends it at once: then it
    /// is revoked, with the reason [`Rotated`](RevocationReason::Rotated), in the same write.
    ///
    /// The two are linked by [`successor`](ApiKey::successor) and [`predecessor`](ApiKey::predecessor).
    /// [`rotation`](Self::rotation) says whether the old key is still in use;
    /// [`finish_rotation`](Self::finish_rotation) ends it early, and
    /// [`cancel_rotation`](Self::cancel_rotation) takes the rotation back.
    ///
    /// **Who rotates a key gets its successor's token.** Where callers rotate keys, let
    /// [`rotate_as`](Self::rotate_as) see to it that they hold as much.
    ///
    /// The end of the overlap stays where it is, whatever an [`update`](Self::update) says of the expiry of
    /// the old key: that can end it earlier, and not later. A successor can be rotated while the overlap of
    /// its predecessor runs.
    ///
    /// An id is public. Where users rotate their own keys, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore, id: tower_api_key::KeyId) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let week = Duration::from_secs(7 * 24 * 60 * 60);
    /// let successor = store.rotate(&id, week).await?;
    /// println!("{}", successor.token().expose()); // the one time
    ///
    /// if let Some(rotation) = store.rotation(&id).await? {
    ///     println!("{:?}", rotation.old.last_used_at);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Rotation`] where the key isn't active or has a successor already: of many who rotate one
    /// key at once, one does. [`StoreError::Random`], [`StoreError::Taken`], [`StoreError::Conflict`].
    /// [`StoreError::Unavailable`]: it may have been rotated, and nobody has the token; then
    /// [`cancel_rotation`](Self::cancel_rotation) takes it back while the old key works.
    pub async fn rotate(&self, id: &KeyId, overlap: Duration) -> Result<IssuedKey, StoreError> {
        self.rotate_for(None, id, overlap).await
    }

    /// As [`rotate`](Self::rotate), where callers rotate keys themselves: of their own user, and of which their own
    /// key has all scopes, since they get the successor's token.
    ///
    /// The caller's key is read anew, as by [`create_as`](Self::create_as). The successor of another key than that one
    /// is [made by](ApiKey::made_by) it, and ends with it at the latest.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotHeld`] where the caller's key has ended, is another user's, or lacks a scope of the key that is
    /// to be rotated; and those of [`rotate`](Self::rotate).
    pub async fn rotate_as(
        &self,
        caller: &AuthContext,
        id: &KeyId,
        overlap: Duration,
    ) -> Result<IssuedKey, StoreError> {
        let issued = self.rotate_for(Some(caller), id, overlap).await?;
        // No version of it was compared where another key was rotated with it.
        if caller.key_id() != id {
            let of_user = NewApiKey::for_user(caller.user_id(), issued.key().scopes.clone());
            let permit = self.limits.revoke().await;
            let caller = caller.clone();
            let held = self.detached_with(permit, |store| async move {
                store.held_by(&caller, &of_user).await
            });
            if let Err(error) = held.await {
                self.revoke_for(&issued.key().id, Some(RevocationReason::Superseded))
                    .await?;
                return Err(error);
            }
        }
        Ok(issued)
    }

    async fn rotate_for(
        &self,
        caller: Option<&AuthContext>,
        id: &KeyId,
        overlap: Duration,
    ) -> Result<IssuedKey, StoreError> {
        let mut drawn = 0;
        let mut tried = None;
        for _ in 0..ATTEMPTS {
            let permit = self.limits.change().await?;
            let (wanted, caller) = (*id, caller.cloned());
            let look_up = self.detached(|store| async move {
                let old = store.to_rotate(&wanted).await?;
                let maker = match &caller {
                    Some(caller) => {
                        let as_new = NewApiKey::for_user(&old.user_id, old.scopes.clone());
                        Some(store.held_by(caller, &as_new).await?)
                    }
                    None => None,
                };
                Ok((old, maker, permit))
            });
            let (old, maker, permit) = look_up.await?;
            let now = self.resolver.now();
            if old.successor.is_some() {
                return refused(id, RotationError::RotatedAlready);
            }
            check_works(&old, now)?;
            self.check_current_pepper().await?;
            let token = ApiKeyToken::generate(self.resolver.brand())?;
            // It wasn't the version, so it was the id.
            if tried.replace(old.version) == Some(old.version) {
                drawn += 1;
                if drawn == MAX_DRAWN {
                    return Err(StoreError::Taken(token.new_id()));
                }
            }
            let mut key = self.successor_of(&old, &token, now)?;
            if let Some(maker) = maker.filter(|maker| maker.id != old.id) {
                key.made_by = Some(maker.id);
                let ends = [key.expires_at, maker.ends_at()];
                key.expires_at = ends.into_iter().flatten().min();
            }
            if self.replace(old, &key, now, overlap, permit).await? {
                return Ok(IssuedKey { token, key });
            }
        }
        Err(StoreError::Conflict(*id))
    }

    /// How the rotation of a key stands, asked by the id of either. Nothing where the key wasn't rotated and
    /// is no successor, where the rotation was cancelled, or where the record of the old key is gone.
    ///
    /// Of a key that is both, a successor and rotated, it is the key's own rotation. When a key was last used is
    /// accurate to a minute; uses on other nodes show once they are written there.
    ///
    /// An id is public. Where users ask for their own keys, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn rotation(&self, id: &KeyId) -> Result<Option<Rotation>, StoreError> {
        let (permit, id) = (self.limits.read().await?, *id);
        self.detached_with(
            permit,
            |store| async move { store.find_rotation(&id).await },
        )
        .await
    }

    async fn find_rotation(&self, id: &KeyId) -> Result<Option<Rotation>, StoreError> {
        let Some(key) = self.look_up(id).await? else {
            return Ok(None);
        };
        if let Some(successor) = key.successor {
            let successor = self.look_up(&successor).await?;
            return Ok(Some(Rotation::new(key, successor)));
        }
        let Some(predecessor) = key.predecessor else {
            return Ok(None);
        };
        let old = self.look_up(&predecessor).await?;
        let old = old.filter(|old| old.successor == Some(key.id));
        Ok(old.map(|old| Rotation::new(old, Some(key))))
    }

    /// Ends the overlap of a rotation: the old key, whose id this is, is revoked with the reason
    /// [`Rotated`](RevocationReason::Rotated). Returns whether this call revoked it: `false` where it was
    /// revoked already. One whose overlap has run out is revoked, too. Whether the successor works isn't looked
    /// at: [`rotation`](Self::rotation) says so.
    ///
    /// An id is public. Where users end their own keys, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Rotation`] where the key has no successor, or its rotation is being cancelled;
    /// [`StoreError::Unavailable`] (it may be revoked or not), [`StoreError::Conflict`].
    pub async fn finish_rotation(&self, old: &KeyId) -> Result<bool, StoreError> {
        let (permit, old) = (self.limits.revoke().await, *old);
        let finished = self.detached(|store| async move {
            let (key, now) = (store.to_rotate(&old).await?, store.resolver.now());
            let finish = move |key: &mut ApiKey| {
                if key.successor.is_none() || key.retires_at.is_none() {
                    return refused(&key.id, RotationError::NotRotated);
                }
                Ok(end(key, now, RevocationReason::Rotated))
            };
            store.change(key, Some(permit), Retries::Many, finish).await
        });
        Ok(finished.await?.is_some())
    }

    /// Takes a rotation back: the old key, whose id this is, goes on as if there had been none, and the
    /// successor is revoked, with the reason [`Superseded`](RevocationReason::Superseded). Where the successor
    /// was rotated itself, its own successor goes on.
    ///
    /// The old key has its end taken away first. So where this is broken off, both keys work, and
    /// another call finishes it.
    ///
    /// An id is public. Where users take their own rotations back, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Rotation`] where the old key doesn't work any more, by this node's clock, or has no
    /// successor: then nothing was changed. [`StoreError::Unavailable`] and [`StoreError::Conflict`]: call it
    /// again.
    pub async fn cancel_rotation(&self, old: &KeyId) -> Result<(), StoreError> {
        let (permit, old) = (self.limits.change().await?, *old);
        let cancelled = self.detached(|store| async move {
            let key = store.to_rotate(&old).await?;
            let (cache, place) = (store.resolver.cache().clone(), key.lookup_key());
            let cancel = with_permit(permit, async move { store.cancel(key).await });
            carry_out(&cache, place, cancel).await
        });
        cancelled.await
    }

    /// Each of the three writes finds what the one before has left, whoever comes in between: while the old
    /// key has a successor and no end of the overlap, nobody else ends it by this rotation, or rotates it.
    async fn cancel(self, old: ApiKey) -> Result<(), StoreError> {
        let id = old.id;
        let Some(successor) = old.successor else {
            return refused(&id, RotationError::NotRotated);
        };
        let resolver = self.resolver.clone();
        let goes_on = self.change(old, None, Retries::Few, move |key| {
            if key.successor != Some(successor) {
                return refused(&key.id, RotationError::NotRotated);
            }
            check_works(key, resolver.now())?;
            key.retires_at = None;
            Ok(true)
        });
        let Some(old) = goes_on.await? else {
            return refused(&id, RotationError::Unknown);
        };
        if let Some(key) = self.look_up(&successor).await? {
            let now = self.resolver.now();
            self.change(key, None, Retries::Many, move |key| {
                Ok(end(key, now, RevocationReason::Superseded))
            })
            .await?;
        }
        self.change(old, None, Retries::Few, move |key| {
            let is_ours = key.successor == Some(successor) && key.retires_at.is_none();
            if is_ours {
                key.successor = None;
            }
            Ok(is_ours)
        })
        .await?;
        Ok(())
    }

    async fn to_rotate(&self, id: &KeyId) -> Result<ApiKey, StoreError> {
        if let Some(key) = self.look_up(id).await? {
            return Ok(key);
        }
        self.ended_already(id);
        refused(id, RotationError::Unknown)
    }

    fn successor_of(
        &self,
        old: &ApiKey,
        token: &ApiKeyToken,
        now: SystemTime,
    ) -> Result<ApiKey, StoreError> {
        let hash = self.resolver.peppers().hash(token)?;
        let (user, scopes) = (old.user_id.clone(), old.scopes.clone());
        let mut key = ApiKey::new(token.new_id(), user, scopes, hash);
        key.display_prefix = token.display_prefix();
        key.name.clone_from(&old.name);
        key.metadata.clone_from(&old.metadata);
        key.created_at = now;
        key.expires_at = old.expires_at;
        key.predecessor = Some(old.id);
        // What a leaked key has made is found by it.
        key.made_by = old.made_by;
        Ok(key)
    }

    /// Stores `successor`, and that `old` ends; whether nobody was in the way.
    async fn replace(
        &self,
        mut old: ApiKey,
        successor: &ApiKey,
        now: SystemTime,
        overlap: Duration,
        permit: Permit,
    ) -> Result<bool, StoreError> {
        let retires_at = saturating_add(now, overlap);
        let retires_at = old.ends_at().map_or(retires_at, |end| end.min(retires_at));
        old.retires_at = Some(retires_at);
        old.successor = Some(successor.id);
        if retires_at <= now {
            // A clock that is behind must not let it in.
            end(&mut old, now, RevocationReason::Rotated);
        }
        let expected = old.version;
        old.version = old.next_version()?;
        let (backend, cache) = (self.backend.clone(), self.resolver.cache().clone());
        let (place, successor) = (old.lookup_key(), successor.clone());
        let tell = {
            let successor = successor.id;
            let mut events = vec![Event::about(EventKind::Rotated { successor }, &old)];
            if old.revoked_at.is_some() {
                let reason = old.revocation_reason.clone();
                events.push(Event::about(EventKind::Revoked { reason }, &old));
            }
            let emitter = self.resolver.emitter().clone();
            move |rotated: &bool| {
                if *rotated {
                    for event in events {
                        emitter.emit(event);
                    }
                }
            }
        };
        let rotate = async move {
            let (id, new, new_place) = (old.id, successor.id, successor.lookup_key());
            let written = backend.clone();
            let write = async move { written.rotate(&successor, &old, expected).await };
            // The old key says who its successor is.
            let was_done = async {
                let old = backend.get(&id).await?;
                Ok(old.is_some_and(|old| old.successor == Some(new)))
            };
            or_look(carry_out(&cache, new_place, write), was_done).await
        };
        let rotate = with_permit(permit, rotate);
        Ok(carry_out_and_tell(self.resolver.cache(), place, rotate, tell).await?)
    }
}

/// Revokes `key`; whether it wasn't already.
fn end(key: &mut ApiKey, now: SystemTime, reason: RevocationReason) -> bool {
    let ends = key.revoked_at.is_none();
    if ends {
        key.revoked_at = Some(now);
        key.revocation_reason = Some(reason);
    }
    ends
}

fn check_works(key: &ApiKey, now: SystemTime) -> Result<(), StoreError> {
    match key.status(now) {
        KeyStatus::Active => Ok(()),
        KeyStatus::Expired => refused(&key.id, RotationError::Expired),
        KeyStatus::Disabled => refused(&key.id, RotationError::Disabled),
        KeyStatus::Revoked => refused(&key.id, RotationError::Revoked),
    }
}

fn refused<T>(id: &KeyId, problem: RotationError) -> Result<T, StoreError> {
    Err(StoreError::Rotation { id: *id, problem })
}
