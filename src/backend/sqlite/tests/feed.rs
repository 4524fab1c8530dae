//! What a feed tells.

use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::time::{Instant, timeout};

use super::{
    Change, ChangeFeed as _, Folder, SqliteBackend, change, feed, id, key, other, read, run,
};
use crate::{
    backend::{ApiKeyBackend as _, KeySource as _, Touch},
    key::ApiKey,
    scope::Scopes,
    token::SecretHash,
};

const AT_ONCE: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_secs(3_600);

/// What every kind of write tells, whoever makes it.
#[tokio::test]
async fn each_change_is_told_once_and_a_use_is_none() {
    let folder = Folder::new("feed-changes");
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    let mut feed = feed(&backend).await;
    assert_eq!(read(&mut feed).await, []);

    backend.insert(&key(1)).await.unwrap();
    backend.insert(&key(2)).await.unwrap();
    assert_eq!(read(&mut feed).await, [change(1), change(2)]);
    assert_eq!(read(&mut feed).await, []);
    assert!(!backend.insert(&key(1)).await.unwrap());
    assert_eq!(read(&mut feed).await, [], "nothing was written");

    let mut changed = key(1);
    changed.version = 2;
    assert!(backend.update(&changed, 1).await.unwrap());
    assert_eq!(read(&mut feed).await, [change(1)]);

    let touch = Touch::new(id(1), key(1).created_at);
    backend.touch(&[touch]).await.unwrap();
    assert_eq!(read(&mut feed).await, [], "that a key was used");

    assert!(backend.delete(&id(1)).await.unwrap());
    assert_eq!(read(&mut feed).await, [change(1)]);

    // By hand, in another process.
    let mut shell = other(&folder.file()).await;
    run(&mut shell, "UPDATE tower_api_keys SET last_used_at = 5").await;
    assert_eq!(read(&mut feed).await, [], "that a key was used");
    run(&mut shell, "UPDATE tower_api_keys SET revoked_at = 5").await;
    assert!(read(&mut feed).await.contains(&change(2)));
    run(
        &mut shell,
        "UPDATE tower_api_keys SET id = unhex('030303030303030303030303030303030303030303030303')",
    )
    .await;
    let moved = read(&mut feed).await;
    assert!(
        moved.contains(&change(2)) && moved.contains(&change(3)),
        "{moved:?}"
    );
    run(&mut shell, "BEGIN; DELETE FROM tower_api_keys; ROLLBACK").await;
    assert_eq!(read(&mut feed).await, [], "nothing was committed");
    run(&mut shell, "DELETE FROM tower_api_keys").await;
    assert_eq!(read(&mut feed).await, [change(3)]);
}

/// A record that was imported by a digest, as `key` makes them, under another lookup key.
fn imported(number: u8, digest: &str) -> ApiKey {
    let hash = SecretHash::from_digest_hex(&digest.repeat(32)).unwrap();
    ApiKey::new(id(number), "user_1", Scopes::none(), hash)
}

/// SQLite fires no trigger for the rows that REPLACE removes.
#[tokio::test]
async fn g2_records_that_replace_displaces_are_logged() {
    let folder = Folder::new("feed-replace");
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    let mut feed = feed(&backend).await;
    let (first, second) = (imported(1, "11"), imported(2, "22"));
    for key in [&first, &second, &key(3)] {
        assert!(backend.insert(key).await.unwrap());
    }
    read(&mut feed).await;
    let mut shell = other(&folder.file()).await;
    let columns = "id, user_id, scopes, unrestricted, display_prefix, created_at, version";
    let values = "'user_1', '', 0, 'pk.key_AAAAAAAAA', 0, 1";
    // By the id of an imported key, whose record was found by its digest.
    let by_id = format!(
        "INSERT OR REPLACE INTO tower_api_keys ({columns}, pepper, secret_hash)
        VALUES (unhex('{}'), {values}, 'v1', '{}')",
        "01".repeat(24),
        "ab".repeat(32)
    );
    run(&mut shell, &by_id).await;
    let told = read(&mut feed).await;
    for lookup_key in [first.lookup_key(), id(1).lookup_key()] {
        assert!(told.contains(&Change::Key(lookup_key)), "{told:?}");
    }
    // By an update, in the way of another.
    let by_update = format!(
        "UPDATE OR REPLACE tower_api_keys SET id = unhex('{}') WHERE id = unhex('{}')",
        "02".repeat(24),
        "03".repeat(24)
    );
    run(&mut shell, &by_update).await;
    let told = read(&mut feed).await;
    for lookup_key in [second.lookup_key(), id(2).lookup_key(), id(3).lookup_key()] {
        assert!(told.contains(&Change::Key(lookup_key)), "{told:?}");
    }
    // By the digest of another key, while its own changes.
    assert!(backend.insert(&imported(4, "44")).await.unwrap());
    assert!(backend.insert(&imported(5, "55")).await.unwrap());
    read(&mut feed).await;
    let by_digest = format!(
        "INSERT OR REPLACE INTO tower_api_keys ({columns}, pepper, secret_hash, digest_key)
        VALUES (unhex('{}'), {values}, '', '{}', unhex('{}'))",
        "04".repeat(24),
        "55".repeat(32),
        "55".repeat(24)
    );
    run(&mut shell, &by_digest).await;
    let told = read(&mut feed).await;
    for key in [imported(4, "44"), imported(5, "55")] {
        assert!(told.contains(&Change::Key(key.lookup_key())), "{told:?}");
    }
    // Each says when.
    let at = "SELECT count(*), min(at) > 1700000000000 FROM tower_api_key_changes";
    let row: (i64, bool) = sqlx::query_as(at).fetch_one(&mut shell).await.unwrap();
    assert!(row.0 > 8 && row.1, "{row:?}");
}

#[tokio::test]
async fn waiting_ends_when_another_connection_has_written_and_not_before() {
    let folder = Folder::new("feed-waits");
    let backend = SqliteBackend::builder()
        .poll_every(Duration::from_millis(20))
        .open(folder.file())
        .await
        .unwrap();
    let mut feed = feed(&backend).await;
    assert_eq!(read(&mut feed).await, []);
    let waited = timeout(Duration::from_millis(300), feed.wait()).await;
    assert!(waited.is_err(), "nothing was written");

    let elsewhere = SqliteBackend::open(folder.file()).await.unwrap();
    for number in 0..20 {
        let new = key(number);
        let (waited, inserted) =
            tokio::join!(timeout(AT_ONCE, feed.wait()), elsewhere.insert(&new));
        assert!(inserted.unwrap());
        waited.unwrap();
        // It may have looked just before the commit of the next one.
        assert_eq!(read(&mut feed).await, [change(number)]);
    }
}

/// Stores of one process needn't wait for the next poll.
#[tokio::test]
async fn a_write_through_a_clone_ends_waiting_at_once() {
    let folder = Folder::new("feed-clones");
    let file = SqliteBackend::builder()
        .poll_every(NEVER)
        .open(folder.file());
    let memory = SqliteBackend::builder().poll_every(NEVER).in_memory();
    for backend in [file.await.unwrap(), memory.await.unwrap()] {
        let mut feed = feed(&backend).await;
        for number in 0..20 {
            assert_eq!(read(&mut feed).await, []);
            assert!(backend.clone().insert(&key(number)).await.unwrap());
            timeout(AT_ONCE, feed.wait()).await.unwrap();
            assert_eq!(read(&mut feed).await, [change(number)]);
        }
    }
}

/// A pool in memory has one connection, and what its owner writes by it counts, too.
#[tokio::test]
async fn what_a_service_writes_by_its_own_pool_in_memory_is_told() {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(SqliteConnectOptions::new().in_memory(true));
    let backend = SqliteBackend::builder()
        .poll_every(Duration::from_millis(10))
        .over(pool.clone())
        .await
        .unwrap();
    backend.insert(&key(1)).await.unwrap();
    let mut feed = feed(&backend).await;
    assert_eq!(read(&mut feed).await, []);
    sqlx::query("UPDATE tower_api_keys SET revoked_at = 5")
        .execute(&pool)
        .await
        .unwrap();
    timeout(AT_ONCE, feed.wait()).await.unwrap();
    assert!(read(&mut feed).await.contains(&change(1)));
    assert!(
        backend.get_many(&[id(1).lookup_key()]).await.unwrap()[0]
            .revoked_at
            .is_some()
    );
}

#[tokio::test]
async fn who_fell_behind_pruning_forgets_everything() {
    let folder = Folder::new("feed-pruned");
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    backend.insert(&key(1)).await.unwrap();
    let mut behind = feed(&backend).await;
    let mut shell = other(&folder.file()).await;
    let writes = |count: u32| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             INSERT INTO tower_api_key_changes (id) SELECT unhex('020202020202020202020202020202020202020202020202') FROM n"
        )
    };
    run(&mut shell, &writes(30_000)).await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM tower_api_key_changes")
        .fetch_one(&mut shell)
        .await
        .unwrap();
    assert!((10_000..=11_000).contains(&kept), "{kept} are kept");
    assert_eq!(read(&mut behind).await, [Change::Everything]);
    assert_eq!(read(&mut behind).await, []);

    // It goes on from there.
    run(&mut shell, &writes(3)).await;
    assert_eq!(read(&mut behind).await, [change(2); 3]);

    // Some are gone, the last of them or all of them.
    for gone in ["seq < (SELECT max(seq) FROM tower_api_key_changes)", "TRUE"] {
        run(&mut shell, &writes(3)).await;
        run(
            &mut shell,
            &format!("DELETE FROM tower_api_key_changes WHERE {gone}"),
        )
        .await;
        assert_eq!(read(&mut behind).await, [Change::Everything], "{gone}");
        assert_eq!(read(&mut behind).await, []);
    }

    // More than are read one by one.
    run(&mut shell, &writes(5_000)).await;
    assert_eq!(read(&mut behind).await.len(), 5_000);
    run(&mut shell, &writes(5_001)).await;
    assert_eq!(read(&mut behind).await, [Change::Everything]);
}

#[tokio::test]
async fn a_log_that_is_another_one_makes_everything_be_forgotten() {
    let folder = Folder::new("feed-restored");
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    backend.insert(&key(1)).await.unwrap();
    let mut feed = feed(&backend).await;
    let mut shell = other(&folder.file()).await;
    run(
        &mut shell,
        "UPDATE sqlite_sequence SET seq = 0; DELETE FROM tower_api_key_changes",
    )
    .await;
    assert_eq!(
        read(&mut feed).await,
        [Change::Everything],
        "it ends before"
    );
    // What it tells may not be all.
    backend.insert(&key(2)).await.unwrap();
    run(&mut shell, "CREATE TABLE more (id)").await;
    assert_eq!(
        read(&mut feed).await,
        [Change::Everything],
        "the schema is another"
    );
    assert_eq!(read(&mut feed).await, []);
}

#[tokio::test]
async fn a_log_that_nothing_writes_any_more_is_an_error() {
    let folder = Folder::new("feed-triggers");
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    let mut feed = feed(&backend).await;
    let mut shell = other(&folder.file()).await;
    // Another one, of a newer version or an operator, is no matter.
    let more =
        "CREATE TRIGGER tower_api_key_more AFTER DELETE ON tower_api_keys BEGIN SELECT 1; END";
    run(&mut shell, more).await;
    feed.read().await.unwrap();
    run(&mut shell, "DROP TRIGGER tower_api_key_updated").await;
    feed.read().await.unwrap_err();
    super::Feed::open(backend.0.clone())
        .await
        .map(drop)
        .unwrap_err();
    backend.get_many(&[id(1).lookup_key()]).await.unwrap();

    run(&mut shell, "DROP TABLE tower_api_keys").await;
    feed.read().await.unwrap_err();
    backend.get_many(&[id(1).lookup_key()]).await.unwrap_err();
}

/// The file of a service's own pool may be in a mode in which a writer stops readers.
#[tokio::test]
async fn a_locked_file_is_an_error_and_not_silence() {
    let folder = Folder::new("feed-locked");
    let options = SqliteConnectOptions::new()
        .filename(folder.file())
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    let backend = SqliteBackend::new(pool).await.unwrap();
    let mut feed = feed(&backend).await;
    let mut shell = other(&folder.file()).await;
    run(&mut shell, "BEGIN EXCLUSIVE").await;
    let start = Instant::now();
    feed.read().await.unwrap_err();
    // Within a heartbeat of a cache as it is by default.
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    run(&mut shell, "ROLLBACK").await;
    assert_eq!(read(&mut feed).await, []);
}

/// What isn't committed isn't in the log: its number would be another change's later.
#[tokio::test]
async fn g2_what_a_service_leaves_uncommitted_in_memory_hides_no_change() {
    let options = SqlitePoolOptions::new().max_connections(1);
    let options = options.idle_timeout(None).max_lifetime(None);
    let pool = options.connect("sqlite::memory:").await.unwrap();
    let backend = SqliteBackend::new(pool.clone()).await.unwrap();
    backend.insert(&key(1)).await.unwrap();
    backend.insert(&key(2)).await.unwrap();
    let mut feed = feed(&backend).await;
    let left_open = "BEGIN; UPDATE tower_api_keys SET name = 'x' WHERE display_prefix <> ''";
    for _ in 0..2 {
        sqlx::raw_sql(left_open).execute(&pool).await.unwrap();
        assert_eq!(read(&mut feed).await, []);
    }
    assert!(backend.delete(&id(1)).await.unwrap());
    assert!(backend.delete(&id(2)).await.unwrap());
    assert_eq!(read(&mut feed).await, [change(1), change(2)]);
}
