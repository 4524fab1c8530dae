//! Contexts that are held on one node end with what ends their key on the other.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use tokio::time::timeout;
use tower_api_key::{AuthContext, KeyUpdate};

use crate::{
    DAY,
    pair::{Key, Pair},
    support::{databases::PATIENCE, start},
};

/// A context that was opened there, and waits for its end.
struct Held {
    auth: AuthContext,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Held {
    /// Its key is cached: so it has looked at once, and waits to be told.
    async fn there(pair: &Pair, key: &Key) -> Self {
        let auth = pair.there.verify(&key.token).await.unwrap();
        let revoked = Box::pin(auth.revoked());
        let mut held = Self { auth, revoked };
        assert!(!held.has_ended().await, "{}", pair.name);
        held
    }

    async fn has_ended(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.revoked.as_mut().poll(cx).is_ready())).await
    }

    async fn ends(self, what: &str) {
        let ended = timeout(PATIENCE, self.revoked).await;
        ended.unwrap_or_else(|_| panic!("{what}: it goes on"));
        assert!(!self.auth.is_active().await.unwrap(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_context_ends_with_what_ends_its_key_on_another_node() {
    for pair in Pair::all("nodes-held").await {
        let here = &pair.here;
        let [
            disabled,
            deleted,
            expired,
            revoked,
            leaked,
            at_once,
            bystander,
        ] = pair.cached_keys().await;
        let finished = pair.key().await;
        let _ = here.rotate(&finished.id, DAY).await.unwrap();
        pair.cache_there([(&*finished.token, "good")].into_iter())
            .await;
        let there = async |key| Held::there(&pair, key).await;
        let mut goes_on = there(&bystander).await;

        let held = there(&disabled).await;
        assert!(here.disable(&disabled.id).await.unwrap());
        held.ends("disable").await;
        let held = there(&deleted).await;
        assert!(here.delete(&deleted.id).await.unwrap());
        held.ends("delete").await;
        let held = there(&expired).await;
        let now = KeyUpdate::new().expires_at(start());
        assert!(here.update(&expired.id, now).await.unwrap().is_some());
        held.ends("an earlier end").await;
        let held = there(&revoked).await;
        assert!(here.revoke(&revoked.id).await.unwrap());
        held.ends("revoke").await;
        let held = there(&leaked).await;
        here.report_leaked([&leaked.token]).await.unwrap();
        held.ends("report_leaked").await;
        let held = there(&at_once).await;
        let _ = here.rotate(&at_once.id, Duration::ZERO).await.unwrap();
        held.ends("a rotation without an overlap").await;
        let held = there(&finished).await;
        assert!(here.finish_rotation(&finished.id).await.unwrap());
        held.ends("finish_rotation").await;

        let held = there(&bystander).await;
        assert!(
            !goes_on.has_ended().await,
            "{}: nobody has ended it",
            pair.name
        );
        let ended = here.revoke_all_for_user(held.auth.user_id()).await;
        assert!(ended.unwrap() >= 1);
        held.ends("revoke_all_for_user").await;
        goes_on.ends("revoke_all_for_user").await;
    }
}

/// What was to last longer ends when its new end comes, and not when that is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_context_ends_at_the_earlier_end_that_another_node_has_set() {
    for pair in Pair::all("nodes-held-end").await {
        let [key] = pair.cached_keys().await;
        let mut held = Held::there(&pair, &key).await;
        let soon = Duration::from_millis(50);
        let update = KeyUpdate::new().expires_at(start() + soon);
        assert!(pair.here.update(&key.id, update).await.unwrap().is_some());
        let is_told = async || {
            let auth = pair.there.verify(&key.token).await.unwrap();
            auth.expires_at().is_some()
        };
        pair.until("one with an end", is_told).await;
        assert!(!held.has_ended().await, "{}: too early", pair.name);
        pair.clock.advance(soon);
        held.ends("an earlier end").await;
    }
}
