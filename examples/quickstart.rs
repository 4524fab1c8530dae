//! A small notes service behind API keys: `cargo run --example quickstart --features sqlite`.
//!
//! It makes two keys, prints them, and serves until Ctrl-C or SIGTERM. `ADDR` says where. Keys are kept
//! in `quickstart.db`, and what their secrets are hashed with in `quickstart.pepper`: those of earlier
//! runs go on working.

#[path = "support/server.rs"]
mod server;

use std::{
    error::Error,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use tower_api_key::{
    ApiKeyBackend, ApiKeyLayer, ApiKeyStore, AuthContext, NewApiKey, Pepper, Peppers, RequireScope,
    Scopes, SqliteBackend,
};

const PEPPER: &str = "quickstart.pepper";

type Notes = Arc<Mutex<Vec<Value>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = server::listen().await?;

    // Somebody who has only one of these files can't try out secrets.
    let backend = SqliteBackend::open("quickstart.db").await?;
    let has_keys = !backend.pepper_usage(SystemTime::now()).await?.is_empty();
    // With a new pepper, existing keys would no longer work.
    let pepper = if has_keys || Path::new(PEPPER).exists() {
        Pepper::from_file("v1", PEPPER)?
    } else {
        Pepper::create_file("v1", PEPPER)?
    };
    let store = ApiKeyStore::builder(backend)
        .peppers(Peppers::new(pepper))
        .build()
        .await?;
    for (name, scope) in [("reader", "notes:read"), ("writer", "notes:*")] {
        let new = NewApiKey::for_user("user_1", Scopes::of([scope])?).name(name);
        // The one time that the token is seen: the store keeps a hash of its secret.
        println!("{name}: {}", store.create(new).await?.token().expose());
    }
    server::serve(listener, app(store.clone())).await?;
    // Writes when keys were last used.
    store.shutdown().await?;
    Ok(())
}

fn app(store: ApiKeyStore) -> Router {
    let read = get(list).layer(RequireScope("notes:read"));
    let write = post(add).layer(RequireScope("notes:write"));
    Router::new()
        .route("/whoami", get(whoami))
        .route("/notes", read.merge(write))
        // Around every route above, and none below.
        .route_layer(ApiKeyLayer::new(store))
        .route("/health", get(|| async { "ok" }))
        .with_state(Notes::default())
}

async fn whoami(auth: AuthContext) -> Json<Value> {
    Json(json!({
        "user_id": auth.user_id(),
        "key_id": auth.key_id().to_string(),
        "name": auth.name(),
        "scopes": auth.scopes().iter().collect::<Vec<_>>(),
    }))
}

async fn list(State(notes): State<Notes>) -> Json<Vec<Value>> {
    Json(notes.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

#[derive(serde::Deserialize)]
struct NewNote {
    text: String,
}

async fn add(
    State(notes): State<Notes>,
    auth: AuthContext,
    Json(new): Json<NewNote>,
) -> (StatusCode, Json<Value>) {
    let note = json!({ "text": new.text, "by": auth.name() });
    notes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(note.clone());
    (StatusCode::CREATED, Json(note))
}
