//! A server whose handler answers with the caller and the credentials that it sees.

use axum::{
    Json, Router,
    http::{HeaderMap, HeaderName, StatusCode},
    routing::get,
};
use reqwest::{Client, header::HeaderValue};
use serde_json::{Value, json};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext, CredentialHeader, RequireScope};

use super::{Server, USER};

/// What the handler sees: the caller, and of each header its text and whether logs hide it.
async fn seen(auth: Option<AuthContext>, headers: HeaderMap) -> Json<Value> {
    let header = |name: &str| {
        let value = headers.get(name)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        let hidden = |value: &HeaderValue| value.is_sensitive();
        Some(json!([text, headers.get_all(name).iter().all(hidden)]))
    };
    Json(json!({
        "user": auth.map(|auth| auth.user_id().to_owned()),
        "authorization": header("authorization"),
        "x-api-key": header("x-api-key"),
    }))
}

pub async fn serve(layer: ApiKeyLayer<ApiKeyStore>) -> Server {
    let app = Router::new()
        .route("/", get(seen))
        .route("/whoami", get(async |_: AuthContext| {}))
        .route(
            "/guarded",
            get(async || {}).route_layer(RequireScope("notes:read")),
        );
    Server::start(app.layer(layer)).await
}

pub fn named(name: &'static str) -> CredentialHeader {
    CredentialHeader::named(HeaderName::from_static(name))
}

/// The headers of a request.
pub type Fields<'a> = &'a [(&'a str, &'a [u8])];

/// The status and the JSON of the answer.
pub async fn ask(client: &Client, url: &str, headers: Fields<'_>) -> (StatusCode, Value) {
    let request = headers
        .iter()
        .fold(client.get(url), |request, (name, value)| {
            request.header(*name, HeaderValue::from_bytes(value).unwrap())
        });
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// What the layer makes of the headers: `let in`, `anonymous`, or the code of a rejection.
pub async fn outcome(client: &Client, url: &str, headers: Fields<'_>) -> String {
    let (status, body) = ask(client, url, headers).await;
    let text = match (status.as_u16(), &body["user"]) {
        (200, Value::Null) => "anonymous",
        (200, user) if user == USER => "let in",
        (400 | 401, _) => body["code"].as_str().unwrap(),
        _ => panic!("{status} {body}"),
    };
    text.to_owned()
}
