//! Stores that share a file, each with a cache of its own.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tower_api_key::{
    ApiKeyStore, CacheConfig, KeySource, LeakReport, NewApiKey, Pepper, Peppers, RevocationReason,
    Scopes, SqliteBackend, sqlx,
};

use crate::{
    run, shell, store,
    support::{PEPPER, USER, folder::Folder, id_of, outcome, with_wrong_secret},
};

/// How long a change may take that somebody tells of.
const SOON: Duration = Duration::from_secs(3);
/// Longer than that, so that nothing else can have told.
const MUCH_LATER: Duration = Duration::from_secs(60);

async fn caching(backend: SqliteBackend, max_staleness: Duration) -> ApiKeyStore {
    let cache = CacheConfig::new()
        .max_staleness(max_staleness)
        .unknown_time_to_live(MUCH_LATER);
    ApiKeyStore::builder(backend)
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .cache(cache)
        .build()
        .await
        .unwrap()
}

async fn create(store: &ApiKeyStore) -> String {
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = store.create(new).await.unwrap();
    issued.token().expose().to_owned()
}

/// Waits until `token` is what is `expected`, and says when the last request began that had another answer.
async fn becomes(store: &ApiKeyStore, token: &str, expected: &str) -> Duration {
    let start = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        let asked = start.elapsed();
        let now = outcome(&store.verify(token).await);
        if now == expected {
            return last;
        }
        last = asked;
        assert!(start.elapsed() < MUCH_LATER, "{now} instead of {expected}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// It is in the cache, and stays there as far as this store knows.
async fn is_cached(store: &ApiKeyStore, token: &str) {
    becomes(store, token, "good").await;
    // The first answer of a feed makes all be forgotten that was read before.
    let mut hits = 0;
    while hits < 3 {
        let before = store.cache_stats().hits;
        assert_eq!(outcome(&store.verify(token).await), "good");
        hits = if store.cache_stats().hits > before {
            hits + 1
        } else {
            0
        };
    }
}

#[tokio::test]
async fn g2_what_another_store_of_the_file_revokes_is_refused_within_a_poll() {
    let folder = Folder::new("sqlite-two-stores");
    let path = folder.join("keys.db");
    let here = caching(SqliteBackend::open(&path).await.unwrap(), MUCH_LATER).await;
    let there = store(SqliteBackend::open(&path).await.unwrap()).await;
    for _ in 0..20 {
        let token = create(&there).await;
        is_cached(&here, &token).await;
        assert!(there.revoke_token(&token).await.unwrap());
        let took = becomes(&here, &token, "revoked").await;
        assert!(took < SOON, "after {took:?}");
    }
}

#[tokio::test]
async fn g2_what_is_reported_as_leaked_to_another_store_of_the_file_is_refused_within_a_poll() {
    let folder = Folder::new("sqlite-leaked");
    let path = folder.join("keys.db");
    let here = caching(SqliteBackend::open(&path).await.unwrap(), MUCH_LATER).await;
    let there = store(SqliteBackend::open(&path).await.unwrap()).await;
    let (leaked, other) = (create(&there).await, create(&there).await);
    is_cached(&here, &leaked).await;
    is_cached(&here, &other).await;
    let tokens = [with_wrong_secret(&other), leaked.clone()];
    let reports = there.report_leaked(&tokens).await.unwrap();
    let ids: Vec<_> = reports.iter().map(LeakReport::key_id).collect();
    assert_eq!(ids, [None, Some(&id_of(&leaked))]);
    let took = becomes(&here, &leaked, "revoked").await;
    assert!(took < SOON, "after {took:?}");
    for store in [&here, &there] {
        assert_eq!(outcome(&store.verify_fresh(&other).await), "good");
        let key = store.get(&id_of(&leaked)).await.unwrap().unwrap();
        assert_eq!(key.revocation_reason, Some(RevocationReason::Leaked));
    }
}

#[tokio::test]
async fn g2_what_an_operator_writes_by_hand_counts_within_a_poll() {
    let folder = Folder::new("sqlite-operator");
    let path = folder.join("keys.db");
    let here = caching(SqliteBackend::open(&path).await.unwrap(), MUCH_LATER).await;
    let mut shell = shell(&path).await;
    for (statement, expected) in [
        (
            "UPDATE tower_api_keys SET revoked_at = unixepoch() * 1000",
            "revoked",
        ),
        (
            "UPDATE tower_api_keys SET disabled_at = unixepoch() * 1000",
            "disabled",
        ),
        ("UPDATE tower_api_keys SET expires_at = 1000", "expired"),
        (
            "UPDATE tower_api_keys SET secret_hash = printf('%064d', 0)",
            "wrong secret",
        ),
        ("UPDATE tower_api_keys SET id = randomblob(24)", "unknown"),
        ("DELETE FROM tower_api_keys", "unknown"),
    ] {
        let token = create(&here).await;
        is_cached(&here, &token).await;
        run(&mut shell, statement).await;
        let took = becomes(&here, &token, expected).await;
        assert!(took < SOON, "{statement}: after {took:?}");
        run(&mut shell, "DELETE FROM tower_api_keys").await;
    }

    // A key that was taken for unknown comes back.
    let token = create(&here).await;
    run(
        &mut shell,
        "CREATE TEMP TABLE aside AS SELECT * FROM tower_api_keys",
    )
    .await;
    run(&mut shell, "DELETE FROM tower_api_keys").await;
    becomes(&here, &token, "unknown").await;
    run(&mut shell, "INSERT INTO tower_api_keys SELECT * FROM aside").await;
    let took = becomes(&here, &token, "good").await;
    assert!(took < SOON, "after {took:?}");
}

/// Two stores in one process don't wait for a poll.
#[tokio::test]
async fn g2_stores_on_one_backend_tell_each_other_at_once() {
    let folder = Folder::new("sqlite-one-backend");
    let never = || SqliteBackend::builder().poll_every(MUCH_LATER);
    let file = never().open(folder.join("keys.db")).await.unwrap();
    for backend in [file, never().in_memory().await.unwrap()] {
        let here = caching(backend.clone(), MUCH_LATER).await;
        let there = store(backend).await;
        for _ in 0..20 {
            let token = create(&there).await;
            is_cached(&here, &token).await;
            assert!(there.revoke_token(&token).await.unwrap());
            let took = becomes(&here, &token, "revoked").await;
            assert!(took < SOON, "after {took:?}");
        }
    }
}

#[tokio::test]
async fn g2_with_a_poll_that_never_comes_a_revoked_key_is_refused_within_max_staleness() {
    let folder = Folder::new("sqlite-no-poll");
    let path = folder.join("keys.db");
    let staleness = Duration::from_secs(1);
    let backend = SqliteBackend::builder().poll_every(MUCH_LATER);
    let here = caching(backend.open(&path).await.unwrap(), staleness).await;
    let there = store(SqliteBackend::open(&path).await.unwrap()).await;
    for _ in 0..5 {
        let token = create(&there).await;
        is_cached(&here, &token).await;
        assert!(there.revoke_token(&token).await.unwrap());
        let took = becomes(&here, &token, "revoked").await;
        assert!(took <= staleness, "after {took:?}");
    }
}

/// Who can't read the log doesn't know what was revoked.
#[tokio::test]
async fn g2_locked_out_of_the_file_a_store_believes_nothing_for_longer_than_max_staleness() {
    let folder = Folder::new("sqlite-locked-out");
    let path = folder.join("keys.db");
    // Without WAL a lock stops readers, too.
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .busy_timeout(Duration::from_millis(50));
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    let staleness = Duration::from_secs(1);
    let here = caching(SqliteBackend::new(pool).await.unwrap(), staleness).await;
    let token = create(&here).await;
    is_cached(&here, &token).await;
    let mut shell = shell(&path).await;
    run(&mut shell, "PRAGMA locking_mode = EXCLUSIVE").await;
    let statement = "UPDATE tower_api_keys SET revoked_at = unixepoch() * 1000";
    // Others are at the file, too.
    run(&mut shell, "PRAGMA busy_timeout = 10000").await;
    run(&mut shell, statement).await;
    let took = becomes(&here, &token, "unavailable").await;
    assert!(took <= staleness, "after {took:?}");
    sqlx::Connection::close(shell).await.unwrap();
    becomes(&here, &token, "revoked").await;
}

#[tokio::test]
async fn g3_a_file_that_is_gone_is_an_outage_and_no_unknown_key() {
    let folder = Folder::new("sqlite-gone");
    let (path, aside) = (folder.join("keys.db"), folder.join("aside.db"));
    let staleness = Duration::from_secs(1);
    let here = caching(SqliteBackend::open(&path).await.unwrap(), staleness).await;
    let token = create(&here).await;
    is_cached(&here, &token).await;
    let gone = |path: &Path| fs::rename(path, &aside).unwrap();
    gone(&path);
    let took = becomes(&here, &token, "unavailable").await;
    assert!(took <= staleness, "after {took:?}");
    assert_eq!(outcome(&here.verify_fresh(&token).await), "unavailable");
    assert_eq!(
        outcome(&here.verify(crate::support::unknown_token()).await),
        "unavailable"
    );

    // An empty one of the same name is another database, where no key is known.
    fs::write(&path, "").unwrap();
    assert_eq!(outcome(&here.verify(&token).await), "unavailable");
    fs::rename(&aside, &path).unwrap();
    becomes(&here, &token, "good").await;
}

/// A cold cache asks for many keys at once, and none of them hides the others.
#[tokio::test]
async fn keys_that_are_verified_at_the_same_time_are_all_found() {
    let folder = Folder::new("sqlite-cold");
    let backend = SqliteBackend::open(folder.join("keys.db")).await.unwrap();
    let here = store(backend.clone()).await;
    let mut tokens = Vec::new();
    for _ in 0..300 {
        tokens.push(create(&here).await);
    }
    let cold = store(backend.clone()).await;
    let verify = |token: String| {
        let store = cold.clone();
        tokio::spawn(async move { outcome(&store.verify(token).await) })
    };
    let tasks: Vec<_> = tokens.into_iter().map(verify).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "good");
    }
    assert!(backend.get_many(&[]).await.unwrap().is_empty());
}
