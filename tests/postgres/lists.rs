//! Lists by a filter, purges, and all keys of a user, on real servers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::{prelude::*, test_runner::TestRunner};
use tokio::task::JoinSet;
use tower_api_key::{
    ApiKey, ApiKeyBackend, KeyFilter, KeySource, KeyUpdate, Metadata, NewApiKey, PageRequest,
    PostgresBackend, RevocationReason, Scopes, StoreError,
    sqlx::{AssertSqlSafe, query_scalar, raw_sql},
};

use crate::{
    node::{Node, where_id},
    records::record,
    support::{
        USER, id_of,
        lists::{
            cases, filters, keys, lists_what_fits, purge_that_fails_at_grants, purge_times,
            purges_what_has_ended,
        },
        postgres::Server,
        start,
    },
};

/// On the same tables each time, which are empty before.
fn with_keys<T: std::fmt::Debug>(
    number: u32,
    given: impl Strategy<Value = (Vec<ApiKey>, T)>,
    check: &impl AsyncFn(&PostgresBackend, &[ApiKey], T),
) {
    let Some(server) = Server::start() else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = server.url();
    let backend = runtime.block_on(PostgresBackend::connect(&url)).unwrap();
    let mut runner = TestRunner::new(cases(number));
    let run = runner.run(&given, |(keys, more)| {
        runtime.block_on(async {
            server.psql("TRUNCATE tower_api_keys").await;
            for key in &keys {
                assert!(backend.insert(key).await.unwrap());
            }
            check(&backend, &keys, more).await;
        });
        Ok(())
    });
    run.unwrap();
    runtime.block_on(async { drop(backend) });
}

#[test]
fn lists_are_exactly_the_keys_that_fit() {
    let given = (keys(30), (filters(8), 1..9_usize));
    with_keys(24, given, &async |backend, keys, (filters, limit)| {
        for filter in &filters {
            lists_what_fits(backend, keys, filter, limit).await;
        }
    });
}

#[test]
fn what_has_ended_is_purged_and_never_a_key_that_works() {
    let given = (keys(30), purge_times());
    with_keys(32, given, &async |backend, keys, times| {
        purges_what_has_ended(backend, keys, times).await;
    });
}

async fn listed(backend: &PostgresBackend, filter: KeyFilter) -> Vec<u8> {
    let listed = backend.list(&filter, &PageRequest::new()).await.unwrap();
    assert!(listed.iter().all(|key| filter.fits(key)));
    let mut ids: Vec<_> = listed.iter().map(|key| key.id.as_bytes()[0]).collect();
    ids.sort_unstable();
    ids
}

/// What an operator writes has microseconds, and may never end.
#[tokio::test]
async fn an_infinite_end_is_none_and_microseconds_are_cut_in_lists_as_in_records() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    for number in 1..4 {
        let mut key = record(number);
        (key.revoked_at, key.expires_at) = (None, None);
        assert!(backend.insert(&key).await.unwrap());
    }
    server
        .psql(
            "UPDATE tower_api_keys SET expires_at = 'infinity', last_used_at = NULL
                WHERE id = decode(repeat('01', 24), 'hex');
            UPDATE tower_api_keys SET expires_at = '2030-01-01 00:00:00.000999+00',
                last_used_at = '2030-01-01 00:00:00.000999+00'
                WHERE id = decode(repeat('02', 24), 'hex')",
        )
        .await;
    let end = UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    let milli = Duration::from_millis(1);
    let all = KeyFilter::new;
    assert_eq!(listed(&backend, all()).await, [1, 2, 3]);
    assert_eq!(listed(&backend, all().ends_from(UNIX_EPOCH)).await, [2]);
    assert_eq!(listed(&backend, all().ends_before(end)).await, [0_u8; 0]);
    assert_eq!(listed(&backend, all().ends_before(end + milli)).await, [2]);
    assert_eq!(listed(&backend, all().ends_from(end)).await, [2]);
    assert_eq!(
        listed(&backend, all().ends_from(end + milli)).await,
        [0_u8; 0]
    );
    assert_eq!(listed(&backend, all().unused_since(end)).await, [1, 3]);
    let since = all().unused_since(end + milli);
    assert_eq!(listed(&backend, since).await, [1, 2, 3]);
    let nobody = all().user("a\0b");
    assert_eq!(listed(&backend, nobody).await, [0_u8; 0]);
    let latest = UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    // By the server's clock, nothing has ended.
    assert_eq!(backend.purge(latest, 10).await.unwrap(), 0);
    server
        .psql(
            "UPDATE tower_api_keys SET expires_at = now()
                WHERE id = decode(repeat('02', 24), 'hex')",
        )
        .await;
    assert_eq!(backend.purge(latest, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn a_purge_goes_on_batch_by_batch_and_takes_grants_that_are_over() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    let token = node.token().await;
    server
        .psql(
            "INSERT INTO tower_api_keys (id, user_id, display_prefix, pepper, secret_hash, expires_at,
                revoked_at)
            SELECT decode(rpad(md5(n::text), 48, '0'), 'hex'), 'bulk', repeat('x', 16), 'v1',
                repeat('ab', 32), '2000-01-01', CASE n % 2 WHEN 0 THEN now() - interval '1 year' END
            FROM generate_series(1, 2500) AS n;
            INSERT INTO tower_api_key_grants (id, claim_hash, user_id, expires_at, claimed_at, key_id,
                revoked_at)
            SELECT decode(md5(n::text), 'hex'), sha256(n::text::bytea), 'user_' || n,
                CASE n WHEN 3 THEN '2000-01-01' ELSE '2100-01-01' END::timestamptz,
                CASE n WHEN 1 THEN '2000-01-01' WHEN 4 THEN now() END::timestamptz,
                CASE WHEN n IN (1, 4) THEN decode(repeat('00', 24), 'hex') END,
                CASE n WHEN 2 THEN '2000-01-01'::timestamptz END
            FROM generate_series(1, 5) AS n",
        )
        .await;
    let then = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    let removed = node.backend.purge(then, 1_000).await.unwrap();
    assert!((500..=1_000).contains(&removed), "{removed}");
    let removed = removed + node.store.purge(then).await.unwrap();
    assert_eq!(removed, 2_503);
    let mut connection = server.connection().await;
    let left = query_scalar("SELECT array_agg(user_id ORDER BY 1) FROM tower_api_key_grants");
    let left: Vec<String> = left.fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, ["user_4", "user_5"]);
    assert_eq!(node.verify(&token).await, "good");
    assert_eq!(listed(&node.backend, KeyFilter::new()).await.len(), 1);
}

/// An operator's trigger stands for all that can go wrong between keys and grants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_before_an_error_is_told() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    ended(&server, 0, 1).await;
    let function = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN {body} END$$"
        )
    };
    let trigger = "CREATE TRIGGER kept BEFORE DELETE ON tower_api_key_grants
        FOR EACH ROW EXECUTE FUNCTION kept()";
    server.psql(&function("RAISE 'kept';")).await;
    server.psql(trigger).await;
    purge_that_fails_at_grants(&node.store, &node.backend).await;
    // What others keep is no reason to look for ever, nor to say that nothing is left.
    server.psql(&function("RETURN NULL;")).await;
    node.store.purge(SystemTime::now()).await.unwrap_err();
    server
        .psql("DROP TRIGGER kept ON tower_api_key_grants")
        .await;
    assert_eq!(node.store.purge(SystemTime::now()).await.unwrap(), 1);
}

/// Records of so many keys and grants that have ended, each a second after the one before.
async fn ended(server: &Server, keys: u32, grants: u32) {
    let bulk = format!(
        "INSERT INTO tower_api_keys (id, user_id, display_prefix, pepper, secret_hash, expires_at)
        SELECT decode(rpad(md5(n::text), 48, '0'), 'hex'), 'bulk', repeat('x', 16), 'v1',
            repeat('ab', 32), '2000-01-01'::timestamptz + n * interval '1 second'
        FROM generate_series(1, {keys}) AS n;
        INSERT INTO tower_api_key_grants (id, claim_hash, user_id, expires_at)
        SELECT decode(md5(n::text), 'hex'), sha256(n::text::bytea), 'bulk',
            '2000-01-01'::timestamptz + n * interval '1 second'
        FROM generate_series(1, {grants}) AS n"
    );
    server.psql(&bulk).await;
}

/// Another purger has begun to remove what this one finds first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_second_to_remove_what_was_found_looks_for_more() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    for (table, keys, grants) in [("keys", 5, 0), ("key_grants", 0, 5)] {
        ended(&server, keys, grants).await;
        let mut other = server.connection().await;
        let first = format!(
            "BEGIN; DELETE FROM tower_api_{table} WHERE expires_at < '2000-01-01 00:00:02.5'"
        );
        let first = raw_sql(AssertSqlSafe(first)).execute(&mut other).await;
        assert_eq!(first.unwrap().rows_affected(), 2);
        let backend = node.backend.clone();
        let purge = tokio::spawn(async move { backend.purge(SystemTime::now(), 2).await });
        until_one_waits(&server, &purge).await;
        raw_sql("COMMIT").execute(&mut other).await.unwrap();
        assert_eq!(purge.await.unwrap().unwrap(), 2);
        assert_eq!(node.store.purge(SystemTime::now()).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_purgers_at_once_none_is_done_before_everything_is_gone() {
    let Some(server) = Server::start() else {
        return;
    };
    let nodes = [Node::connect(&server).await, Node::connect(&server).await];
    let left = "SELECT (SELECT count(*) FROM tower_api_keys) + (SELECT count(*) FROM tower_api_key_grants)";
    for _ in 0..3 {
        ended(&server, 4_000, 2_000).await;
        let mut purges = JoinSet::new();
        for node in &nodes {
            let (store, mut shell) = (node.store.clone(), server.connection().await);
            purges.spawn(async move {
                let removed = store.purge(SystemTime::now()).await.unwrap();
                let left: i64 = query_scalar(left).fetch_one(&mut shell).await.unwrap();
                (removed, left)
            });
        }
        let ended = purges.join_all().await;
        assert!(ended.iter().all(|(_, left)| *left == 0), "{ended:?}");
        let removed: usize = ended.iter().map(|(removed, _)| removed).sum();
        assert_eq!(removed, 6_000, "{ended:?}");
    }
}

/// Until a session waits for a lock of another one.
async fn until_one_waits<T>(server: &Server, task: &tokio::task::JoinHandle<T>) {
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let mut shell = server.connection().await;
    let since = std::time::Instant::now();
    while query_scalar::<_, i64>(waits)
        .fetch_one(&mut shell)
        .await
        .unwrap()
        == 0
    {
        assert!(!task.is_finished(), "it didn't wait");
        assert!(since.elapsed() < Duration::from_secs(20));
    }
}

/// A renewal that has begun and isn't committed is waited for, and then counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_being_renewed_is_not_purged() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    for renewal in [
        "expires_at = NULL",
        "expires_at = now() + interval '1 day'",
        "expires_at = 'infinity'",
    ] {
        let new = NewApiKey::for_user(USER, Scopes::none()).expires_at(UNIX_EPOCH);
        let token = node.store.create(new).await.unwrap().token().clone();
        let place = where_id(token.expose());
        let mut shell = server.connection().await;
        let renew = format!("BEGIN; UPDATE tower_api_keys SET {renewal} WHERE {place}");
        raw_sql(AssertSqlSafe(renew))
            .execute(&mut shell)
            .await
            .unwrap();
        let backend = node.backend.clone();
        let purge = tokio::spawn(async move { backend.purge(SystemTime::now(), 10).await });
        until_one_waits(&server, &purge).await;
        raw_sql("COMMIT").execute(&mut shell).await.unwrap();
        assert_eq!(purge.await.unwrap().unwrap(), 0);
        assert_eq!(node.verify_fresh(token.expose()).await, "good");
        assert!(node.store.delete(&token.key_id().unwrap()).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purges_renewals_uses_and_revocations_meet_without_a_deadlock() {
    let Some(server) = Server::start() else {
        return;
    };
    let (here, there) = (Node::connect(&server).await, Node::connect(&server).await);
    for round in 0..10 {
        let user = format!("user_{round}");
        let mut ids = Vec::new();
        for _ in 0..30 {
            let new = NewApiKey::for_user(&user, Scopes::none()).expires_at(UNIX_EPOCH);
            ids.push(here.store.create(new).await.unwrap().key().id);
        }
        // What is renewed and then revoked was revoked after it.
        let before = SystemTime::now();
        let mut tasks = JoinSet::new();
        for (number, id) in ids.iter().copied().enumerate() {
            let store = [&here, &there][number % 2].store.clone();
            tasks.spawn(async move {
                let update = KeyUpdate::new().never_expires();
                let renewed = store.update(&id, update).await.unwrap();
                renewed.map(|key| key.id)
            });
        }
        for node in [&here, &there] {
            let (store, backend) = (node.store.clone(), node.backend.clone());
            tasks.spawn(async move {
                store.purge(before).await.unwrap();
                None
            });
            let mut touches: Vec<_> = ids
                .iter()
                .map(|id| tower_api_key::Touch::new(*id, start()))
                .collect();
            touches.reverse();
            tasks.spawn(async move {
                backend.touch(&touches).await.unwrap();
                None
            });
        }
        let (store, owner) = (there.store.clone(), user.clone());
        tasks.spawn(async move {
            store.revoke_all_for_user(&owner).await.unwrap();
            None
        });
        for renewed in tasks.join_all().await.into_iter().flatten() {
            assert!(here.store.get(&renewed).await.unwrap().is_some());
        }
    }
}

#[tokio::test]
async fn a_row_that_can_not_be_read_keeps_no_other_key_of_its_user_from_ending() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let token = node.token().await;
        node.until_hit(&token).await;
        tokens.push(token);
    }
    let place = where_id(&tokens[1]);
    server
        .psql(&format!(
            "UPDATE tower_api_keys SET scopes = 'a\"b' WHERE {place}"
        ))
        .await;
    let page = node.store.list_for_user(USER, PageRequest::new()).await;
    assert!(matches!(page, Err(StoreError::Unavailable(_))));
    let reason = RevocationReason::OwnerLeft;
    let revoked = node.store.revoke_all_for_user_because(USER, reason).await;
    assert_eq!(revoked.unwrap(), 3);
    assert_eq!(node.verify(&tokens[0]).await, "revoked");
    assert_eq!(node.verify(&tokens[1]).await, "unavailable");
    assert_eq!(node.verify(&tokens[2]).await, "revoked");
    let mut connection = server.connection().await;
    let ended = query_scalar::<_, i64>(
        "SELECT count(*) FROM tower_api_keys WHERE revoked_at IS NOT NULL
        AND revocation_reason = 'owner_left'",
    );
    assert_eq!(ended.fetch_one(&mut connection).await.unwrap(), 3);
    assert_eq!(node.store.revoke_all_for_user("a\0b").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_keys_of_a_user_that_end_on_one_node_end_on_the_other() {
    let Some(server) = Server::start() else {
        return;
    };
    let (here, there) = (Node::connect(&server).await, Node::connect(&server).await);
    for _ in 0..10 {
        let (first, second) = (here.token().await, here.token().await);
        there.cache(&first).await;
        there.cache(&second).await;
        // Those that `settle` has made are the user's, too.
        assert!(here.store.revoke_all_for_user(USER).await.unwrap() >= 2);
        there.becomes(&first, "revoked").await;
        there.becomes(&second, "revoked").await;
        let reason = here.store.get(&id_of(&first)).await.unwrap().unwrap();
        assert_eq!(reason.revocation_reason, None);
    }
}

#[tokio::test]
async fn reasons_and_metadata_survive() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut stored = record(1);
    stored.revocation_reason = Some(RevocationReason::Other("é 'quoted'".to_owned()));
    stored.metadata = Some(Metadata::from_json(format!("\"{}\"", "é".repeat(2_047))).unwrap());
    backend.insert(&stored).await.unwrap();
    let read = backend.get_many(&[stored.lookup_key()]).await.unwrap();
    assert_eq!(format!("{:?}", read[0]), format!("{stored:?}"));
}
