//! An `ApiKeyBackend` of one's own: keys that the store manages, in a database it doesn't know.
//!
//! The database here, in `table.rs`, is a map behind a lock. Its rows show the columns that a real one
//! needs, and each method says which statement it stands for.
//!
//! `cargo run --example custom_backend` makes three keys and prints their tokens: LAPTOP and CI of
//! `ada`, STRANGER of `bob`. `ADDR` names another address. Then:
//!
//! ```sh
//! curl "http://127.0.0.1:3000/keys?limit=1" -H "Authorization: Bearer $LAPTOP"   # one, and `next`
//! curl "http://127.0.0.1:3000/keys?after=<next>" -H "Authorization: Bearer $LAPTOP"  # the other
//! curl -i -X DELETE http://127.0.0.1:3000/keys/current -H "Authorization: Bearer $CI"    # 204
//! curl -i http://127.0.0.1:3000/keys -H "Authorization: Bearer $CI"               # 401, revoked
//! ```

#[path = "../support/server.rs"]
mod server;
mod table;

use std::{error::Error, time::SystemTime};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{delete, get},
};
use serde_json::{Value, json};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, AuthContext, NewApiKey, PageRequest, Pepper, Peppers, RequireScope,
    Scopes, StoreError,
};

use table::Table;

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let listener = server::listen().await?;
    // Rows that outlive the process need a pepper that does, as from `Pepper::from_env`.
    let store = ApiKeyStore::builder(Table::default())
        .peppers(Peppers::new(Pepper::random("v1")?))
        .build()
        .await?;
    for (name, user, scopes) in [
        ("laptop", "ada", Scopes::unrestricted()),
        ("ci", "ada", Scopes::none()),
        ("stranger", "bob", Scopes::of(["keys:*"])?),
    ] {
        let new = NewApiKey::for_user(user, scopes).name(name);
        let issued = store.create(new).await?;
        println!("{name}: {}", issued.token().expose());
    }
    let app = Router::new()
        .route("/keys", get(list).layer(RequireScope("keys:read")))
        .route("/keys/current", delete(revoke))
        .route_layer(ApiKeyLayer::new(store.clone()))
        .with_state(store.clone());
    server::serve(listener, app).await?;
    // When keys were last used is written behind the requests: this writes the rest of it.
    store.shutdown().await?;
    Ok(())
}

#[derive(serde::Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

async fn list(
    State(store): State<ApiKeyStore>,
    auth: AuthContext,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, StatusCode> {
    let mut page = PageRequest::new().limit(query.limit.unwrap_or(20));
    if let Some(after) = query.after {
        page = page.after(after.parse().map_err(|_| StatusCode::BAD_REQUEST)?);
    }
    let page = store
        .list_for_user(auth.user_id(), page)
        .await
        .map_err(status)?;
    let keys = page.keys.iter().map(|key| {
        json!({
            "id": key.id.to_string(),
            "name": key.name,
            "prefix": key.display_prefix.as_str(),
            "status": key.status(SystemTime::now()).as_str(),
            "used": key.last_used_at.is_some(),
        })
    });
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(Json(
        json!({ "keys": keys.collect::<Vec<_>>(), "next": next }),
    ))
}

/// A key ends itself. To end others, check first whose they are: an id is no secret.
async fn revoke(
    State(store): State<ApiKeyStore>,
    auth: AuthContext,
) -> Result<StatusCode, StatusCode> {
    store.revoke(auth.key_id()).await.map_err(status)?;
    Ok(StatusCode::NO_CONTENT)
}

fn status(_: StoreError) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}
