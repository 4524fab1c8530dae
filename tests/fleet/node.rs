//! The node's side: a server with the layer over keys in PostgreSQL, in a process of its own.

use std::{
    env, error::Error, fmt::Write, io::Read, net::Ipv4Addr, process, sync::Arc, thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, AuthContext, CacheConfig, KeyId, NewApiKey, Pepper, Peppers,
    PostgresBackend, Scopes,
};

/// The database's URL: a process that has it is a node.
pub const URL: &str = "FLEET_NODE_URL";
/// `max_staleness` in milliseconds.
pub const BELIEVED: &str = "FLEET_NODE_MAX_STALENESS_MS";
/// What the line begins with that tells the address.
pub const LISTENING: &str = "listening on ";

/// How long a request waits for its key: shorter than the default, so that a run has time for more.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
const PEPPER: &str = "a pepper that all the nodes have 0123456789";

/// Serves until the standard input ends, where this process was started as a node.
pub fn serve_if_asked() -> bool {
    let Ok(url) = env::var(URL) else {
        return false;
    };
    // The process that started this one may end in any way.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    let believed = env::var(BELIEVED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(&url, Duration::from_millis(believed)));
    true
}

async fn serve(url: &str, believed: Duration) {
    let backend = PostgresBackend::connect(url).await.unwrap();
    let cache = CacheConfig::new()
        .max_staleness(believed)
        .time_to_live(believed.max(Duration::from_secs(60)))
        .load_timeout(LOAD_TIMEOUT);
    let store = ApiKeyStore::builder(backend)
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .cache(cache)
        .build()
        .await
        .unwrap();
    let guarded = Router::new()
        .route(
            "/",
            get(async |auth: AuthContext| auth.user_id().to_owned()),
        )
        .route_layer(ApiKeyLayer::new(store.clone()));
    let control = Router::new()
        .route("/keys", post(create))
        .route("/keys/{id}/revoke", post(revoke))
        .route("/stats", get(stats))
        .with_state(Arc::new(store));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    println!("\n{LISTENING}{}", listener.local_addr().unwrap());
    axum::serve(listener, guarded.merge(control)).await.unwrap();
}

type Answer = (StatusCode, String);

async fn create(State(store): State<Arc<ApiKeyStore>>) -> Answer {
    let new = NewApiKey::for_user("user_1", Scopes::none());
    match store.create(new).await {
        Ok(issued) => (StatusCode::OK, issued.token().expose().to_owned()),
        Err(error) => failed(&error),
    }
}

async fn revoke(State(store): State<Arc<ApiKeyStore>>, Path(id): Path<String>) -> Answer {
    let id: KeyId = id.parse().unwrap();
    match store.revoke(&id).await {
        Ok(changed) => (StatusCode::OK, changed.to_string()),
        Err(error) => failed(&error),
    }
}

async fn stats(State(store): State<Arc<ApiKeyStore>>) -> String {
    format!("{:?}", store.cache_stats())
}

fn failed(error: &dyn Error) -> Answer {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
