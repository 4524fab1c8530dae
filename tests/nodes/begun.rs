//! Keys that come to be on one node work on the other.

use std::time::Duration;

use tower_api_key::{
    ApiKeyToken, Brand, Imported, MissingScopes, OldKey, OldPatterns, OldScopes, OldWildcard,
    PepperId, Peppers,
};

use crate::{
    pair::{Key, Pair, new_key, verified},
    support::{USER, databases::pepper},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_claimed_or_made_on_one_node_works_on_the_other_at_once() {
    for pair in Pair::all("nodes-claimed").await {
        // Both hear of what happens.
        let _ = pair.cached_keys::<1>().await;
        for [one, other] in [[&pair.here, &pair.there], [&pair.there, &pair.here]] {
            let minute = Duration::from_secs(60);
            let handed_off = other.hand_off(new_key(), minute).await.unwrap();
            let claimed: Key = one.claim(handed_off.token()).await.unwrap().into();
            let made: Key = one.create(new_key()).await.unwrap().into();
            let rotated: Key = one.rotate(&made.id, minute).await.unwrap().into();
            for key in [&claimed, &made, &rotated] {
                for store in [other, one] {
                    let said = verified(store, &key.token).await;
                    assert_eq!(said, "good", "{}", pair.name);
                }
            }
            assert!(one.revoke(&claimed.id).await.unwrap());
            pair.becomes_there(&claimed.token, "revoked").await;
        }
    }
}

/// Until then it was unknown, and remembered as such.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_imported_on_one_node_works_on_one_that_took_it_for_unknown() {
    let meaning = OldScopes {
        missing: MissingScopes::Refuse,
        wildcard: OldWildcard::Refuse,
        patterns: OldPatterns::Refuse,
    };
    for pair in Pair::all("nodes-imported").await {
        let token = ApiKeyToken::generate(&Brand::default()).unwrap();
        let hash = Peppers::new(pepper("v1")).hash(&token).unwrap();
        let id = token.key_id().unwrap().to_string();
        pair.cache_there([(token.expose(), "unknown")].into_iter())
            .await;
        let v1 = PepperId::new("v1").unwrap();
        let old = OldKey::by_hmac(id, v1, hash.to_hex(), USER).scopes(["notes:read"]);
        let imported = pair.here.import(old, &meaning).await.unwrap();
        assert!(matches!(imported, Imported::Stored(_)), "{}", pair.name);
        pair.becomes(token.expose(), "good").await;
    }
}
