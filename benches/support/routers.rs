//! One router, bare and under each of the layers that are compared.

use std::task::{Context, Poll};

use axum::{Router, body::Body, extract::Request, middleware, routing::get};
use http::{HeaderValue, StatusCode, header::AUTHORIZATION};
use tower::{
    Service, ServiceExt,
    layer::{layer_fn, util::Identity},
};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, KeyResolver, NewApiKey, Scopes, VerifyError,
};

use super::{
    Outcome,
    by_hand::{self, ByHand},
};

pub struct Variant {
    /// For tables.
    pub name: &'static str,
    /// For command lines.
    pub slug: &'static str,
    /// Ready for requests, as the copy that `axum::serve` has for a connection.
    pub app: Router,
}

/// All of them, and a token that all of them let in. The bare router is the first.
pub async fn variants() -> Outcome<(Vec<Variant>, ApiKeyToken)> {
    let store = ApiKeyStore::in_memory();
    let token = store.create(new_key()?).await?.token().clone();
    let at_hand = AtHand {
        token: token.clone(),
        caller: AuthContext::new(
            token.key_id().ok_or("a new token has an id")?,
            "user_1",
            Scopes::none(),
        ),
    };
    let by_hand = middleware::from_fn_with_state(ByHand::with(&token), by_hand::middleware);
    let copied = layer_fn(|inner| HeaderToExtension { inner });
    let open = [
        ("bare router", "bare", bare()),
        (
            "identity layer",
            "identity",
            bare().route_layer(Identity::new()),
        ),
        ("header to extension", "floor", bare().route_layer(copied)),
    ];
    let guarded = [
        (
            "ApiKeyLayer, caller at hand",
            "at-hand",
            bare().route_layer(ApiKeyLayer::new(at_hand)),
        ),
        (
            "ApiKeyLayer, store in memory",
            "store",
            bare().route_layer(ApiKeyLayer::new(store)),
        ),
        (
            "from_fn, written by hand",
            "by-hand",
            bare().route_layer(by_hand),
        ),
    ];
    let mut variants = Vec::new();
    for (name, slug, app) in open {
        let app = checked(name, app, &token, StatusCode::OK).await?;
        variants.push(Variant { name, slug, app });
    }
    for (name, slug, app) in guarded {
        let app = checked(name, app, &token, StatusCode::UNAUTHORIZED).await?;
        variants.push(Variant { name, slug, app });
    }
    Ok((variants, token))
}

pub fn new_key() -> Outcome<NewApiKey> {
    Ok(NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?).name("CI"))
}

/// A route that answers `ok`.
pub fn bare() -> Router {
    Router::new().route("/", get(async || "ok"))
}

/// `app` as it serves requests, if it answers those without a token by `without`, and those with
/// `token` by 200.
///
/// # Errors
///
/// Where it answers anything else: its time would say nothing.
pub async fn checked(
    name: &str,
    app: Router,
    token: &ApiKeyToken,
    without: StatusCode,
) -> Outcome<Router> {
    // As `axum::serve` does for each connection. Without it, layers are built per request.
    let app = app.with_state(());
    for (request, expected) in [
        (Request::new(Body::empty()), without),
        (request(token)?, StatusCode::OK),
    ] {
        let status = app.clone().oneshot(request).await?.status();
        if status != expected {
            return Err(format!("{name} answers {status} instead of {expected}").into());
        }
    }
    Ok(app)
}

pub fn request(token: &ApiKeyToken) -> Outcome<Request> {
    Ok(request_with(credentials(token)?))
}

pub fn credentials(token: &ApiKeyToken) -> Outcome<HeaderValue> {
    Ok(format!("Bearer {}", token.expose()).parse()?)
}

pub fn request_with(credentials: HeaderValue) -> Request {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(AUTHORIZATION, credentials);
    request
}

/// The least that a middleware which hands something on can do.
#[derive(Clone)]
struct HeaderToExtension<S> {
    inner: S,
}

impl<S: Service<Request>> Service<Request> for HeaderToExtension<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> S::Future {
        if let Some(value) = request.headers().get(AUTHORIZATION).cloned() {
            request.extensions_mut().insert(value);
        }
        self.inner.call(request)
    }
}

/// Knows one caller by its whole token. It computes no hash and compares in variable time, as no
/// resolver may, so that the layer alone is measured: header, parsing, context, guards' handle.
struct AtHand {
    token: ApiKeyToken,
    caller: AuthContext,
}

impl KeyResolver for AtHand {
    async fn resolve(&self, _: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        Err(VerifyError::Unknown)
    }

    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        (token.expose() == self.token.expose()).then(|| Ok(self.caller.clone()))
    }
}
