//! Keys that callers make for their own machines, and replace: handed off, claimed once, rotated.
//!
//! `cargo run --example handoff` prints a key. `ADDR` names another address.
//!
//! ```sh
//! # A claim token for a machine of one's own; the owner is who the key says, whatever the body is.
//! curl -s http://127.0.0.1:3000/grants -H "Authorization: Bearer $KEY" --json '{"name":"laptop","scopes":["notes:read"]}'
//! # What it is for: looking uses nothing up, since mail scanners and browsers look, too.
//! curl -s http://127.0.0.1:3000/claims/$CLAIM_TOKEN
//! # And the key, once.
//! curl -s -X POST http://127.0.0.1:3000/claims/$CLAIM_TOKEN
//! # Another in its place; the old one goes on for an hour.
//! curl -s -X POST http://127.0.0.1:3000/key/rotation -H "Authorization: Bearer $KEY"
//! # Is the old one still in use? Asked with the new one: asking with the old one is a use of it.
//! curl -s http://127.0.0.1:3000/key/rotation -H "Authorization: Bearer $NEW_KEY"
//! ```

#[path = "support/server.rs"]
mod server;

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, AuthContext, HandoffToken, IssuedKey, NewApiKey, RequireScope,
    Scopes, StoreError,
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = server::listen().await?;
    let store = ApiKeyStore::in_memory();
    let scopes = Scopes::of(["keys:write", "notes:*"])?;
    let key = NewApiKey::for_user("user_1", scopes).name("first");
    println!("key: {}", store.create(key).await?.token().expose());
    server::serve(listener, app(store.clone())).await?;
    store.shutdown().await?;
    Ok(())
}

fn app(store: ApiKeyStore) -> Router {
    Router::new()
        .route("/grants", post(hand_off))
        .route("/key/rotation", post(rotate).get(rotation))
        .route_layer(RequireScope("keys:write"))
        .route("/whoami", get(whoami))
        .route_layer(ApiKeyLayer::new(store.clone()))
        // Who has a claim token needs no key.
        .route("/claims/{token}", get(look).post(claim))
        .with_state(store)
}

#[derive(serde::Deserialize)]
struct NewMachine {
    name: String,
    scopes: Vec<String>,
}

async fn hand_off(
    State(store): State<ApiKeyStore>,
    auth: AuthContext,
    Json(machine): Json<NewMachine>,
) -> Result<Response, Refused> {
    let scopes = Scopes::of(machine.scopes).map_err(|_| Refused(StatusCode::BAD_REQUEST))?;
    // The owner is never taken from the body.
    let new = NewApiKey::for_user(auth.user_id(), scopes).name(machine.name);
    // No more than the caller holds, and only while that key works.
    let handed_off = store.hand_off_as(&auth, new, 15 * MINUTE).await?;
    let token = handed_off.token().expose_text();
    Ok(secret(StatusCode::CREATED, json!({ "claim_token": token })))
}

async fn look(
    State(store): State<ApiKeyStore>,
    Path(token): Path<String>,
) -> Result<Response, Refused> {
    let grant = store.grant_of(&read(&token)?).await?;
    let grant = grant.ok_or(Refused(StatusCode::NOT_FOUND))?;
    let text = json!({
        "name": grant.name,
        "user_id": grant.user_id,
        "key_id": grant.key_id.map(|id| id.to_string()),
    });
    Ok(secret(StatusCode::OK, text))
}

async fn claim(
    State(store): State<ApiKeyStore>,
    Path(token): Path<String>,
) -> Result<Response, Refused> {
    Ok(issued(&store.claim(&read(&token)?).await?))
}

/// A path is in logs. This one is good for a quarter of an hour, and once.
fn read(token: &str) -> Result<HandoffToken, Refused> {
    token.parse().map_err(|_| Refused(StatusCode::NOT_FOUND))
}

/// A caller replaces the key of the request, and no other.
async fn rotate(State(store): State<ApiKeyStore>, auth: AuthContext) -> Result<Response, Refused> {
    Ok(issued(
        &store.rotate_as(&auth, auth.key_id(), 60 * MINUTE).await?,
    ))
}

async fn rotation(
    State(store): State<ApiKeyStore>,
    auth: AuthContext,
) -> Result<Response, Refused> {
    let rotation = store.rotation(auth.key_id()).await?;
    let rotation = rotation.ok_or(Refused(StatusCode::NOT_FOUND))?;
    let text = json!({
        "old": rotation.old.id.to_string(),
        "rotated_at": rotation.successor.map(|successor| seconds(successor.created_at)),
        // Up to a minute behind.
        "old_last_used_at": rotation.old.last_used_at.map(seconds),
    });
    Ok(Json(text).into_response())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

async fn whoami(auth: AuthContext) -> String {
    format!("{} of {}", auth.name().unwrap_or_default(), auth.user_id())
}

fn issued(issued: &IssuedKey) -> Response {
    let text = json!({ "id": issued.key().id.to_string(), "token": issued.token().expose() });
    secret(StatusCode::CREATED, text)
}

/// No cache on the way may keep it.
fn secret(status: StatusCode, body: serde_json::Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// What a caller is told when nothing comes of it.
struct Refused(StatusCode);

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self(match error {
            StoreError::NotHeld(_) => StatusCode::FORBIDDEN,
            StoreError::NotClaimable(_) => StatusCode::GONE,
            StoreError::InvalidKey(_) => StatusCode::BAD_REQUEST,
            StoreError::Rotation { .. } | StoreError::Conflict(_) => StatusCode::CONFLICT,
            StoreError::UserGrantsFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            // Another backend than this one may not have it.
            StoreError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        })
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, [(CACHE_CONTROL, "no-store")]).into_response()
    }
}
