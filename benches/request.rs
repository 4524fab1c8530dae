//! What the layer adds to one request, against an axum router without it: `cargo bench --bench request`.
//!
//! Each round times a batch of requests through every variant in turn, so that what slows the
//! machine down slows all of them. Ratios are taken within a round, and the median of the rounds is
//! shown. There is no socket: the router is called in the process, on one thread.

use std::{
    collections::HashMap,
    env,
    error::Error,
    hint::black_box,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hmac::{Hmac, KeyInit, Mac};
use http::{StatusCode, header::AUTHORIZATION};
use sha2::Sha256;
use tokio::runtime;
use tower::{
    Service, ServiceExt,
    layer::{layer_fn, util::Identity},
};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, KeyResolver, NewApiKey, Scopes, VerifyError,
};

const ROUNDS: usize = 3_000;
const BATCH: u32 = 100;
/// How many of the variants, the first ones, ask for no key.
const OPEN: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes it. Test runners, which only ask what there is, don't.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let store = ApiKeyStore::in_memory();
        let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?).name("CI");
        let token = store.create(new).await?.token().clone();
        // As `axum::serve` does for each connection: without it, layers are built per request.
        let variants = variants(store, &token).map(|(name, app)| (name, app.with_state(())));
        for (at, (name, app)) in variants.iter().enumerate() {
            let keyed = app.clone().oneshot(request(&token)?).await?.status();
            assert_eq!(keyed, StatusCode::OK, "{name}");
            let bare = app
                .clone()
                .oneshot(Request::new(Body::empty()))
                .await?
                .status();
            assert_eq!(bare == StatusCode::UNAUTHORIZED, at >= OPEN, "{name}");
        }
        let rounds = measure(&variants, &token).await?;
        report(&variants, &rounds)?;
        Ok(())
    })
}

type Variant = (&'static str, Router);

fn variants(store: ApiKeyStore, token: &ApiKeyToken) -> [Variant; 6] {
    let router = || Router::new().route("/", get(async || "ok"));
    let at_hand = AtHand {
        token: token.clone(),
        caller: AuthContext::new(token.key_id(), "user_1", Scopes::none()),
    };
    let by_hand = middleware::from_fn_with_state(ByHand::with(token), by_hand);
    [
        ("bare router", router()),
        ("identity layer", router().route_layer(Identity::new())),
        (
            "header to extension",
            router().route_layer(layer_fn(|inner| HeaderToExtension { inner })),
        ),
        (
            "ApiKeyLayer alone",
            router().route_layer(ApiKeyLayer::new(at_hand)),
        ),
        (
            "ApiKeyLayer, store in memory",
            router().route_layer(ApiKeyLayer::new(store)),
        ),
        ("from_fn, written by hand", router().route_layer(by_hand)),
    ]
}

/// For each round, how long a batch took through each variant.
async fn measure(
    variants: &[Variant],
    token: &ApiKeyToken,
) -> Result<Vec<Vec<Duration>>, Box<dyn Error>> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let mut took = vec![Duration::ZERO; variants.len()];
        for turn in 0..variants.len() {
            // Nobody always comes after the same other.
            let at = (round + turn) % variants.len();
            let batch: Result<Vec<_>, _> = (0..BATCH).map(|_| request(token)).collect();
            let batch = batch?;
            let app = &variants[at].1;
            let start = Instant::now();
            for request in batch {
                black_box(app.clone().oneshot(request).await?);
            }
            took[at] = start.elapsed();
        }
        rounds.push(took);
    }
    Ok(rounds)
}

fn request(token: &ApiKeyToken) -> Result<Request, http::Error> {
    Request::get("/")
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()))
        .body(Body::empty())
}

fn report(variants: &[Variant], rounds: &[Vec<Duration>]) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{ROUNDS} rounds of {BATCH} requests each; medians")?;
    writeln!(out, "{:<30} {:>10} {:>8}", "", "ns/request", "ratio")?;
    for (at, (name, _)) in variants.iter().enumerate() {
        let nanos = rounds.iter().map(|took| took[at].as_secs_f64() * 1e9);
        let nanos = median(nanos) / f64::from(BATCH);
        let ratio = median(rounds.iter().map(|took| took[at].div_duration_f64(took[0])));
        writeln!(out, "{name:<30} {nanos:>10.0} {ratio:>8.2}")?;
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
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

/// What an application has that checks keys itself: records under a lock, by key id.
#[derive(Clone)]
struct ByHand(Arc<Mutex<HashMap<String, Record>>>);

#[derive(Clone)]
struct Record {
    hash: Vec<u8>,
    user_id: String,
}

#[derive(Clone)]
struct CurrentUser(#[expect(dead_code, reason = "a handler would read it")] String);

impl ByHand {
    fn with(token: &ApiKeyToken) -> Self {
        let (id, secret) = parts(token.expose()).unwrap_or_default();
        let record = Record {
            hash: keyed(secret).finalize().into_bytes().to_vec(),
            user_id: "user_1".to_owned(),
        };
        Self(Arc::new(Mutex::new(HashMap::from([(
            id.to_owned(),
            record,
        )]))))
    }

    fn user_of(&self, token: &str) -> Option<CurrentUser> {
        let (id, secret) = parts(token)?;
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(id).cloned()?;
        drop(records);
        keyed(secret).verify_slice(&record.hash).ok()?;
        Some(CurrentUser(record.user_id))
    }
}

async fn by_hand(State(keys): State<ByHand>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION);
    let user = header
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .and_then(|token| keys.user_of(token));
    match user {
        Some(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// Id and secret of a token.
fn parts(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix("pk.")?.split_once('.')
}

/// HMAC-SHA256 of a secret, keyed anew as it is in code that keeps the pepper as bytes.
fn keyed(secret: &str) -> Hmac<Sha256> {
    const PEPPER: &[u8] = b"32 bytes of a pepper for a bench";
    let mut mac = Hmac::new_from_slice(PEPPER).expect("HMAC takes keys of any length");
    mac.update(secret.as_bytes());
    mac
}
