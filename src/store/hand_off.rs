//! Keys that are handed off: promised, listed, and taken back before they are claimed.

use std::time::Duration;

use super::{
    ApiKeyStore,
    concurrency::{read_in_time, with_permit},
    manage::MAX_DRAWN,
    write::detached,
};
use crate::{
    backend::{GrantCursor, GrantInsertion, GrantPage, GrantPageRequest},
    context::AuthContext,
    error::{BackendError, RandomError, StoreError},
    events::{Event, EventKind},
    handoff::{HandedOff, HandoffToken},
    key::{ClaimHash, GrantId, KeyGrant, NewApiKey},
    token::random,
};

impl ApiKeyStore {
    /// Promises a key to whoever presents a one-time token within `ttl`: for an invitation, a machine that
    /// sets itself up, a page that another opens. The key is made when it is [claimed](Self::claim), so that its
    /// plaintext waits nowhere. The grant is kept by the backend: a claim succeeds on any node, also
    /// after a restart, and once. Of the token, its SHA-256 is kept.
    ///
    /// A `ttl` of zero has ended at once; one that is too long ends with the year 9999.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use tower_api_key::{ApiKeyStore, HandoffToken, NewApiKey, Scopes};
    ///
    /// let store = ApiKeyStore::in_memory();
    /// let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?).name("laptop");
    /// let handed_off = store.hand_off(new, Duration::from_secs(15 * 60)).await?;
    /// let link = format!("https://example.com/claim#{}", handed_off.token().expose_text());
    ///
    /// // Where the other side presents it, in a POST:
    /// let presented: HandoffToken = link.rsplit('#').next().unwrap().parse()?;
    /// let issued = store.claim(&presented).await?;
    /// assert!(store.is_active(issued.token().expose()).await?);
    /// assert!(store.claim(&presented).await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidKey`], [`StoreError::UserGrantsFull`] and [`StoreError::GrantsFull`] where as many wait
    /// as [may](super::ApiKeyStoreBuilder::grant_limits), [`StoreError::Random`], [`StoreError::Unavailable`],
    /// [`StoreError::Unsupported`] where the backend can't keep grants.
    pub async fn hand_off(&self, new: NewApiKey, ttl: Duration) -> Result<HandedOff, StoreError> {
        new.check()?;
        self.hand_off_checked(new, ttl).await
    }

    async fn hand_off_checked(
        &self,
        new: NewApiKey,
        ttl: Duration,
    ) -> Result<HandedOff, StoreError> {
        let now = self.resolver.now();
        for _ in 0..MAX_DRAWN {
            let token = HandoffToken::generate()?;
            let id = GrantId::from_bytes(random()?);
            let grant = new.clone().into_grant(id, token.claim_hash(), now, ttl);
            match self.insert_grant(grant.clone()).await? {
                GrantInsertion::Stored => return Ok(HandedOff::new(token, grant)),
                GrantInsertion::Taken => {}
                GrantInsertion::UserIsFull => {
                    let at_most = self.grant_limits.max_per_user();
                    return Err(StoreError::UserGrantsFull { at_most });
                }
                GrantInsertion::Full => {
                    let at_most = self.grant_limits.max_in_all();
                    return Err(StoreError::GrantsFull { at_most });
                }
            }
        }
        Err(RandomError::new(Repeats).into())
    }

    /// The same for the caller's own user, for a key that can do no more than the caller's: see
    /// [`create_as`](Self::create_as).
    ///
    /// **The grant ends with the caller's key**, also before `ttl` has passed: when it is claimed, that key is read anew,
    /// and has to work and to hold as much still. The key that was claimed before that is one of its own.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotHeld`], and those of [`hand_off`](Self::hand_off).
    pub async fn hand_off_as(
        &self,
        caller: &AuthContext,
        new: NewApiKey,
        ttl: Duration,
    ) -> Result<HandedOff, StoreError> {
        new.check()?;
        let permit = self.limits.read().await?;
        let (caller, checked) = (caller.clone(), new.clone());
        let maker = self.detached_with(permit, |store| async move {
            store.held_by(&caller, &checked).await
        });
        let new = new.made_by(&maker.await?);
        self.hand_off_checked(new, ttl).await
    }

    /// The grants for keys of a user, or of everybody, the newest first, whatever has become of them: who made
    /// each, when, and whether it was claimed, as which key.
    ///
    /// Those that can still be claimed, [by their status](KeyGrant::status) now:
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::GrantPageRequest;
    ///
    /// let mut request = GrantPageRequest::new().pending();
    /// loop {
    ///     let page = store.grants(request.clone()).await?;
    ///     for grant in page.grants {
    ///         println!("{} for {}", grant.id, grant.user_id);
    ///     }
    ///     match page.next {
    ///         Some(next) => request = request.after(next),
    ///         None => break,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Unsupported`].
    pub async fn grants(&self, page: GrantPageRequest) -> Result<GrantPage, StoreError> {
        let page = page.at(self.resolver.now());
        let (permit, listed) = (self.limits.read().await?, page.clone().and_one_more());
        let listing = self.detached_with(permit, |store| async move {
            let read = async { store.backend.list_grants(&listed).await };
            Ok(read_in_time(read).await?)
        });
        let mut grants = listing.await?;
        check_page(&grants, &page)?;
        let has_more = grants.len() > page.max_grants();
        grants.truncate(page.max_grants());
        let last = grants.last().filter(|_| has_more);
        let next = last.map(GrantCursor::of);
        Ok(GrantPage { grants, next })
    }

    /// The grant with this id, whatever has become of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Unsupported`].
    pub async fn grant(&self, id: &GrantId) -> Result<Option<KeyGrant>, StoreError> {
        let (permit, id) = (self.limits.read().await?, *id);
        let get = self.detached_with(permit, |store| async move {
            let get = async { store.backend.get_grant_by_id(&id).await };
            Ok(only_if(read_in_time(get).await?, |grant| grant.id == id)?)
        });
        get.await
    }

    /// The grant that this is the token of, whatever has become of it. It uses nothing up: for a page that shows
    /// what is going to be claimed, since mail scanners open links, too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Unsupported`].
    pub async fn grant_of(&self, token: &HandoffToken) -> Result<Option<KeyGrant>, StoreError> {
        let (permit, hash) = (self.limits.look_up_claim().await?, token.claim_hash());
        self.detached_with(permit, |store| async move { store.find_grant(hash).await })
            .await
    }

    pub(super) async fn find_grant(&self, hash: ClaimHash) -> Result<Option<KeyGrant>, StoreError> {
        let get = async { self.backend.get_grant(&hash).await };
        let grant = read_in_time(get).await?;
        Ok(only_if(grant, |grant| grant.claim_hash == hash)?)
    }

    /// Takes back a grant; returns whether this call did: `false` if there is no such grant, or it was
    /// claimed or revoked already. One whose time is over is revoked like any other. A key that was claimed is
    /// revoked by its own id.
    ///
    /// An id is public. Where users take back their own, look first whose it is ([`grant`](Self::grant),
    /// `user_id`).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (the grant may be revoked or not), [`StoreError::Unsupported`].
    pub async fn revoke_grant(&self, id: &GrantId) -> Result<bool, StoreError> {
        let permit = self.limits.revoke().await;
        let (backend, id, now) = (self.backend.clone(), *id, self.resolver.now());
        let emitter = self.resolver.emitter().clone();
        let revoke = async move {
            let revoked = backend.revoke_grant(&id, now).await?;
            if revoked {
                let mut event = Event::of(EventKind::GrantRevoked);
                event.grant_id = Some(id);
                emitter.emit(event);
            }
            Ok::<_, BackendError>(revoked)
        };
        Ok(detached(with_permit(permit, revoke)).await?)
    }

    /// Where the backend keeps no grants, there is none.
    pub(super) async fn revoke_grants_of_user(&self, user_id: &str) -> Result<usize, StoreError> {
        let (backend, now) = (self.backend.clone(), self.resolver.now());
        let (emitter, user_id) = (self.resolver.emitter().clone(), user_id.to_owned());
        let revoke = async move {
            let revoked = backend.revoke_grants_of_user(&user_id, now).await?;
            if revoked > 0 {
                emitter.emit(Event::of(EventKind::GrantRevoked).user(&user_id));
            }
            Ok::<_, BackendError>(revoked)
        };
        match detached(revoke).await {
            Err(error) if error.is_unsupported() => Ok(0),
            revoked => Ok(revoked?),
        }
    }

    async fn insert_grant(&self, grant: KeyGrant) -> Result<GrantInsertion, StoreError> {
        let permit = self.limits.grant().await?;
        let (backend, limits) = (self.backend.clone(), self.grant_limits);
        let emitter = self.resolver.emitter().clone();
        let insert = async move {
            let inserted = backend.insert_grant(&grant, &limits).await?;
            if inserted == GrantInsertion::Stored {
                let made_by = grant.made_by;
                emitter.emit(Event::of(EventKind::GrantMade { made_by }).grant(&grant));
            }
            Ok::<_, BackendError>(inserted)
        };
        Ok(detached(with_permit(permit, insert)).await?)
    }
}

/// 128 bits were taken already, several times in a row.
#[derive(Debug, thiserror::Error)]
#[error("the ids that were drawn are taken already: the randomness repeats itself")]
struct Repeats;

/// A backend is believed in what it was asked for.
fn only_if(
    grant: Option<KeyGrant>,
    is_wanted: impl FnOnce(&KeyGrant) -> bool,
) -> Result<Option<KeyGrant>, BackendError> {
    match grant {
        Some(grant) if !is_wanted(&grant) => {
            Err(BackendError::corrupt("another grant than was asked for"))
        }
        grant => Ok(grant),
    }
}

/// As with keys: the grants have to be those that were asked for, and each has to come after the one before.
fn check_page(grants: &[KeyGrant], page: &GrantPageRequest) -> Result<(), BackendError> {
    let mut last = page.cursor().copied();
    for grant in grants {
        if !page.fits(grant) {
            return Err(BackendError::corrupt(
                "a grant that wasn't asked for in a list",
            ));
        }
        let place = GrantCursor::of(grant);
        if last.is_some_and(|last| place >= last) {
            return Err(BackendError::corrupt(
                "a list of grants that is out of order",
            ));
        }
        last = Some(place);
    }
    Ok(())
}
