//! A service's own pool, and what the service leaves on its connections.

use tower_api_key::{
    CacheConfig, NewApiKey, PostgresBackend, Scopes,
    sqlx::{AssertSqlSafe, postgres::PgPoolOptions, query_scalar, raw_sql},
};

use crate::{
    node::Node,
    support::{USER, outcome, postgres::Server, stray::Shared},
};

async fn shared(server: &Server) -> Shared<PostgresBackend, impl AsyncFn(&str)> {
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_lazy(&server.url()).unwrap();
    let node = PostgresBackend::new(pool.clone()).await.unwrap();
    let node = Node::on(node, CacheConfig::new()).await;
    server.psql("CREATE TABLE notes (text text)").await;
    Shared {
        store: node.store,
        backend: node.backend,
        elsewhere: Node::connect(server).await.store,
        send: async move |text: &str| {
            let mut connection = pool.acquire().await.unwrap();
            let sent = raw_sql(AssertSqlSafe(text.to_owned()));
            let _ = sent.execute(&mut *connection).await;
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_no_write_is_lost_with_a_transaction_that_a_service_has_left_open() {
    let Some(server) = Server::start() else {
        return;
    };
    let shared = shared(&server).await;
    for left_open in [
        "BEGIN",
        "BEGIN; INSERT INTO notes VALUES ('lost')",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tower_api_keys",
        "BEGIN READ ONLY; SELECT 1; SAVEPOINT one",
    ] {
        Box::pin(shared.writes_hold(left_open)).await;
    }
    let now = "now()";
    shared
        .what_is_not_committed_is_not_revoked_already("BEGIN", now)
        .await;
    // Nobody was going to commit it.
    let mut connection = server.connection().await;
    let notes = query_scalar::<_, i64>("SELECT count(*) FROM notes");
    assert_eq!(notes.fetch_one(&mut connection).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_no_look_up_sees_what_a_transaction_saw_that_a_service_has_left_open() {
    let Some(server) = Server::start() else {
        return;
    };
    let shared = shared(&server).await;
    for begin in [
        "BEGIN",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
    ] {
        shared.look_ups_see_what_is_there(begin).await;
    }
}

/// A transaction that has failed takes no write, and none is answered as done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_revocation_in_a_transaction_that_has_failed_is_an_error_and_the_next_one_holds() {
    let Some(server) = Server::start() else {
        return;
    };
    let shared = shared(&server).await;
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = shared.store.create(new).await.unwrap();
    let revoke = async || shared.store.revoke(&issued.key().id).await;
    let failed = "BEGIN; SELECT 1 / 0";
    shared.after(failed, revoke).await.unwrap_err();
    assert!(shared.after("BEGIN", revoke).await.unwrap());
    let token = issued.token().expose();
    let verified = shared.elsewhere.verify_fresh(token).await;
    assert_eq!(outcome(&verified), "revoked");
}

/// Where every transaction sees one snapshot, a look-up is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_with_another_isolation_is_as_good() {
    let Some(server) = Server::start() else {
        return;
    };
    server
        .psql("ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'")
        .await;
    let shared = shared(&server).await;
    Box::pin(shared.writes_hold("BEGIN")).await;
    shared.look_ups_see_what_is_there("BEGIN").await;
}
