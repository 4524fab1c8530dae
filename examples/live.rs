//! A stream of events and a WebSocket that end with the key that opened them.
//!
//! `cargo run --example live` prints a key. `ADDR` names another address.
//!
//! ```sh
//! curl -N http://127.0.0.1:3000/events -H "Authorization: Bearer $KEY"          # a tick each tenth of a second
//! curl -X DELETE http://127.0.0.1:3000/key -H "Authorization: Bearer $KEY"      # and the stream ends
//! ```
//!
//! `/echo` is a WebSocket that says again what it is told: `websocat -H "Authorization: Bearer $KEY" ws://127.0.0.1:3000/echo`.

#[path = "support/server.rs"]
mod server;

use std::{convert::Infallible, error::Error, time::Duration};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code::POLICY},
    },
    http::StatusCode,
    response::{IntoResponse, Sse, sse::Event},
    routing::{any, delete, get},
};
use futures_util::stream;
use tokio::time::{interval, sleep};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext, NewApiKey, Scopes};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = server::listen().await?;
    let store = ApiKeyStore::in_memory();
    let key = NewApiKey::for_user("user_1", Scopes::none());
    println!("key: {}", store.create(key).await?.token().expose());

    let app = Router::new()
        .route("/events", get(events))
        .route("/echo", any(echo))
        .route("/key", delete(revoke))
        .route_layer(ApiKeyLayer::new(store.clone()))
        .with_state(store);
    Ok(server::serve(listener, app).await?)
}

async fn events(auth: AuthContext) -> impl IntoResponse {
    let ticks = stream::unfold(interval(Duration::from_millis(100)), async |mut ticks| {
        ticks.tick().await;
        Some((Ok::<_, Infallible>(Event::default().data("tick")), ticks))
    });
    Sse::new(auth.until_revoked(ticks))
}

async fn echo(auth: AuthContext, upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(async move |mut socket| {
        let is_revoked = tokio::select! {
            () = repeat(&mut socket) => false,
            () = auth.revoked() => true,
        };
        if is_revoked {
            let goodbye = CloseFrame {
                code: POLICY,
                reason: "the key has ended, or can't be checked".into(),
            };
            // Who doesn't take it in a while is left.
            tokio::select! {
                _ = socket.send(Message::Close(Some(goodbye))) => {}
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    })
}

async fn repeat(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let (Message::Text(_) | Message::Binary(_)) = message else {
            continue;
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Ends the key that this is asked with.
async fn revoke(auth: AuthContext, State(store): State<ApiKeyStore>) -> StatusCode {
    match store.revoke(auth.key_id()).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
