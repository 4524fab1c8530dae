//! Lists by a filter and purges, on keys that proptest makes: what every backend has to make of them.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::{collection::vec, option, prelude::*};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, Cursor, KeyFilter, KeyId, KeyStatus, ManualClock,
    NewApiKey, PageRequest, Pepper, PepperId, Peppers, Scopes, SecretHash, StoreError,
};

use super::PEPPER;

/// So many cases, and no file with those that failed.
pub fn cases(number: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(number)
    }
}

/// A server's clock is past it, too.
fn long_ago() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_600_000_000)
}

/// Few, so that they are often the same.
fn moment() -> impl Strategy<Value = SystemTime> {
    (0..12_u64).prop_map(|number| long_ago() + Duration::from_millis(number))
}

/// One that need not be a whole millisecond.
fn limit() -> impl Strategy<Value = SystemTime> {
    let nanos = prop_oneof![3 => Just(0), 1 => 1..1_000_000_u64];
    (moment(), nanos).prop_map(|(moment, nanos)| moment + Duration::from_nanos(nanos))
}

fn user() -> impl Strategy<Value = String> {
    prop_oneof!["user_[12]", "USER_1", "user_1 "]
}

fn maker() -> impl Strategy<Value = KeyId> {
    (0..3_u8).prop_map(|number| KeyId::from_bytes([number; KeyId::LEN]))
}

fn pepper() -> impl Strategy<Value = PepperId> {
    prop_oneof!["v[12]", "V1"].prop_map(|id| PepperId::new(&id).unwrap())
}

/// Keys of a few users, with all that a filter looks at.
pub fn keys(most: usize) -> impl Strategy<Value = Vec<ApiKey>> {
    let times = (
        moment(),
        option::of(moment()),
        option::of(moment()),
        option::of(moment()),
        option::weighted(0.3, moment()),
        option::weighted(0.3, moment()),
        option::weighted(0.3, maker()),
        pepper(),
    );
    vec((any::<[u8; 4]>(), user(), times), 0..most).prop_map(|keys| {
        let numbered = keys.into_iter().enumerate();
        numbered
            .map(|(number, (random, user, times))| key(number, random, user, times))
            .collect()
    })
}

type Times = (
    SystemTime,
    Option<SystemTime>,
    Option<SystemTime>,
    Option<SystemTime>,
    Option<SystemTime>,
    Option<SystemTime>,
    Option<KeyId>,
    PepperId,
);

fn key(number: usize, random: [u8; 4], user: String, times: Times) -> ApiKey {
    let mut id = [0; KeyId::LEN];
    id[..4].copy_from_slice(&random);
    id[16..].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
    let hash = SecretHash::from_hex(times.7, &"ab".repeat(32)).unwrap();
    let mut key = ApiKey::new(KeyId::from_bytes(id), user, Scopes::none(), hash);
    (
        key.created_at,
        key.expires_at,
        key.retires_at,
        key.last_used_at,
        key.revoked_at,
        key.disabled_at,
        key.made_by,
        _,
    ) = times;
    key
}

/// Filters of every kind.
pub fn filters(number: usize) -> impl Strategy<Value = Vec<KeyFilter>> {
    let one = (
        option::weighted(0.3, user()),
        option::of(limit()),
        option::of(limit()),
        option::weighted(0.3, limit()),
        option::weighted(0.3, maker()),
        option::weighted(0.2, pepper()),
        any::<bool>(),
    );
    let filter = one.prop_map(|(user, from, before, since, maker, pepper, with_revoked)| {
        let mut filter = KeyFilter::new();
        if let Some(user) = user {
            filter = filter.user(user);
        }
        if let Some(from) = from {
            filter = filter.ends_from(from);
        }
        if let Some(before) = before {
            filter = filter.ends_before(before);
        }
        if let Some(since) = since {
            filter = filter.unused_since(since);
        }
        if let Some(maker) = maker {
            filter = filter.made_by(maker);
        }
        if let Some(pepper) = pepper {
            filter = filter.pepper(pepper);
        }
        if with_revoked {
            filter = filter.with_revoked();
        }
        filter
    });
    vec(filter, number)
}

/// The backend, which holds `keys` and no other, lists those that fit, in order, page by page.
pub async fn lists_what_fits(
    backend: &impl ApiKeyBackend,
    keys: &[ApiKey],
    filter: &KeyFilter,
    limit: usize,
) {
    let mut expected: Vec<_> = keys.iter().filter(|key| filter.fits(key)).collect();
    expected.sort_by_key(|key| Reverse((key.created_at, key.id)));
    let expected: Vec<_> = expected.iter().map(|key| format!("{key:?}")).collect();
    let mut found = Vec::new();
    let mut page = PageRequest::new().limit(limit);
    loop {
        let listed = backend.list(filter, &page).await.unwrap();
        assert!(listed.len() <= limit);
        found.extend(listed.iter().map(|key| format!("{key:?}")));
        let Some(last) = listed.last() else { break };
        page = page.after(Cursor::of(last));
    }
    assert_eq!(found, expected, "{filter:?}");
}

/// When the purge of a test is, and what is to go.
pub fn purge_times() -> impl Strategy<Value = (SystemTime, SystemTime)> {
    (limit(), limit())
}

/// A store on the backend, which holds `keys` and no other, removes what ended before, and no key that works.
pub async fn purges_what_has_ended(
    backend: &(impl ApiKeyBackend + Clone),
    keys: &[ApiKey],
    (now, before): (SystemTime, SystemTime),
) {
    let store = ApiKeyStore::builder(backend.clone())
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .clock(ManualClock::new(now))
        .build()
        .await
        .unwrap();
    let removed = store.purge(before).await.unwrap();
    let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
    let left: Vec<_> = backend.get_by_id(&ids).await.unwrap();
    assert_eq!(removed, keys.len() - left.len());
    // The milliseconds that have passed: the times of keys have no more.
    let millis = |time: SystemTime| time.duration_since(long_ago()).unwrap().as_millis();
    let limit = millis(before).min(millis(now));
    for key in keys {
        let is_there = left.iter().any(|left| left.id == key.id);
        let ended_before = |time: Option<SystemTime>| time.is_some_and(|time| millis(time) < limit);
        let is_to_go = [key.revoked_at, key.expires_at, key.retires_at]
            .into_iter()
            .any(ended_before);
        assert_eq!(is_there, !is_to_go, "{key:?}");
        let works = key.status(now) == KeyStatus::Active;
        assert!(is_there || !works, "{key:?} works, and is gone");
    }
}

/// Where grants have ended that can't be removed, keys are all the same, and that is told.
pub async fn purge_that_fails_at_grants(store: &ApiKeyStore, backend: &impl ApiKeyBackend) {
    for _ in 0..3 {
        let new = NewApiKey::for_user("user_1", Scopes::none()).expires_at(long_ago());
        let _ = store.create(new).await.unwrap();
    }
    let mut events = store.events();
    let error = store.purge(SystemTime::now()).await.unwrap_err();
    assert!(matches!(error, StoreError::Constraint { .. }), "{error:?}");
    let told = tokio::time::timeout(Duration::from_secs(20), events.next());
    let told = told.await.expect("an event").unwrap();
    assert_eq!(
        (told.name(), told.kind.records()),
        ("records.purged", Some(3))
    );
    let page = PageRequest::new();
    let left = backend.list_for_user("user_1", &page).await.unwrap();
    assert_eq!(left.len(), 0);
}
