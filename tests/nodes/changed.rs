//! Changes that leave a key working, or let it work again: told as those that end it.

use tower_api_key::{AuthContext, KeyUpdate, Scopes};

use crate::{
    DAY,
    pair::{Key, Pair},
    support::start,
};

/// Here it is so at once, and there once it is told.
async fn context_becomes(pair: &Pair, key: &Key, what: &str, is_so: impl Fn(&AuthContext) -> bool) {
    let auth = pair.here.verify(&key.token).await.unwrap();
    assert!(is_so(&auth), "{}: {auth:?} isn't {what}", pair.name);
    let is_so = async || is_so(&pair.there.verify(&key.token).await.unwrap());
    pair.until(what, is_so).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_key_may_do_and_until_when_is_changed_on_a_node_that_has_it_cached() {
    for pair in Pair::all("nodes-updated").await {
        let here = &pair.here;
        let [scopes, name, expiry, rotated] = pair.cached_keys().await;
        let update = KeyUpdate::new().scopes(Scopes::of(["tags:read"]).unwrap());
        assert!(here.update(&scopes.id, update).await.unwrap().is_some());
        context_becomes(&pair, &scopes, "of other scopes", |auth| {
            auth.has_scope("tags:read") && !auth.has_scope("notes:read")
        })
        .await;
        let update = KeyUpdate::new().name("CI");
        assert!(here.update(&name.id, update).await.unwrap().is_some());
        let is_named = |auth: &AuthContext| auth.name() == Some("CI");
        context_becomes(&pair, &name, "named", is_named).await;
        let update = KeyUpdate::new().expires_at(start() + DAY);
        assert!(here.update(&expiry.id, update).await.unwrap().is_some());
        let ends = |auth: &AuthContext| auth.expires_at() == Some(start() + DAY);
        context_becomes(&pair, &expiry, "one with an end", ends).await;
        let _ = here.rotate(&rotated.id, DAY).await.unwrap();
        context_becomes(&pair, &rotated, "one that retires", ends).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_works_again_does_on_a_node_that_has_it_cached_as_one_that_does_not() {
    for pair in Pair::all("nodes-enabled").await {
        let here = &pair.here;
        let [suspended, expired] = [pair.key().await, pair.key().await];
        assert!(here.disable(&suspended.id).await.unwrap());
        let now = KeyUpdate::new().expires_at(start());
        assert!(here.update(&expired.id, now).await.unwrap().is_some());
        let keys = [
            (&*suspended.token, "disabled"),
            (&*expired.token, "expired"),
        ];
        pair.cache_there(keys.into_iter()).await;
        assert!(here.enable(&suspended.id).await.unwrap());
        pair.becomes(&suspended.token, "good").await;
        let never = KeyUpdate::new().never_expires();
        assert!(here.update(&expired.id, never).await.unwrap().is_some());
        pair.becomes(&expired.token, "good").await;
    }
}
