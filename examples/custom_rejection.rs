//! Rejections in one's own words: a closure answers for an API, a type for pages that people see.
//!
//! `cargo run --example custom_rejection` prints a token that may read and not write. `ADDR` names
//! another address. Then:
//!
//! ```sh
//! curl -i http://127.0.0.1:3000/api/notes                   # 401, {"error":{"code":…,"message":…}}
//! curl -i http://127.0.0.1:3000/pages/notes                 # 401, text/html
//! curl -i -X POST http://127.0.0.1:3000/api/notes -H "Authorization: Bearer $READER"   # 403, JSON
//! curl -i -X POST http://127.0.0.1:3000/pages/notes -H "Authorization: Bearer $READER" # 403, HTML
//! ```

#[path = "support/server.rs"]
mod server;

use std::error::Error;

use axum::{
    Json, Router,
    body::Body,
    http::header::{RETRY_AFTER, WWW_AUTHENTICATE},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, NewApiKey, Rejection, RequireScope, ResponseForRejection, Scopes,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = server::listen().await?;
    let store = ApiKeyStore::in_memory();
    let reader = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?);
    println!("reader: {}", store.create(reader).await?.token().expose());

    let keys = ApiKeyLayer::new(store).realm("notes");
    // The type of the argument has to be written out.
    let api = notes().route_layer(
        keys.clone()
            .rejection_response(|rejection: Rejection| error_json(&rejection)),
    );
    let contact = "help@notes.example";
    let pages = notes().route_layer(keys.rejection_response(ErrorPage { contact }));
    let app = Router::new().nest("/api", api).nest("/pages", pages);

    server::serve(listener, app).await?;
    Ok(())
}

/// The guards in here answer as the layer that is put around them does.
fn notes() -> Router {
    let read = get(async || "notes\n").layer(RequireScope("notes:read"));
    let write = axum::routing::post(async || "written\n").layer(RequireScope("notes:write"));
    Router::new().route("/notes", read.merge(write))
}

fn error_json(rejection: &Rejection) -> Response {
    let mut error = json!({ "code": rejection.code(), "message": rejection.detail() });
    if let Some(scope) = rejection.required_scope() {
        error["needs"] = scope.into();
    }
    with_headers(rejection, Json(json!({ "error": error })))
}

struct ErrorPage {
    contact: &'static str,
}

impl ResponseForRejection<Body> for ErrorPage {
    fn response_for_rejection(&self, rejection: Rejection) -> Response {
        let (status, contact) = (rejection.status(), self.contact);
        // Neither the status nor the detail has text from the request in it.
        let page = format!("<h1>{status}</h1><p>{rejection}</p><p>Questions? {contact}</p>\n");
        with_headers(&rejection, Html(page))
    }
}

/// What every rejection needs, whatever its body: the status; the challenge, without which a 401
/// says nothing (RFC 9110 §15.5.2); and when to try again, if that may help.
fn with_headers(rejection: &Rejection, body: impl IntoResponse) -> Response {
    let challenge = rejection
        .challenge()
        .map(|value| [(WWW_AUTHENTICATE, value)]);
    let retry_after = rejection.retry_after().map(|value| [(RETRY_AFTER, value)]);
    (rejection.status(), challenge, retry_after, body).into_response()
}
