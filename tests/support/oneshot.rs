//! Requests to an axum router without a server in between, and handlers that tell who reached them.

use axum::{
    Router,
    body::{Body, to_bytes},
};
use http::{HeaderMap, Request, StatusCode, header::WWW_AUTHENTICATE};
use tower::ServiceExt;
use tower_api_key::AuthContext;

pub const REACHED: &str = "the handler was reached";

pub async fn handler() -> &'static str {
    REACHED
}

pub async fn who(auth: Option<AuthContext>) -> String {
    auth.map_or("nobody".to_owned(), |auth| auth.user_id().to_owned())
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn challenge(&self) -> &str {
        let challenge = self.headers.get(WWW_AUTHENTICATE);
        challenge.map_or("none", |challenge| challenge.to_str().unwrap())
    }
}

pub fn request(method: &str, path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

pub async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.into()).unwrap(),
    }
}

pub async fn get_as(app: &Router, path: &str, token: Option<&str>) -> Answer {
    send(app, request("GET", path, token)).await
}
