//! A `KeyResolver` of one's own: tokens that an identity service checks.
//!
//! The service answers token introspection as RFC 7662 has it: `POST` the token, and be told
//! `{"active":true,"sub":"user_1","scope":"notes:read"}` or `{"active":false}`. A small one runs
//! inside this program, on a port of its own, asked over HTTP like any other.
//!
//! `cargo run --example custom_resolver` prints its address and a token that it knows. `ADDR` names
//! another address to serve on; `INTROSPECTION_URL` asks a service of yours instead. Then:
//!
//! ```sh
//! curl -i http://127.0.0.1:3000/notes -H "Authorization: Bearer $READER"             # 200
//! curl -i http://127.0.0.1:3000/notes -H "Authorization: Bearer ${READER%????}AAAA"  # 401
//! INTROSPECTION_URL=http://127.0.0.1:9 cargo run --example custom_resolver # nobody there: 503
//! ```

#[path = "support/server.rs"]
mod server;

use std::{env, error::Error, time::Duration};

use axum::{
    Form, Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, BackendError, KeyResolver, NewApiKey,
    RequireScope, Scopes, VerifyError,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = server::listen().await?;
    let url = match env::var("INTROSPECTION_URL") {
        Ok(url) => url,
        Err(_) => start_identity_service().await?,
    };
    println!("identity service: {url}");
    let app = Router::new()
        .route("/notes", get(notes))
        .route_layer(RequireScope("notes:read"))
        .route_layer(ApiKeyLayer::new(Introspection::at(&url)?));
    server::serve(listener, app).await?;
    Ok(())
}

async fn notes(auth: AuthContext) -> String {
    format!("the notes of {}\n", auth.user_id())
}

/// Asks an identity service about each token.
///
/// [`KeyResolver::resolve_now`] keeps its default, "can't say without waiting", since nothing is
/// remembered here. A resolver that remembers gives known answers there, and owes an answer to two
/// questions: after how long a revoked token still works, and how the secret is compared.
struct Introspection {
    client: Client,
    url: Url,
}

/// What the service says (RFC 7662 §2.2).
#[derive(serde::Deserialize)]
struct Answer {
    active: bool,
    sub: Option<String>,
    scope: Option<String>,
}

impl Introspection {
    fn at(url: &str) -> Result<Self, Box<dyn Error>> {
        // Tokens go to the service itself, not through a proxy or to where a redirect leads; and a
        // service that hangs doesn't hang the requests.
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(Duration::from_secs(1))
            .build()?;
        let url = url.parse()?;
        Ok(Self { client, url })
    }

    async fn ask(&self, token: &ApiKeyToken) -> reqwest::Result<Answer> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            // Nothing in a token has to be escaped in a form.
            .body(format!("token={}", token.expose()));
        request.send().await?.error_for_status()?.json().await
    }
}

impl KeyResolver for Introspection {
    async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        // No answer, a refusal, or nonsense: the token may be good all the same, so it is 503.
        let answer = self.ask(token).await.map_err(BackendError::unavailable)?;
        if !answer.active {
            return Err(VerifyError::Unknown);
        }
        let user = answer
            .sub
            .ok_or_else(|| BackendError::corrupt("an active token without a subject"))?;
        let scopes = Scopes::of(answer.scope.unwrap_or_default().split_ascii_whitespace())
            .map_err(BackendError::corrupt)?;
        // The tokens of the default format have one.
        let id = token.key_id().ok_or(VerifyError::Unknown)?;
        Ok(AuthContext::new(id, user, scopes))
    }
}

/// Stands for a service that runs elsewhere. Returns where it answers.
async fn start_identity_service() -> Result<String, Box<dyn Error>> {
    let store = ApiKeyStore::in_memory();
    let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?);
    println!("reader: {}", store.create(new).await?.token().expose());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/introspect", listener.local_addr()?);
    let service = Router::new()
        .route("/introspect", post(introspect))
        .with_state(store);
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(url)
}

#[derive(serde::Deserialize)]
struct Question {
    token: String,
}

/// A real one asks who is asking, too (RFC 7662 §2.1).
async fn introspect(
    State(store): State<ApiKeyStore>,
    Form(question): Form<Question>,
) -> Result<Json<Value>, StatusCode> {
    match store.verify(question.token).await {
        Ok(auth) => Ok(Json(json!({
            "active": true,
            "sub": auth.user_id(),
            "scope": auth.scopes().to_string(),
        }))),
        Err(VerifyError::Unavailable(_)) => Err(StatusCode::SERVICE_UNAVAILABLE),
        Err(_) => Ok(Json(json!({ "active": false }))),
    }
}
