//! Taking such keys over: one by one and many at once, twice, and those that can't be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_api_key::{
    ApiKey, ApiKeyStore, DigestFormat, Imported, MemoryBackend, Metadata, MissingScopes, OldKey,
    OldPatterns, OldScopes, OldWildcard, PageRequest, PepperId, Peppers, RefusedReason, Scopes,
    TokenAlphabet,
};

use super::{old, pepper, pylon, store_on, strict, vectors};
use crate::support::{USER, outcome, start};

async fn memory() -> ApiKeyStore {
    store_on(MemoryBackend::new()).await.0
}

async fn stored(store: &ApiKeyStore, old: OldKey) -> ApiKey {
    match store.import(old, &strict()).await.unwrap() {
        Imported::Stored(key) => *key,
        other => panic!("{other:?}"),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[tokio::test]
async fn all_that_is_said_of_a_key_is_kept() {
    let store = memory().await;
    let metadata = Metadata::from_json("{\"plan\":\"pro\"}").unwrap();
    let full = OldKey::by_digest(old().key_hash, USER)
        .name("CI")
        .scopes(["notes:read", "tags:write"])
        .display_prefix("pylon_afeb".parse().unwrap())
        .metadata(metadata.clone())
        .created_at(at(1_700_000_000) + Duration::from_micros(1_500))
        .expires_at(at(1_900_000_000))
        .last_used_at(at(1_700_000_900))
        .disabled_at(at(1_700_000_901))
        .revoked_at(at(1_700_000_902));
    let key = stored(&store, full).await;
    let read = store.get(&key.id).await.unwrap().unwrap();
    assert_eq!(format!("{key:?}"), format!("{read:?}"));
    assert_eq!(
        (read.user_id.as_str(), read.name.as_deref()),
        (USER, Some("CI"))
    );
    assert_eq!(
        read.scopes,
        Scopes::of(["notes:read", "tags:write"]).unwrap()
    );
    assert_eq!(read.display_prefix.as_str(), "pylon_afeb");
    assert_eq!(read.metadata, Some(metadata));
    assert_eq!(
        read.created_at,
        at(1_700_000_000) + Duration::from_millis(1)
    );
    assert_eq!(read.expires_at, Some(at(1_900_000_000)));
    assert_eq!(read.last_used_at, Some(at(1_700_000_900)));
    assert_eq!(read.disabled_at, Some(at(1_700_000_901)));
    assert_eq!(read.revoked_at, Some(at(1_700_000_902)));
    assert_eq!(read.secret_hash.to_hex(), old().key_hash);
    assert_eq!((read.secret_hash.pepper(), read.version), (None, 1));

    let bare = OldKey::by_digest(vectors()[1].key_hash.to_uppercase(), USER);
    let bare = bare.name("").scopes(["notes:read"]);
    let key = stored(&store, bare).await;
    assert_eq!((&key.name, key.created_at), (&None, start()));
    assert_eq!((key.expires_at, key.last_used_at), (None, None));
    assert_eq!((key.revoked_at, key.disabled_at), (None, None));
    assert_eq!(key.display_prefix.as_str(), "pylon_");
    // Ids are drawn, and have nothing to do with what they are looked up by.
    assert_ne!(key.id, read.id);
    assert_ne!(key.lookup_key(), key.id.lookup_key());
    let list = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    assert_eq!(list.keys.len(), 2);
}

#[tokio::test]
async fn an_import_may_be_run_again_and_changes_nothing_then() {
    let store = memory().await;
    let all = || {
        let old = vectors().into_iter();
        old.map(|old| OldKey::by_digest(old.key_hash, USER).scopes(["notes:read"]))
    };
    let first = store.import_all(all().take(2), &strict()).await.unwrap();
    assert_eq!(first.to_string(), "2 imported, 0 already there, 0 refused");
    let token = old().raw_key;
    assert_eq!(outcome(&store.verify(&token).await), "good");
    assert!(store.revoke_token(&token).await.unwrap());

    let second = store.import_all(all(), &strict()).await.unwrap();
    assert_eq!(second.to_string(), "1 imported, 2 already there, 0 refused");
    assert_eq!(outcome(&store.verify(&token).await), "revoked");
    let again = OldKey::by_digest(old().key_hash, "user_2").name("other");
    let again = store.import(again.scopes(["*"]), &open()).await.unwrap();
    assert!(matches!(again, Imported::AlreadyThere));
    assert_eq!(outcome(&store.verify(&token).await), "revoked");
    let list = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    assert_eq!(list.keys.len(), 3);
}

#[tokio::test]
async fn a_token_that_was_unknown_works_as_soon_as_its_key_is_imported() {
    let store = memory().await;
    for vector in vectors() {
        assert_eq!(outcome(&store.verify(&vector.raw_key).await), "unknown");
        let old = OldKey::by_digest(&vector.key_hash, USER).scopes(["notes:read"]);
        stored(&store, old).await;
        assert_eq!(outcome(&store.verify(&vector.raw_key).await), "good");
    }
}

/// Everything is explained in the widest sense.
fn open() -> OldScopes {
    OldScopes {
        missing: MissingScopes::Unrestricted,
        wildcard: OldWildcard::Unrestricted,
        patterns: OldPatterns::Ours,
    }
}

#[tokio::test]
async fn missing_scopes_and_patterns_mean_what_is_said_and_nothing_by_themselves() {
    let none: &[&str] = &[];
    let these = Scopes::of(["a:b"]).unwrap();
    for (scopes, meaning, expected) in [
        (none, open(), Some(Scopes::unrestricted())),
        (none, strict(), None),
        (
            none,
            OldScopes {
                missing: MissingScopes::These(these.clone()),
                ..strict()
            },
            Some(these),
        ),
        (&["*"], open(), Some(Scopes::unrestricted())),
        (&["*"], strict(), None),
        (&["notes:*"], strict(), None),
        (&["notes:*"], open(), Some(Scopes::of(["notes:*"]).unwrap())),
        (&["notes read"], open(), None),
        (&[""], open(), None),
        (&["no*tes", "*"], open(), None),
    ] {
        let store = memory().await;
        let old = OldKey::by_digest(old().key_hash, USER).scopes(scopes.iter().copied());
        let found = match store.import(old, &meaning).await.unwrap() {
            Imported::Stored(key) => Some(key.scopes),
            Imported::Refused(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{scopes:?}");
    }
}

#[tokio::test]
async fn a_store_that_takes_no_such_tokens_takes_no_such_keys() {
    let store = ApiKeyStore::in_memory();
    let old = OldKey::by_digest(old().key_hash, USER).scopes(["notes:read"]);
    let refused = store.import(old, &strict()).await.unwrap();
    let Imported::Refused(row) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(row.reason, RefusedReason::NoDigestFormat);
    let list = store.list_for_user(USER, PageRequest::new()).await.unwrap();
    assert!(list.keys.is_empty());
}

#[tokio::test]
async fn with_several_formats_nothing_of_a_token_is_shown_unless_it_is_said() {
    let other = DigestFormat::new("old_", 44, TokenAlphabet::Alphanumeric).unwrap();
    let store = ApiKeyStore::builder(MemoryBackend::new()).peppers(Peppers::new(pepper()));
    let store = store.digest_format(pylon()).digest_format(other);
    let store = store.build().await.unwrap();
    let old = OldKey::by_digest(old().key_hash, USER).scopes(["notes:read"]);
    let key = stored(&store, old).await;
    assert_eq!(key.display_prefix.as_str(), "*");
}

#[tokio::test]
async fn keys_of_our_own_form_that_were_made_elsewhere_keep_their_id_and_name_their_pepper() {
    let elsewhere = ApiKeyStore::builder(MemoryBackend::new()).peppers(Peppers::new(pepper()));
    let elsewhere = elsewhere.build().await.unwrap();
    let new = tower_api_key::NewApiKey::for_user(USER, Scopes::none());
    let issued = elsewhere.create(new).await.unwrap();
    let (id, hash) = (issued.key().id, issued.key().secret_hash.to_hex());

    let store = memory().await;
    let v1 = PepperId::new("v1").unwrap();
    let old = || OldKey::by_hmac(id.to_string(), v1, &hash, USER).scopes(["notes:read"]);
    let key = stored(&store, old()).await;
    assert_eq!((key.id, key.secret_hash.pepper()), (id, Some(&v1)));
    assert_eq!(key.display_prefix, issued.key().display_prefix);
    assert!(
        store
            .has_scope(issued.token().expose(), "notes:read")
            .await
            .unwrap()
    );
    let again = store.import(old(), &strict()).await.unwrap();
    assert!(matches!(again, Imported::AlreadyThere));
    assert!(store.revoke_token(issued.token().expose()).await.unwrap());
}
