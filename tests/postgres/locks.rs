//! Revocations among transactions that hold locks on the same rows.

use std::{
    cell::Cell,
    time::{Duration, UNIX_EPOCH},
};

use tokio::task::JoinHandle;
use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, ClaimHash, GrantId, GrantLimits, KeyGrant,
    PostgresBackend, Scopes,
    sqlx::{AssertSqlSafe, PgConnection, query_as, query_scalar, raw_sql},
};

use crate::{
    node::{eventually, literal},
    records::plain,
    support::{USER, postgres::Server, start},
};

/// Longer than any wait in a test takes.
const LONG: Duration = Duration::from_secs(60);

async fn run(connection: &mut PgConnection, statements: &str) {
    let run = raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection);
    run.await.unwrap();
}

/// Returns the processes that wait for a lock.
async fn waiting(server: &Server) -> Vec<i32> {
    let waiting = "SELECT DISTINCT pid FROM pg_locks WHERE NOT granted ORDER BY pid";
    let mut connection = server.connection().await;
    query_scalar(waiting)
        .fetch_all(&mut connection)
        .await
        .unwrap()
}

async fn until_waiting(server: &Server, processes: usize) {
    let what = format!("{processes} wait for a lock");
    eventually(&what, async || waiting(server).await.len() == processes).await;
}

/// Opens a transaction that has inserted the key `number`: another insertion of it waits.
async fn inserting(server: &Server, number: u8) -> PgConnection {
    let mut connection = server.connection().await;
    let insert = format!(
        "BEGIN; INSERT INTO tower_api_keys (id, user_id, display_prefix, pepper, secret_hash)
        VALUES ({}, 'other', repeat('x', 16), 'v1', repeat('ab', 32))",
        literal(&plain(number).id)
    );
    run(&mut connection, &insert).await;
    connection
}

async fn parent(backend: &PostgresBackend) -> ApiKey {
    let parent = plain(1);
    assert!(backend.insert(&parent).await.unwrap());
    parent
}

fn revoke(backend: &PostgresBackend, key: &ApiKey) -> JoinHandle<Result<bool, BackendError>> {
    let (backend, id) = (backend.clone(), key.id);
    tokio::spawn(async move { backend.revoke(&id, start(), None).await })
}

async fn patient(server: &Server) -> PostgresBackend {
    let builder = PostgresBackend::builder().statement_timeout(LONG);
    builder.connect(&server.url()).await.unwrap()
}

/// Two creations overlap, and the revocation of their parent's key comes between them.
async fn a_creation_waits_behind_the_revocation(
    create: impl Fn(&PostgresBackend, u8) -> JoinHandle<bool>,
    server: &Server,
    backend: &PostgresBackend,
    parent: &ApiKey,
) {
    let mut first_row = inserting(server, 2).await;
    let mut second_row = inserting(server, 3).await;
    let first = create(backend, 2);
    until_waiting(server, 1).await;
    let revocation = revoke(backend, parent);
    until_waiting(server, 2).await;
    let second = create(backend, 3);
    until_waiting(server, 3).await;
    run(&mut first_row, "ROLLBACK").await;
    assert!(first.await.unwrap(), "it came before the revocation");
    // The second creation can't end before its own row is free.
    let revoked = tokio::time::timeout(Duration::from_secs(20), revocation).await;
    assert!(revoked.expect("it isn't overtaken").unwrap().unwrap());
    run(&mut second_row, "ROLLBACK").await;
    assert!(!second.await.unwrap(), "the parent's key is revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_creation_waits_behind_the_revocation_of_its_parent() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = patient(&server).await;
    let parent = parent(&backend).await;
    let named = (parent.id, parent.version);
    let create = |backend: &PostgresBackend, number| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.insert_made_by(&plain(number), named).await.unwrap() })
    };
    a_creation_waits_behind_the_revocation(create, &server, &backend, &parent).await;
}

fn grant(number: u8) -> KeyGrant {
    let mut grant = KeyGrant::new(
        GrantId::from_bytes([number; 16]),
        ClaimHash::from_bytes([number; 32]),
        USER.to_owned(),
        Scopes::none(),
    );
    grant.made_by = Some(plain(1).id);
    grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g11_a_claim_waits_behind_the_revocation_of_its_parent() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = patient(&server).await;
    let parent = parent(&backend).await;
    for number in [2, 3] {
        let (grant, limits) = (grant(number), GrantLimits::new());
        backend.insert_grant(&grant, &limits).await.unwrap();
    }
    let named = Some((parent.id, parent.version));
    let claim = |backend: &PostgresBackend, number| {
        let backend = backend.clone();
        tokio::spawn(async move {
            let key = plain(number);
            let id = grant(number).id;
            backend.claim(&id, &key, named).await.unwrap()
        })
    };
    a_creation_waits_behind_the_revocation(claim, &server, &backend, &parent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_waits_for_a_lock_longer_than_other_writes() {
    let Some(server) = Server::start() else {
        return;
    };
    let builder = PostgresBackend::builder().statement_timeout(Duration::from_millis(300));
    let own = builder.clone().connect(&server.url()).await.unwrap();
    let over = builder.over(server.pool()).await.unwrap();
    for (number, backend) in [(1, own), (2, over)] {
        let mut key = plain(number);
        assert!(backend.insert(&key).await.unwrap());
        let mut grant = grant(number);
        grant.made_by = None;
        let inserted = backend.insert_grant(&grant, &GrantLimits::new()).await;
        inserted.unwrap();
        let mut holder = server.connection().await;
        let hold = "BEGIN; SELECT FROM tower_api_keys FOR UPDATE;
            SELECT FROM tower_api_key_grants FOR UPDATE";
        run(&mut holder, hold).await;

        let revocation = revoke(&backend, &key);
        let of_user = backend.clone();
        let of_user =
            tokio::spawn(async move { of_user.revoke_for_user(USER, start(), None, 10).await });
        let of_grant = backend.clone();
        let of_grant = tokio::spawn(async move { of_grant.revoke_grant(&grant.id, start()).await });
        let of_grants = backend.clone();
        let of_grants =
            tokio::spawn(async move { of_grants.revoke_grants_of_user(USER, start()).await });
        until_waiting(&server, 4).await;
        key.version += 1;
        let update = backend.update(&key, key.version - 1).await;
        update.expect_err("it waits for its own time limit");
        assert!(waiting(&server).await.len() >= 4);
        run(&mut holder, "COMMIT").await;
        let by_id = usize::from(revocation.await.unwrap().unwrap());
        assert_eq!(by_id + of_user.await.unwrap().unwrap().len(), 1);
        let by_grant = usize::from(of_grant.await.unwrap().unwrap());
        assert_eq!(by_grant + of_grants.await.unwrap().unwrap(), 1);
    }
}

/// Returns the process and the start of a transaction that waits for a lock, and isn't `last`.
async fn waiting_transaction(server: &Server, last: Option<&(i32, String)>) -> (i32, String) {
    let waiting = "SELECT pid, xact_start::text FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE NOT granted";
    let found = Cell::new(None);
    eventually("a transaction waits for a lock", async || {
        let mut connection = server.connection().await;
        let waiting = query_as::<_, (i32, String)>(waiting).fetch_optional(&mut connection);
        let waiting = waiting.await.unwrap();
        let is_another = waiting.is_some() && waiting.as_ref() != last;
        found.set(waiting);
        is_another
    })
    .await;
    found.take().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_that_the_server_gives_up_is_tried_again() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = patient(&server).await;
    let parent = parent(&backend).await;
    let mut cancelled_last = None;
    for cancelled in [2, 3] {
        let mut holder = server.connection().await;
        run(&mut holder, "BEGIN; SELECT FROM tower_api_keys FOR UPDATE").await;
        let revocation = revoke(&backend, &parent);
        for _ in 0..cancelled {
            let transaction = Some(waiting_transaction(&server, cancelled_last.as_ref()).await);
            let (process, _) = transaction.as_ref().unwrap();
            let cancel = format!("SELECT pg_cancel_backend({process})");
            server.psql(&cancel).await;
            cancelled_last = transaction;
        }
        if cancelled == 2 {
            waiting_transaction(&server, cancelled_last.as_ref()).await;
            run(&mut holder, "COMMIT").await;
            assert!(revocation.await.unwrap().unwrap());
            let mut unrevoke = server.connection().await;
            run(&mut unrevoke, "UPDATE tower_api_keys SET revoked_at = NULL").await;
        } else {
            revocation.await.unwrap().unwrap_err();
            run(&mut holder, "COMMIT").await;
            // The connection isn't in the transaction that failed.
            assert!(revoke(&backend, &parent).await.unwrap().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_whose_commit_fails_is_an_error() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = patient(&server).await;
    let parent = parent(&backend).await;
    server
        .psql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'not now'; END $$;
            CREATE CONSTRAINT TRIGGER refused AFTER UPDATE ON tower_api_keys
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let error = revoke(&backend, &parent).await.unwrap().unwrap_err();
    assert!(format!("{error:?}").contains("not now"), "{error:?}");
    server.psql("DROP TRIGGER refused ON tower_api_keys").await;
    let found = backend.get_by_id(&[parent.id]).await.unwrap();
    assert_eq!(found[0].revoked_at, None::<std::time::SystemTime>);
    assert!(revoke(&backend, &parent).await.unwrap().unwrap());
    let found = backend.get_by_id(&[parent.id]).await.unwrap();
    assert!(found[0].revoked_at > Some(UNIX_EPOCH));
}
