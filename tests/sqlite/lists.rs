//! Lists by a filter, purges, and all keys of a user, in a file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use tokio::task::JoinSet;
use tower_api_key::{
    ApiKeyBackend, KeyFilter, KeySource, KeyUpdate, Metadata, NewApiKey, PageRequest,
    RevocationReason, Scopes, SqliteBackend, StoreError, VerifyError, sqlx,
};

use crate::{
    key, run, shell, store,
    support::{
        USER,
        folder::Folder,
        lists::{
            cases, filters, keys, lists_what_fits, purge_that_fails_at_grants, purge_times,
            purges_what_has_ended,
        },
        start,
    },
    text,
};

#[test]
fn lists_are_exactly_the_keys_that_fit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = cases(64);
    proptest!(config, |(keys in keys(40), filters in filters(8), limit in 1..9_usize)| {
        runtime.block_on(async {
            let backend = SqliteBackend::in_memory().await.unwrap();
            for key in &keys {
                assert!(backend.insert(key).await.unwrap());
            }
            for filter in &filters {
                lists_what_fits(&backend, &keys, filter, limit).await;
            }
        });
    });
}

#[test]
fn what_has_ended_is_purged_and_never_a_key_that_works() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = cases(64);
    proptest!(config, |(keys in keys(40), times in purge_times())| {
        runtime.block_on(async {
            let backend = SqliteBackend::in_memory().await.unwrap();
            for key in &keys {
                assert!(backend.insert(key).await.unwrap());
            }
            purges_what_has_ended(&backend, &keys, times).await;
        });
    });
}

#[tokio::test]
async fn a_purge_goes_on_batch_by_batch_and_takes_grants_that_are_over() {
    let folder = Folder::new("sqlite-purge");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::open(&path).await.unwrap();
    let mut shell = shell(&path).await;
    // 2,500 keys that expired, and one that works. Of five grants, one pends.
    run(
        &mut shell,
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
        INSERT INTO tower_api_keys (id, user_id, scopes, unrestricted, display_prefix, pepper,
            secret_hash, created_at, expires_at, version)
        SELECT randomblob(24), 'user_1', '', 0, 'pk.key_abcdefghi', 'v1',
            replace(hex(zeroblob(32)), '00', 'ab'), n, 1000, 1 FROM n;
        INSERT INTO tower_api_key_grants (id, claim_hash, user_id, scopes, unrestricted, made_at,
            expires_at, claimed_at, key_id, revoked_at) VALUES
            (randomblob(16), randomblob(32), 'claimed', '', 0, 1, 9000000000000, 999, randomblob(24), NULL),
            (randomblob(16), randomblob(32), 'revoked', '', 0, 1, 9000000000000, NULL, NULL, 999),
            (randomblob(16), randomblob(32), 'expired', '', 0, 1, 1000, NULL, NULL, NULL),
            (randomblob(16), randomblob(32), 'late', '', 0, 1, 1001, 1001, randomblob(24), NULL),
            (randomblob(16), randomblob(32), 'pending', '', 0, 1, 9000000000000, NULL, NULL, NULL)",
    )
    .await;
    backend.insert(&key(1, USER)).await.unwrap();
    let second = UNIX_EPOCH + Duration::from_secs(1);
    assert_eq!(backend.purge(second, 1_000).await.unwrap(), 2);
    assert_eq!(backend.purge(second, 1_000).await.unwrap(), 0);
    let keys = store(backend.clone()).await;
    let next = second + Duration::from_millis(1);
    assert_eq!(keys.purge(next).await.unwrap(), 2_501);
    let left = sqlx::query("SELECT user_id FROM tower_api_key_grants ORDER BY 1")
        .fetch_all(&mut shell)
        .await
        .unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["late", "pending"]);
    let page = PageRequest::new();
    let found = backend.list(&KeyFilter::new(), &page).await.unwrap();
    assert_eq!(found.len(), 1);
}

/// An operator's trigger stands for all that can go wrong between keys and grants.
#[tokio::test]
async fn what_was_purged_before_an_error_is_told() {
    let folder = Folder::new("sqlite-purge-fails");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::open(&path).await.unwrap();
    let mut shell = shell(&path).await;
    run(
        &mut shell,
        "INSERT INTO tower_api_key_grants (id, claim_hash, user_id, scopes, unrestricted, made_at,
            expires_at) VALUES (randomblob(16), randomblob(32), 'user_1', '', 0, 1, 1000);
        CREATE TRIGGER kept BEFORE DELETE ON tower_api_key_grants
        BEGIN SELECT raise(ABORT, 'kept'); END",
    )
    .await;
    purge_that_fails_at_grants(&store(backend.clone()).await, &backend).await;
    run(&mut shell, "DROP TRIGGER kept").await;
    assert_eq!(backend.purge(SystemTime::now(), 10).await.unwrap(), 1);
    assert_eq!(backend.purge(SystemTime::now(), 10).await.unwrap(), 0);
}

/// Whoever is told that a key was renewed has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_renewed_while_others_are_purged_stays() {
    let folder = Folder::new("sqlite-renewed");
    let path = folder.join("keys.db");
    let (here, there) = (
        store(SqliteBackend::open(&path).await.unwrap()).await,
        store(SqliteBackend::open(&path).await.unwrap()).await,
    );
    for _ in 0..20 {
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let new = NewApiKey::for_user(USER, Scopes::none());
            let new = new.expires_at(UNIX_EPOCH);
            let (store, id) = (there.clone(), here.create(new).await.unwrap().key().id);
            tasks.spawn(async move {
                let update = KeyUpdate::new().never_expires();
                (id, store.update(&id, update).await.unwrap().is_some())
            });
        }
        let now = SystemTime::now();
        while let Some(task) = tasks.join_next().await {
            here.purge(now).await.unwrap();
            let (id, is_renewed) = task.unwrap();
            let is_there = here.get(&id).await.unwrap().is_some();
            assert!(is_there || !is_renewed, "renewed, and gone");
        }
    }
}

#[tokio::test]
async fn a_row_that_can_not_be_read_keeps_no_other_key_of_its_user_from_ending() {
    let folder = Folder::new("sqlite-unreadable");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::open(&path).await.unwrap();
    let store = store(backend.clone()).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let issued = store.create(NewApiKey::for_user(USER, Scopes::none()));
        tokens.push(issued.await.unwrap().token().clone());
        assert!(store.verify(tokens.last().unwrap().expose()).await.is_ok());
    }
    let mut shell = shell(&path).await;
    let damage = "UPDATE tower_api_keys SET scopes = 'a\"b' WHERE id = ?";
    sqlx::query(damage)
        .bind(tokens[1].key_id().unwrap().as_bytes().as_slice())
        .execute(&mut shell)
        .await
        .unwrap();
    let page = store.list_for_user(USER, PageRequest::new()).await;
    assert!(matches!(page, Err(StoreError::Unavailable(_))));

    let reason = RevocationReason::OwnerLeft;
    let revoked = store.revoke_all_for_user_because(USER, reason).await;
    assert_eq!(revoked.unwrap(), 3);
    for at in [0, 2] {
        let verified = store.verify(tokens[at].expose()).await;
        assert!(matches!(verified, Err(VerifyError::Revoked)));
    }
    let verified = store.verify(tokens[1].expose()).await;
    assert!(matches!(verified, Err(VerifyError::Unavailable(_))));
    // It can be told by hand that it has ended, and is no key that was never there.
    let ended = "SELECT count(*) FROM tower_api_keys WHERE revoked_at > 0
        AND revocation_reason = 'owner_left' AND version = 2 + (scopes <> '')";
    let ended: i64 = sqlx::query_scalar(AssertSqlSafe(ended))
        .fetch_one(&mut shell)
        .await
        .unwrap();
    assert_eq!(ended, 3);
}

#[tokio::test]
async fn reasons_and_metadata_survive() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    let mut stored = key(1, USER);
    stored.revoked_at = Some(start());
    stored.revocation_reason = Some(RevocationReason::Other("é 'quoted'".to_owned()));
    stored.metadata = Some(Metadata::from_json(format!("\"{}\"", "é".repeat(2_047))).unwrap());
    backend.insert(&stored).await.unwrap();
    let read = backend.get_many(&[stored.lookup_key()]).await.unwrap();
    assert_eq!(text(&read[0]), text(&stored));
}

/// A narrow window is found by its index, and what nobody uses in the order of lists.
#[tokio::test]
async fn the_statements_of_lists_and_purges_use_an_index() {
    let folder = Folder::new("sqlite-plans");
    let path = folder.join("keys.db");
    drop(SqliteBackend::open(&path).await.unwrap());
    let mut shell = shell(&path).await;
    let end = "min(ifnull(expires_at, retires_at), ifnull(retires_at, expires_at))";
    let plan = async |shell: &mut SqliteConnection, select: &str| {
        let statement = format!("EXPLAIN QUERY PLAN SELECT * FROM {select}");
        let plan = sqlx::query(AssertSqlSafe(statement));
        let plan = plan.fetch_all(shell).await.unwrap();
        plan[0].get::<String, _>("detail")
    };
    for (conditions, index) in [
        (
            format!("{end} >= 5 AND {end} < 9 AND revoked_at IS NULL"),
            "keys_by_end",
        ),
        (
            "user_id = 'x' AND revoked_at IS NULL".to_owned(),
            "keys_unrevoked",
        ),
        (
            "created_at < 5 AND (last_used_at IS NULL OR last_used_at < 5) AND revoked_at IS NULL"
                .to_owned(),
            "keys_by_age",
        ),
        (
            "revoked_at IS NULL AND (created_at, id) < (5, x'00')".to_owned(),
            "keys_by_age",
        ),
    ] {
        let keys =
            format!("tower_api_keys WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT 50");
        let plan = plan(&mut shell, &keys).await;
        assert!(plan.contains(index), "{conditions}: {plan}");
    }
    let pending = "tower_api_key_grants WHERE (+made_at, id) < (5, x'00') AND claimed_at IS NULL \
         AND revoked_at IS NULL AND expires_at > 5 ORDER BY made_at DESC, id DESC LIMIT 50";
    let plan = plan(&mut shell, pending).await;
    assert!(plan.contains("key_grants_pending"), "{plan}");
}
