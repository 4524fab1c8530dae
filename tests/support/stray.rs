//! Transactions that a service has left open on the connections that it gave back: what every backend over a
//! service's own pool has to make of them.

use std::time::Duration;

use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, GrantStatus, IssuedKey, KeyGrant, KeyUpdate, NewApiKey,
    Scopes, Touch,
};

use super::{USER, outcome, start};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A store over a service's pool of one connection, and another on connections of its own.
pub struct Shared<B, F> {
    pub store: ApiKeyStore,
    pub backend: B,
    pub elsewhere: ApiKeyStore,
    /// Takes the pool's connection, sends it this text, and gives it back, whatever became of it.
    pub send: F,
}

impl<B: ApiKeyBackend, F: AsyncFn(&str)> Shared<B, F> {
    /// Each write is there when everything is over that the service has begun.
    pub async fn writes_hold(&self, left_open: &str) {
        let new = || NewApiKey::for_user(USER, Scopes::none());
        let store = &self.store;
        let what = |what: &str| format!("{what} after {left_open}");

        let create = self.after(left_open, async || store.create(new()).await.unwrap());
        let issued = create.await;
        let key = self.key(&issued).await;
        assert!(key.is_some(), "{}", what("created"));
        let id = &issued.key().id;

        let update = KeyUpdate::new().name("named");
        self.after(left_open, async || {
            store.update(id, update.clone()).await.unwrap()
        })
        .await;
        let name = self.key(&issued).await.unwrap().name;
        assert_eq!(name.as_deref(), Some("named"), "{}", what("named"));

        let touch = [Touch::new(*id, start())];
        self.after(left_open, async || {
            self.backend.touch(&touch).await.unwrap();
        })
        .await;
        let used = self.key(&issued).await.unwrap().last_used_at;
        assert_eq!(used, Some(start()), "{}", what("used"));

        let rotate = async || store.rotate(id, HOUR).await.unwrap();
        let successor = self.after(left_open, rotate).await;
        assert!(self.key(&successor).await.is_some(), "{}", what("rotated"));
        assert!(self.key(&issued).await.unwrap().successor.is_some());

        let disable = async || store.disable(id).await.unwrap();
        assert!(self.after(left_open, disable).await);
        let disabled = self.key(&issued).await.unwrap().disabled_at;
        assert!(disabled.is_some(), "{}", what("suspended"));

        let revoke = async || store.revoke(id).await.unwrap();
        assert!(self.after(left_open, revoke).await);
        let verified = self.elsewhere.verify_fresh(issued.token().expose()).await;
        assert_eq!(outcome(&verified), "revoked", "{}", what("revoked"));

        let revoke = async || store.revoke_all_for_user(USER).await.unwrap();
        assert_eq!(self.after(left_open, revoke).await, 1);
        let verified = self
            .elsewhere
            .verify_fresh(successor.token().expose())
            .await;
        assert_eq!(outcome(&verified), "revoked", "{}", what("all revoked"));

        let delete = async || store.delete(id).await.unwrap();
        assert!(self.after(left_open, delete).await);
        assert!(self.key(&issued).await.is_none(), "{}", what("deleted"));

        let hand_off = async || store.hand_off(new(), HOUR).await.unwrap();
        let handed_off = self.after(left_open, hand_off).await;
        let grant = self.grant(handed_off.grant()).await;
        assert_eq!(grant, Some(GrantStatus::Pending), "{}", what("handed off"));

        let claim = async || store.claim(handed_off.token()).await.unwrap();
        let claimed = self.after(left_open, claim).await;
        let grant = self.grant(handed_off.grant()).await;
        assert_eq!(grant, Some(GrantStatus::Claimed), "{}", what("claimed"));
        assert!(self.key(&claimed).await.is_some());

        let taken_back = store.hand_off(new(), HOUR).await.unwrap();
        let revoke = async || store.revoke_grant(&taken_back.grant().id).await.unwrap();
        assert!(self.after(left_open, revoke).await);
        let grant = self.grant(taken_back.grant()).await;
        assert_eq!(grant, Some(GrantStatus::Revoked), "{}", what("taken back"));

        let long_ago = start() - 24 * 365 * 5 * HOUR;
        let ended = store.create(new().expires_at(long_ago)).await.unwrap();
        let purge = async || store.purge(long_ago + HOUR).await.unwrap();
        assert_eq!(self.after(left_open, purge).await, 1);
        assert!(self.key(&ended).await.is_none(), "{}", what("purged"));
        store.delete(&claimed.key().id).await.unwrap();
    }

    /// A look-up sees what others have committed, though the connection saw something else before.
    pub async fn look_ups_see_what_is_there(&self, begin: &str) {
        for by_hand in [
            "SELECT count(*) FROM tower_api_keys",
            "UPDATE tower_api_keys SET revoked_at = NULL",
        ] {
            let new = NewApiKey::for_user(USER, Scopes::none());
            let issued = self.elsewhere.create(new).await.unwrap();
            let (id, token) = (&issued.key().id, issued.token().expose());
            let sees_it = by_hand.starts_with("SELECT");
            if !sees_it {
                assert!(self.elsewhere.revoke(id).await.unwrap());
            }
            (self.send)(&format!("{begin}; {by_hand}")).await;
            if sees_it {
                assert!(self.elsewhere.revoke(id).await.unwrap());
            }
            let verified = self.store.verify_fresh(token).await;
            assert_eq!(outcome(&verified), "revoked", "{begin}; {by_hand}");
            let listed = self.store.get(id).await.unwrap().unwrap();
            assert!(listed.revoked_at.is_some(), "{begin}; {by_hand}");
            (self.send)("ROLLBACK").await;
        }
    }

    /// A revocation that is in a transaction which nobody is going to commit is none.
    pub async fn what_is_not_committed_is_not_revoked_already(&self, begin: &str, now: &str) {
        let new = NewApiKey::for_user(USER, Scopes::none());
        let issued = self.store.create(new).await.unwrap();
        let by_hand = format!("{begin}; UPDATE tower_api_keys SET revoked_at = {now}");
        let revoke = async || self.store.revoke(&issued.key().id).await.unwrap();
        assert!(self.after(&by_hand, revoke).await);
        assert!(self.key(&issued).await.unwrap().revoked_at.is_some());
    }

    /// What `write` gives on a connection with a transaction that is rolled back afterwards.
    pub async fn after<T>(&self, left_open: &str, write: impl AsyncFn() -> T) -> T {
        (self.send)(left_open).await;
        let written = write().await;
        (self.send)("ROLLBACK").await;
        written
    }

    async fn key(&self, issued: &IssuedKey) -> Option<ApiKey> {
        self.elsewhere.get(&issued.key().id).await.unwrap()
    }

    async fn grant(&self, grant: &KeyGrant) -> Option<GrantStatus> {
        let grant = self.elsewhere.grant(&grant.id).await.unwrap()?;
        Some(grant.status(std::time::SystemTime::now()))
    }
}
