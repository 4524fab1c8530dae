//! Making, listing and ending keys.

use std::time::{Duration, SystemTime};

use super::{
    ApiKeyStore,
    concurrency::{Permit, read_in_time, with_permit},
    write::{carry_out_and_tell, detached},
};
use crate::{
    backend::{KeyFilter, Page, PageRequest},
    context::AuthContext,
    error::{BackendError, StoreError},
    events::{Event, EventKind},
    key::{ApiKey, IssuedKey, KeyStatus, NewApiKey},
    scope::Scopes,
    token::{ApiKeyToken, KeyId, LookupKey},
};

/// How many tokens are drawn for one key. With 192 bits a second one is never needed, unless the
/// operating system's randomness is broken.
pub(super) const MAX_DRAWN: usize = 3;

/// How often a change is tried again because another came in between.
pub(super) const ATTEMPTS: usize = 16;

/// How long, and how often, a key is disabled again because another change came in between: its
/// holder must not keep it active by changing it all the time.
const DEACTIVATION_TIME: Duration = Duration::from_secs(10);
const DEACTIVATION_ATTEMPTS: usize = 1_000;

/// How long a change is tried again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Retries {
    Few,
    /// It makes a key inactive.
    Many,
}

impl ApiKeyStore {
    /// Makes a key. Its token is in what is returned, and nowhere else.
    ///
    /// Where callers make keys, let [`create_as`](Self::create_as) see to it that they give no more than they hold.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`] (a user id or name that can't be stored), [`StoreError::Random`],
    /// [`StoreError::Taken`], [`StoreError::Unavailable`].
    pub async fn create(&self, new: NewApiKey) -> Result<IssuedKey, StoreError> {
        new.check()?;
        let mut drawn = 0;
        loop {
            let permit = self.limits.change().await?;
            match self.issue(new.clone(), None, permit).await? {
                Ok(issued) => return Ok(issued),
                Err(id) => {
                    drawn += 1;
                    if drawn == MAX_DRAWN {
                        return Err(StoreError::Taken(id));
                    }
                }
            }
        }
    }

    /// Makes a key for the caller's own user, which can do no more than the caller's key: where callers make
    /// keys for themselves.
    ///
    /// The caller's key is read anew: it has to be active, and what counts is what it may do now. The new
    /// key expires with it at the latest. **It is a key of its own from then on**: where the caller's key is
    /// revoked because it has leaked, [`revoke_all_for_user`](Self::revoke_all_for_user) ends those that were
    /// made with it, too, and [`KeyFilter::made_by`] finds them. No key is made with one whose revocation has been
    /// answered before.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::{AuthContext, NewApiKey, Scopes, StoreError};
    ///
    /// async fn make(auth: AuthContext, store: tower_api_key::ApiKeyStore) -> Result<String, StoreError> {
    ///     let scopes = Scopes::of(["notes:read"]).expect("a scope");
    ///     let new = NewApiKey::for_user(auth.user_id(), scopes);
    ///     Ok(store.create_as(&auth, new).await?.token().expose().to_owned())
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::NotHeld`] where the new key is another user's, where its scopes aren't
    /// [covered](crate::Scopes::covers) by those of the caller's key, or that key has ended; [`StoreError::Conflict`]
    /// where the caller's key changes all the time; and those of [`create`](Self::create).
    pub async fn create_as(
        &self,
        caller: &AuthContext,
        new: NewApiKey,
    ) -> Result<IssuedKey, StoreError> {
        new.check()?;
        for _ in 0..ATTEMPTS {
            let permit = self.limits.change().await?;
            let (caller, new) = (caller.clone(), new.clone());
            let issue = self.detached(|store| async move {
                let maker = store.held_by(&caller, &new).await?;
                let held = Some((maker.id, maker.version));
                store.issue(new.made_by(&maker), held, permit).await
            });
            // Where it has changed since it was read, it is read again.
            if let Ok(issued) = issue.await? {
                return Ok(issued);
            }
        }
        Err(StoreError::Conflict(*caller.key_id()))
    }

    /// Draws a token and stores its key, where `maker` has that version still; gives the key's id where that, or
    /// the id, was in the way.
    async fn issue(
        &self,
        new: NewApiKey,
        maker: Option<(KeyId, u64)>,
        permit: Permit,
    ) -> Result<Result<IssuedKey, KeyId>, StoreError> {
        self.check_current_pepper().await?;
        let token = ApiKeyToken::generate(self.resolver.brand())?;
        let hash = self.resolver.peppers().hash(&token)?;
        let key = new.into_key(&token, hash, self.resolver.now());
        let made_by = key.made_by;
        let created = EventKind::Created { made_by };
        Ok(if self.insert(key.clone(), maker, created, permit).await? {
            Ok(IssuedKey { token, key })
        } else {
            Err(key.id)
        })
    }

    /// Checks that keys may be created under the current pepper.
    pub(super) async fn check_current_pepper(&self) -> Result<(), StoreError> {
        match self.resolver.pepper_checks() {
            Some(checks) => Ok(checks.check_current().await?),
            None => Ok(()),
        }
    }

    /// The key of `caller` as it is now, where it can give what is `new`.
    pub(super) async fn held_by(
        &self,
        caller: &AuthContext,
        new: &NewApiKey,
    ) -> Result<ApiKey, StoreError> {
        let Some(maker) = self.look_up(caller.key_id()).await? else {
            return Err(StoreError::NotHeld("a key that is there still"));
        };
        let now = self.resolver.now();
        let lacks = lacks(&maker, new.user_id(), new.scopes(), now);
        match lacks.or((maker.user_id != caller.user_id()).then_some("a key of that user")) {
            Some(what) => Err(StoreError::NotHeld(what)),
            None => Ok(maker),
        }
    }

    /// The key with this id, whatever its state, as the backend has it. A use that is still to be
    /// written shows already.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn get(&self, id: &KeyId) -> Result<Option<ApiKey>, StoreError> {
        let (permit, id) = (self.limits.read().await?, *id);
        self.detached_with(permit, |store| async move { store.look_up(&id).await })
            .await
    }

    /// The same, where the caller holds a permit and runs in a task of its own.
    pub(super) async fn look_up(&self, id: &KeyId) -> Result<Option<ApiKey>, StoreError> {
        let mut key = read_in_time(async { self.backend.get(id).await }).await?;
        if let Some(key) = &mut key {
            self.resolver.overlay(key);
        }
        Ok(key)
    }

    /// Runs `call` in a task of its own, which goes on where the caller leaves: a statement that
    /// is broken off closes its connection.
    pub(super) async fn detached<T, F>(&self, call: impl FnOnce(Self) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        detached(call(self.clone())).await
    }

    /// The same, and holds `permit` until the call ends.
    pub(super) async fn detached_with<T, F>(
        &self,
        permit: Permit,
        call: impl FnOnce(Self) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.detached(|store| with_permit(permit, call(store)))
            .await
    }

    /// The keys of a user, the newest first, revoked and expired ones among them.
    ///
    /// Keys that are created between two pages neither repeat nor hide any of the others.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore) -> Result<(), tower_api_key::StoreError> {
    /// use tower_api_key::PageRequest;
    ///
    /// let first = store.list_for_user("user_1", PageRequest::new().limit(20)).await?;
    /// if let Some(next) = first.next {
    ///     let second = store.list_for_user("user_1", PageRequest::new().limit(20).after(next)).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn list_for_user(
        &self,
        user_id: &str,
        page: PageRequest,
    ) -> Result<Page, StoreError> {
        let permit = self.limits.read().await?;
        let (one_more, user) = (page.and_one_more(), user_id.to_owned());
        let listed = self.detached_with(permit, |store| async move {
            let list = async { store.backend.list_for_user(&user, &one_more).await };
            Ok(read_in_time(list).await?)
        });
        let listed = listed.await?;
        let everything = KeyFilter::new().user(user_id).with_revoked();
        self.page_of(listed, &everything, &page)
    }

    /// Ends a key for good; the record stays, marked. Returns whether this call ended it: `false`
    /// if there is no such key, or it was revoked already. Whoever changes the key all the time doesn't keep it from
    /// ending, nor does a record that can't be read, where the backend [sees to that](crate::ApiKeyBackend::revoke).
    ///
    /// An id is public. Where users end their own keys, look first whose key it is
    /// ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the key may be revoked or not).
    pub async fn revoke(&self, id: &KeyId) -> Result<bool, StoreError> {
        self.revoke_for(id, None).await
    }

    /// Ends the key that this is the token of. Only the right secret does: `false` for any other,
    /// and for a key that was revoked already. An expired or disabled key can be revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the key may be revoked or not).
    pub async fn revoke_token(&self, token: impl AsRef<[u8]>) -> Result<bool, StoreError> {
        self.revoke_token_for(token.as_ref(), None).await
    }

    /// Ends every key of the user; returns how many it ended. A record that can't be
    /// read doesn't keep the others from ending. What was [handed off](Self::hand_off) for the user, and not
    /// claimed yet, is revoked before, and isn't counted.
    ///
    /// What comes to be meanwhile by these keys, by a rotation, a claim or [`create_as`](Self::create_as), is ended, too:
    /// they are gone through until none is left. What the service itself [creates](Self::create) or
    /// [hands off](Self::hand_off) for the user may escape: stop that before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (some of the keys may be revoked, or all; also
    /// where new ones came as fast as they were ended). Where the grants couldn't be revoked,
    /// the keys were all the same.
    pub async fn revoke_all_for_user(&self, user_id: &str) -> Result<usize, StoreError> {
        self.revoke_all_for(user_id, None).await
    }

    /// Removes a key's record; returns whether it was there. Its token is unknown from then on.
    ///
    /// Revoke a key that has leaked: the record tells later what it was.
    ///
    /// An id is public. Where users remove their own keys, look first whose key it is ([`get`](Self::get), `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the record may be gone or not).
    pub async fn delete(&self, id: &KeyId) -> Result<bool, StoreError> {
        let (permit, id) = (self.limits.revoke().await, *id);
        self.detached(|store| async move { store.delete_found(id, permit).await })
            .await
    }

    async fn delete_found(&self, id: KeyId, permit: Permit) -> Result<bool, StoreError> {
        let Some(found) = self.look_up_to_end(&id).await? else {
            return Ok(false);
        };
        let backend = self.backend.clone();
        let (place, deletion) = ending_of(&id, found.as_ref(), EventKind::Deleted);
        let delete = async move {
            let is_deleted = backend.delete(&id).await?;
            if !is_deleted && backend.get(&id).await?.is_some() {
                return Err(BackendError::kept());
            }
            Ok(is_deleted)
        };
        let delete = self.also_unread(id, found.is_none(), delete);
        let tell = self.resolver.emitter().if_done(deletion);
        let delete = with_permit(permit, delete);
        Ok(carry_out_and_tell(self.resolver.cache(), place, delete, tell).await?)
    }

    /// Returns the record, which may be unreadable, or nothing if there is none: then somebody
    /// else has deleted it, and this store's cache may not know.
    pub(super) async fn look_up_to_end(
        &self,
        id: &KeyId,
    ) -> Result<Option<Option<ApiKey>>, StoreError> {
        match read_in_time(async { self.backend.get(id).await }).await {
            Ok(Some(key)) => Ok(Some(Some(key))),
            Ok(None) => {
                self.ended_already(id);
                Ok(None)
            }
            Err(error) if error.is_corrupt() => Ok(Some(None)),
            Err(error) => Err(error.into()),
        }
    }

    /// `write`, after which nothing is believed of a record that couldn't be read, and may have been looked up by
    /// something else than its id.
    pub(super) fn also_unread<W: Future>(
        &self,
        id: KeyId,
        is_unread: bool,
        write: W,
    ) -> impl Future<Output = W::Output> + use<W> {
        let resolver = self.resolver.clone();
        async move {
            let written = write.await;
            if is_unread {
                resolver.forget(&id);
            }
            written
        }
    }

    /// Stores `key`, where there is no such key yet, and where `maker` has that version still.
    pub(super) async fn insert(
        &self,
        key: ApiKey,
        maker: Option<(KeyId, u64)>,
        kind: EventKind,
        permit: Permit,
    ) -> Result<bool, BackendError> {
        let (backend, place) = (self.backend.clone(), key.lookup_key());
        let event = Event::about(kind, &key);
        let insert = async move {
            match maker {
                Some(maker) => backend.insert_made_by(&key, maker).await,
                None => backend.insert(&key).await,
            }
        };
        let tell = self.resolver.emitter().if_done(event);
        let insert = with_permit(permit, insert);
        carry_out_and_tell(self.resolver.cache(), place, insert, tell).await
    }

    /// Somebody else has ended the key, and this store's cache may not have heard of it.
    pub(super) fn ended_already(&self, id: &KeyId) {
        self.resolver.forget(id);
    }

    /// Changes a record as `change` says, `key` or what has become of it since; returns what it is then,
    /// nothing where it is gone, or `change` left it as it was. Others may get in between: then it is tried
    /// again, also where the caller has gone away.
    pub(super) async fn change(
        &self,
        mut key: ApiKey,
        permit: Option<Permit>,
        retries: Retries,
        change: impl Fn(&mut ApiKey) -> Result<bool, StoreError> + Send + 'static,
    ) -> Result<Option<ApiKey>, StoreError> {
        let (store, id) = (self.clone(), key.id);
        let place = key.lookup_key();
        let changed = async move {
            let began = store.resolver.monotonic();
            for attempt in 0..DEACTIVATION_ATTEMPTS {
                let is_patient = retries == Retries::Many
                    && store.resolver.monotonic().saturating_sub(began) < DEACTIVATION_TIME;
                if attempt >= ATTEMPTS && !is_patient {
                    break;
                }
                let (before, expected) = (key.clone(), key.version);
                if !change(&mut key)? {
                    return Ok(None);
                }
                key.version = key.next_version()?;
                if store.backend.update(&key, expected).await? {
                    let kind = EventKind::of_change(&before, &key);
                    return Ok(Some((key, kind)));
                }
                match store.backend.get(&id).await? {
                    Some(newer) if newer.version == expected => {
                        return Err(BackendError::kept().into());
                    }
                    Some(newer) => key = newer,
                    None => return Ok(None),
                }
            }
            Err(StoreError::Conflict(id))
        };
        let emitter = self.resolver.emitter().clone();
        let tell = move |changed: &Option<(ApiKey, Option<EventKind>)>| {
            if let Some((key, Some(kind))) = changed {
                emitter.emit(Event::about(kind.clone(), key));
            }
        };
        let changed = async move {
            let changed = changed.await;
            drop(permit);
            changed
        };
        let changed = carry_out_and_tell(self.resolver.cache(), place, changed, tell);
        Ok(changed.await?.map(|(key, _)| key))
    }
}

/// What the record of `id` is cached under, and the event of its end. `found` is none where it can't be read.
pub(super) fn ending_of(id: &KeyId, found: Option<&ApiKey>, kind: EventKind) -> (LookupKey, Event) {
    match found {
        Some(key) => (key.lookup_key(), Event::about(kind, key)),
        None => (id.lookup_key(), Event::of(kind).key(*id)),
    }
}

/// What `maker` lacks to give a key of `user_id` with these scopes; nothing where it can. Whoever makes a key, or
/// claims one that was handed off, comes by here.
pub(super) fn lacks(
    maker: &ApiKey,
    user_id: &str,
    scopes: &Scopes,
    now: SystemTime,
) -> Option<&'static str> {
    if maker.user_id != user_id {
        Some("a key of that user")
    } else if maker.status(now) != KeyStatus::Active {
        Some("an active key")
    } else if !maker.scopes.covers(scopes) {
        Some("a key with all of these scopes")
    } else {
        None
    }
}
