//! Poolers between a backend and the server: a real PgBouncer.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower_api_key::{
    CacheConfig, OpenError, PostgresBackend,
    sqlx::{
        Connection, PgConnection,
        postgres::{PgConnectOptions, PgPoolOptions},
        raw_sql,
    },
};

use crate::{
    node::Node,
    setup::texts,
    support::{
        pgbouncer::Pooler,
        postgres::{Server, url},
    },
};

/// On own connections, and on a service's pool.
async fn open_both(url: &str) -> [Result<PostgresBackend, OpenError>; 2] {
    let own = PostgresBackend::connect(url).await;
    let pool = PgPoolOptions::new().connect_lazy_with(options(url));
    [own, PostgresBackend::new(pool).await]
}

/// Without a parameter that sqlx sends by default, and PgBouncer refuses.
fn options(url: &str) -> PgConnectOptions {
    let options: PgConnectOptions = url.parse().unwrap();
    options.extra_float_digits(None)
}

fn is_refused(opened: Result<PostgresBackend, OpenError>, what: &str) {
    let error = opened.map(drop).unwrap_err();
    assert!(
        matches!(error, OpenError::Unsupported(_)),
        "{what}: {error:?}"
    );
    let text = texts(&error);
    for said in [
        "pool_mode = transaction",
        "pool_mode = session",
        "connect to PostgreSQL itself",
    ] {
        assert!(text.contains(said), "{what}: {text}");
    }
}

/// Other clients of the pooler, which never stop.
async fn busy(url: &str, clients: usize) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    for _ in 0..clients {
        let mut client = connect(url).await;
        busy.spawn(async move {
            loop {
                raw_sql("SELECT pg_sleep(0.001)")
                    .execute(&mut client)
                    .await
                    .unwrap();
            }
        });
    }
    busy
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect_with(&options(url)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_a_pooler_that_shares_sessions_is_refused_at_open() {
    let Some(server) = Server::start_with(&["log_statement=all"]) else {
        return;
    };
    for mode in ["transaction", "statement"] {
        for size in [1, 2, 20] {
            for reset in [0, 1] {
                let settings = [
                    &*format!("pool_mode = {mode}"),
                    &format!("default_pool_size = {size}"),
                    &format!("server_reset_query_always = {reset}"),
                ];
                let Some(pooler) = Pooler::start(&server, &settings) else {
                    return;
                };
                for clients in [0, 4] {
                    let busy = busy(&pooler.url(), clients).await;
                    for opened in open_both(&pooler.url()).await {
                        is_refused(opened, &format!("{settings:?}, {clients} clients"));
                    }
                    drop(busy);
                }
            }
        }
    }
    // Nothing was prepared in a shared session, and none listens.
    let log = server.log();
    assert!(log.contains("statement: SELECT set_config('tower_api_key.session'"));
    for harm in ["execute ", "LISTEN", "SET statement_timeout", "CREATE "] {
        assert!(!log.contains(harm), "{harm}: {log}");
    }
}

/// Each of the two poolers has sessions of its own, so no setting of one reaches the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_two_poolers_behind_one_address_are_refused_at_open() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut poolers = Vec::new();
    for _ in 0..2 {
        let Some(pooler) = Pooler::start(&server, &["pool_mode = transaction"]) else {
            return;
        };
        poolers.push(pooler);
    }
    let ports: Vec<_> = poolers.iter().map(Pooler::port).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Connections go to one and the other by turns.
    let balancer = tokio::spawn(async move {
        for port in ports.into_iter().cycle() {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    for opened in open_both(&url(port)).await {
        is_refused(opened, "two poolers");
    }
    balancer.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_in_session_mode_everything_works() {
    let Some(server) = Server::start() else {
        return;
    };
    for size in [4, 20] {
        let settings = [
            "pool_mode = session",
            &format!("default_pool_size = {size}"),
        ];
        let Some(pooler) = Pooler::start(&server, &settings) else {
            return;
        };
        let elsewhere = Node::connect(&server).await;
        for opened in open_both(&pooler.url()).await {
            let node = Node::on(opened.unwrap(), CacheConfig::new()).await;
            let token = node.token().await;
            node.cache(&token).await;
            assert!(elsewhere.store.revoke_token(&token).await.unwrap());
            let took = node.becomes(&token, "revoked").await;
            assert!(took < Duration::from_secs(5), "{took:?}");
            node.store.shutdown().await.unwrap();
        }
    }
}

/// It would wait for its second connection until the first one goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_session_mode_with_one_session_is_named() {
    let Some(server) = Server::start() else {
        return;
    };
    let settings = ["pool_mode = session", "default_pool_size = 1"];
    let Some(pooler) = Pooler::start(&server, &settings) else {
        return;
    };
    let since = Instant::now();
    let error = PostgresBackend::connect(&pooler.url()).await.unwrap_err();
    assert!(texts(&error).contains("default_pool_size"), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(10));
    // One whose sessions are all taken by others is the same.
    let taken = tokio::spawn({
        let url = pooler.url();
        async move {
            let mut client = connect(&url).await;
            raw_sql("SELECT 1").execute(&mut client).await.unwrap();
            pending::<()>().await;
        }
    });
    let error = PostgresBackend::connect(&pooler.url()).await.unwrap_err();
    assert!(texts(&error).contains("no answer in time"), "{error:?}");
    taken.abort();
}
