//! Whether a token is good, and at what time.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tower_api_key::{
    ApiKeyBackend, ApiKeyToken, Brand, Cursor, KeyId, KeyResolver, MemoryBackend, NewApiKey,
    Pepper, PepperId, Peppers, Scope, Scopes, SecretHash, StoreError, TokenFormat, VerifyError,
};

use super::{SECOND, is_the_outage, new_key, outcome, store_on, verified};
use crate::support::{Fixture, USER, id_of, start, unknown_token, with_wrong_secret};

#[tokio::test]
async fn each_way_of_not_being_good_has_a_name_and_the_secret_is_asked_first() {
    let fixture = Fixture::new().await;
    let good = fixture.token(&[]).await;
    let ended = [
        (fixture.expired_token().await, "expired"),
        (fixture.revoked_token().await, "revoked"),
        (fixture.disabled_token().await, "disabled"),
    ];
    let mut cases = vec![
        (good.clone(), "good"),
        (with_wrong_secret(&good), "wrong secret"),
        (unknown_token(), "unknown"),
    ];
    for (token, name) in ended {
        cases.push((with_wrong_secret(&token), "wrong secret"));
        cases.push((token, name));
    }
    for (token, expected) in &cases {
        assert_eq!(verified(&fixture.store, token).await, *expected);
        assert_eq!(
            verified(&fixture.store, &format!("{token}.")).await,
            "malformed"
        );
    }
    fixture.set_broken(true);
    for (token, _) in &cases {
        let result = fixture.store.verify(token).await;
        assert_eq!(outcome(&result), "unavailable");
        assert!(is_the_outage(&result.unwrap_err()));
        assert_eq!(
            verified(&fixture.store, &format!("{token}.")).await,
            "malformed"
        );
    }
    fixture.set_broken(false);
    for (token, expected) in &cases {
        assert_eq!(verified(&fixture.store, token).await, *expected);
    }
}

#[tokio::test]
async fn g5_the_secret_is_compared_on_every_request() {
    let fixture = Fixture::new().await;
    let right = fixture.token(&[]).await;
    let wrong = with_wrong_secret(&right);
    let parsed: ApiKeyToken = wrong.parse().unwrap();
    for _ in 0..3 {
        assert_eq!(verified(&fixture.store, &right).await, "good");
        assert_eq!(verified(&fixture.store, &wrong).await, "wrong secret");
        assert!(!fixture.store.is_active(&wrong).await.unwrap());
        assert!(!matches!(fixture.store.resolve_now(&parsed), Some(Ok(_))));
    }
}

#[tokio::test]
async fn a_wrong_bit_anywhere_in_the_hash_is_a_wrong_secret() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let mut key = fixture.store.get(&id_of(&token)).await.unwrap().unwrap();
    let right = key.secret_hash.to_hex();
    for bit in 0..256 {
        let mut digits: Vec<u8> = right.bytes().collect();
        let digit = char::from(digits[bit / 4]).to_digit(16).unwrap() ^ (1 << (bit % 4));
        digits[bit / 4] = char::from_digit(digit, 16).unwrap() as u8;
        let wrong = str::from_utf8(&digits).unwrap();
        key.secret_hash = SecretHash::from_hex(*key.secret_hash.pepper().unwrap(), wrong).unwrap();
        key.version += 1;
        assert!(fixture.backend.update(&key, key.version - 1).await.unwrap());
        assert_eq!(
            verified(&fixture.store, &token).await,
            "wrong secret",
            "bit {bit}"
        );
    }
}

#[tokio::test]
async fn g6_expiry_and_revocation_are_checked_on_every_request() {
    let fixture = Fixture::new().await;
    let expiring = fixture.issue(new_key().expires_in(10 * SECOND)).await;
    assert_eq!(verified(&fixture.store, &expiring).await, "good");
    for (after, expected) in [
        (Duration::from_millis(9_999), "good"),
        (10 * SECOND, "expired"),
        (3600 * SECOND, "expired"),
        (9 * SECOND, "good"),
    ] {
        fixture.clock.set(start() + after);
        assert_eq!(
            verified(&fixture.store, &expiring).await,
            expected,
            "{after:?}"
        );
    }

    let id = id_of(&expiring);
    let mut key = fixture.store.get(&id).await.unwrap().unwrap();
    for (disabled_at, expected) in [(Some(start()), "disabled"), (None, "good")] {
        key.disabled_at = disabled_at;
        key.version += 1;
        assert!(fixture.backend.update(&key, key.version - 1).await.unwrap());
        assert_eq!(verified(&fixture.store, &expiring).await, expected);
    }
    assert!(fixture.store.revoke(&id).await.unwrap());
    assert_eq!(verified(&fixture.store, &expiring).await, "revoked");
    fixture.clock.set(UNIX_EPOCH);
    assert_eq!(verified(&fixture.store, &expiring).await, "revoked");
}

#[tokio::test]
async fn no_duration_and_no_time_is_too_far_away() {
    let fixture = Fixture::new().await;
    let end_of_9999 = UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    let farthest = UNIX_EPOCH + Duration::from_secs(i64::MAX as u64);
    let earliest = UNIX_EPOCH - Duration::from_secs(i64::MAX as u64);
    let fraction = start() + Duration::from_nanos(5_999_999);
    let cases = [
        (new_key().expires_in(Duration::MAX), end_of_9999, "good"),
        (new_key().expires_in(Duration::ZERO), start(), "expired"),
        (new_key().expires_at(farthest), end_of_9999, "good"),
        (
            new_key().expires_at(UNIX_EPOCH - SECOND),
            UNIX_EPOCH,
            "expired",
        ),
        (new_key().expires_at(earliest), UNIX_EPOCH, "expired"),
        (
            new_key().expires_at(fraction),
            start() + Duration::from_millis(5),
            "good",
        ),
    ];
    for (new, stored, expected) in cases {
        let issued = fixture.store.create(new).await.unwrap();
        assert_eq!(issued.key().expires_at, Some(stored));
        assert_eq!(
            verified(&fixture.store, issued.token().expose()).await,
            expected
        );
    }
    for now in [farthest, earliest, end_of_9999, UNIX_EPOCH - SECOND] {
        fixture.clock.set(now);
        let token = fixture.issue(new_key().expires_in(Duration::MAX)).await;
        let expected = if now < start() { "good" } else { "expired" };
        assert_eq!(verified(&fixture.store, &token).await, expected, "{now:?}");
        assert!(fixture.store.revoke_token(&token).await.unwrap());
    }
}

#[tokio::test]
async fn questions_by_token_need_the_secret_and_are_not_uses() {
    let fixture = Fixture::new().await;
    let good = fixture.token(&["notes:*"]).await;
    let everything = fixture
        .issue(NewApiKey::for_user(USER, Scopes::unrestricted()))
        .await;
    let others = [
        with_wrong_secret(&good),
        unknown_token(),
        fixture.expired_token().await,
        fixture.revoked_token().await,
        fixture.disabled_token().await,
        format!("{good} "),
        String::new(),
    ];
    let store = &fixture.store;
    for (token, tags) in [(&good, false), (&everything, true)] {
        assert!(store.is_active(token).await.unwrap());
        assert!(store.has_scope(token, "notes:read").await.unwrap());
        assert_eq!(store.has_scope(token, "tags:read").await.unwrap(), tags);
        assert!(!store.has_scope(token, "notes:*").await.unwrap());
    }
    for token in &others {
        assert!(!store.is_active(token).await.unwrap());
        assert!(!store.has_scope(token, "notes:read").await.unwrap());
    }
    assert_eq!(fixture.backend.touches(), 0);

    fixture.set_broken(true);
    let errors = [
        store.is_active(&good).await.unwrap_err(),
        store.has_scope(&good, "notes:read").await.unwrap_err(),
        store.revoke_token(&good).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(error, StoreError::Unavailable(_)) && is_the_outage(&error),
            "{error:?}"
        );
    }
    fixture.set_broken(false);
    assert!(store.is_active(&good).await.unwrap());
}

#[test]
fn g12_wrong_input_never_panics() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let token = runtime.block_on(fixture.token(&[]));
    let like_a_token = "(pk)?[.](key_)?[A-Za-z0-9_-]{0,40}[.]?\\PC{0,50}";
    let text = prop_oneof![
        any::<String>(),
        like_a_token,
        "[A-Za-z0-9_-]{43}",
        Just(token)
    ];
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        text.prop_map(String::into_bytes),
    ];
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) }, |(bytes in bytes, at in any::<prop::sample::Index>(), byte in any::<u8>())| {
        let mut bytes = bytes;
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let known = TokenFormat::default().parse(&bytes).is_ok();
        let verified = runtime.block_on(fixture.store.verify(&bytes));
        prop_assert_eq!(known, !matches!(verified, Err(VerifyError::Malformed(_))));
        let _ = runtime.block_on(fixture.store.has_scope(&bytes, &String::from_utf8_lossy(&bytes)));
        let _ = runtime.block_on(fixture.store.revoke_token(&bytes));
        let _ = Pepper::new("v1", &bytes);
        let text = String::from_utf8_lossy(&bytes);
        let text: &str = &text;
        let id = PepperId::new("v1").unwrap();
        let _ = SecretHash::from_hex(id, text);
        let _ = Pepper::from_env(text, "TOWER_API_KEY_TEST_UNSET");
        // What is read from a text is written as that text.
        let again = [
            text.parse::<ApiKeyToken>().ok().map(|token| token.expose().to_owned()),
            text.parse::<KeyId>().ok().map(|id| id.to_string()),
            text.parse::<Cursor>().ok().map(|cursor| cursor.to_string()),
            Scope::new(text).ok().map(|scope| scope.to_string()),
            Scopes::of([text]).ok().map(|scopes| scopes.to_string()),
            Brand::new(text).ok().map(|brand| brand.as_str().to_owned()),
            PepperId::new(text).ok().map(|id| id.to_string()),
        ];
        for again in again.into_iter().flatten() {
            prop_assert_eq!(again, text);
        }
    });
}

#[tokio::test]
async fn an_unknown_id_costs_a_hash_as_a_known_one_does() {
    let peppers = Peppers::ephemeral();
    let store = store_on(MemoryBackend::new(), peppers.clone()).await;
    assert!(format!("{peppers:?}").contains("None"), "{peppers:?}");
    assert_eq!(verified(&store, &unknown_token()).await, "unknown");
    // The pepper is drawn when the first hash is computed.
    assert!(format!("{peppers:?}").contains("eph-"), "{peppers:?}");
}
