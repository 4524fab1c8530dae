//! Lists of everybody's keys: those that end within a window, those that nobody uses, and whose.

use std::time::Duration;

use proptest::prelude::*;
use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, KeyFilter, KeyId, KeySource, LookupKey, MemoryBackend,
    NewApiKey, PageRequest, Peppers, Scopes, StoreError, Touch,
};

use super::{SECOND, is_the_outage, new_key, pepper, store_on, verified};
use crate::support::{
    Fixture, USER, id_of,
    lists::{cases, filters, keys, lists_what_fits},
    start,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn ids(fixture: &Fixture, filter: KeyFilter) -> Vec<KeyId> {
    let page = fixture.store.list(filter, PageRequest::new()).await;
    let page = page.unwrap();
    assert_eq!(page.next, None);
    page.keys.iter().map(|key| key.id).collect()
}

#[tokio::test]
async fn keys_that_end_within_a_window_are_listed() {
    let fixture = Fixture::new().await;
    let mut made = Vec::new();
    for days in [1, 7, 8] {
        let new = new_key().expires_at(start() + days * DAY);
        made.push(id_of(&fixture.issue(new).await));
    }
    let endless = id_of(&fixture.token(&[]).await);
    let window = |from, to| {
        let filter = KeyFilter::new().ends_from(start() + from * DAY);
        filter.ends_before(start() + to * DAY)
    };
    assert_eq!(ids(&fixture, window(1, 7)).await, [made[0]]);
    assert_eq!(ids(&fixture, window(7, 8)).await, [made[1]]);
    assert_eq!(ids(&fixture, window(8, 1)).await, []);
    let mut from = ids(&fixture, KeyFilter::new().ends_from(start() + 7 * DAY)).await;
    from.sort();
    let mut expected = made[1..].to_vec();
    expected.sort();
    assert_eq!(from, expected);
    assert_eq!(ids(&fixture, KeyFilter::new()).await.len(), 4);

    // What was revoked doesn't end any more, unless one wants to see it.
    fixture.store.revoke(&made[1]).await.unwrap();
    assert_eq!(ids(&fixture, window(7, 8)).await, []);
    assert_eq!(ids(&fixture, window(7, 8).with_revoked()).await, [made[1]]);
    assert!(ids(&fixture, KeyFilter::new()).await.contains(&endless));
}

#[tokio::test]
async fn keys_that_were_made_later_are_not_unused_and_a_use_that_waits_to_be_written_counts() {
    let fixture = Fixture::new().await;
    let (used, unused) = (fixture.token(&[]).await, fixture.token(&[]).await);
    fixture.clock.advance(DAY);
    let later = fixture.token(&[]).await;
    let since = |time| KeyFilter::new().unused_since(time);
    assert_eq!(ids(&fixture, since(start())).await, []);
    assert_eq!(ids(&fixture, since(start() + SECOND)).await.len(), 2);

    fixture.backend.set_touches_broken(true);
    assert_eq!(verified(&fixture.store, &used).await, "good");
    let unwritten = fixture.backend.get_by_id(&[id_of(&used)]).await.unwrap();
    assert_eq!(unwritten[0].last_used_at, None);
    assert_eq!(ids(&fixture, since(start() + DAY)).await, [id_of(&unused)]);
    fixture.clock.advance(DAY);
    assert_eq!(ids(&fixture, since(start() + 2 * DAY)).await.len(), 3);
    assert_eq!(verified(&fixture.store, &later).await, "good");
    assert_eq!(ids(&fixture, since(start() + 2 * DAY)).await.len(), 2);
}

/// The cursor is that of the last key that the backend gave.
#[tokio::test]
async fn a_page_whose_keys_were_just_used_is_empty_and_the_next_one_follows() {
    let fixture = Fixture::new().await;
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(fixture.token(&[]).await);
        fixture.clock.advance(SECOND);
    }
    fixture.clock.advance(DAY);
    fixture.backend.set_touches_broken(true);
    for token in &tokens[3..] {
        assert_eq!(verified(&fixture.store, token).await, "good");
    }
    let unused = KeyFilter::new().unused_since(start() + DAY);
    let mut page = PageRequest::new().limit(2);
    let mut pages = Vec::new();
    loop {
        let found = fixture.store.list(unused.clone(), page).await.unwrap();
        pages.push(found.keys.iter().map(|key| key.id).collect::<Vec<_>>());
        match found.next {
            Some(next) => page = page.after(next),
            None => break,
        }
    }
    let id = |at: usize| id_of(&tokens[at]);
    assert_eq!(pages, [vec![], vec![id(2)], vec![id(1), id(0)]]);
}

#[tokio::test]
async fn times_between_two_milliseconds_count_as_the_later_one() {
    let fixture = Fixture::new().await;
    let key = id_of(&fixture.issue(new_key().expires_at(start() + SECOND)).await);
    let nano = Duration::from_nanos(1);
    let end = start() + SECOND;
    for (filter, fits) in [
        (KeyFilter::new().ends_from(end - nano), true),
        (KeyFilter::new().ends_from(end), true),
        (KeyFilter::new().ends_from(end + nano), false),
        (KeyFilter::new().ends_before(end - nano), false),
        (KeyFilter::new().ends_before(end), false),
        (KeyFilter::new().ends_before(end + nano), true),
        (KeyFilter::new().unused_since(start()), false),
        (KeyFilter::new().unused_since(start() + nano), true),
    ] {
        let expected = if fits { vec![key] } else { vec![] };
        assert_eq!(ids(&fixture, filter.clone()).await, expected, "{filter:?}");
    }
}

#[test]
fn the_memory_backend_lists_exactly_the_keys_that_fit() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let config = cases(256);
    proptest!(config, |(keys in keys(40), filters in filters(8), limit in 1..9_usize)| {
        runtime.block_on(async {
            let backend = MemoryBackend::new();
            for key in &keys {
                assert!(backend.insert(key).await.unwrap());
            }
            for filter in &filters {
                lists_what_fits(&backend, &keys, filter, limit).await;
            }
        });
    });
}

/// Lists what it has, whatever is asked for.
struct Careless(Vec<ApiKey>);

impl KeySource for Careless {
    async fn get_many(&self, _: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        Ok(Vec::new())
    }
}

impl ApiKeyBackend for Careless {
    async fn insert(&self, _: &ApiKey) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn update(&self, _: &ApiKey, _: u64) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn delete(&self, _: &KeyId) -> Result<bool, BackendError> {
        Ok(false)
    }

    async fn list_for_user(&self, _: &str, _: &PageRequest) -> Result<Vec<ApiKey>, BackendError> {
        Ok(Vec::new())
    }

    async fn touch(&self, _: &[Touch]) -> Result<(), BackendError> {
        Ok(())
    }

    async fn list(&self, _: &KeyFilter, _: &PageRequest) -> Result<Vec<ApiKey>, BackendError> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_or_is_out_of_order_is_refused() {
    let made = store_on(MemoryBackend::new(), Peppers::new(pepper("v1"))).await;
    let key = made.create(new_key()).await.unwrap().key().clone();
    let mut older = key.clone();
    (older.id, older.created_at) = (KeyId::from_bytes([0; 24]), start() - SECOND);
    let mut revoked = older.clone();
    revoked.revoked_at = Some(start());
    let list = async |keys: &[&ApiKey]| {
        let keys = keys.iter().copied().cloned().collect();
        let store = store_on(Careless(keys), Peppers::new(pepper("v1"))).await;
        let filter = KeyFilter::new().user(USER);
        store.list(filter, PageRequest::new()).await
    };
    assert_eq!(list(&[&key, &older]).await.unwrap().keys.len(), 2);
    for wrong in [&[&older, &key][..], &[&key, &key], &[&key, &revoked]] {
        let error = list(wrong).await.unwrap_err();
        let StoreError::Unavailable(cause) = error else {
            panic!("{error}");
        };
        assert!(cause.backend().unwrap().is_corrupt());
    }
}

#[tokio::test]
async fn g3_an_outage_is_an_error_for_who_looks_after_keys() {
    let fixture = Fixture::new().await;
    fixture.set_broken(true);
    let list = fixture.store.list(KeyFilter::new(), PageRequest::new());
    assert!(is_the_outage(&list.await.unwrap_err()));
    assert!(is_the_outage(
        &fixture.store.purge(start()).await.unwrap_err()
    ));
}

#[tokio::test]
async fn a_users_list_still_has_every_key_of_that_user() {
    let fixture = Fixture::new().await;
    let tokens = [
        fixture.token(&[]).await,
        fixture.revoked_token().await,
        fixture.expired_token().await,
        fixture.disabled_token().await,
    ];
    let other = NewApiKey::for_user("user_2", Scopes::none());
    fixture.issue(other).await;
    let page = fixture.store.list_for_user(USER, PageRequest::new()).await;
    assert_eq!(page.unwrap().keys.len(), tokens.len());
    let of_user = KeyFilter::new().user(USER);
    assert_eq!(ids(&fixture, of_user.clone()).await.len(), 3);
    assert_eq!(ids(&fixture, of_user.with_revoked()).await.len(), 4);
}
