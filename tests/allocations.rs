//! What a request costs in allocations.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use std::{
    convert::Infallible,
    future::{self, Ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::{AllocationInfo, measure};
use http::{Request, Response};
use tower::{Layer, Service, util::MapRequestLayer};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, Brand, KeyResolver, NewApiKey, Pepper,
    Peppers, RequireScope, Scopes, VerifyError,
};

/// Knows one key by heart.
struct InMemory {
    token: ApiKeyToken,
    auth: AuthContext,
}

impl KeyResolver for InMemory {
    async fn resolve(&self, _: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        unreachable!("every answer can be given at once")
    }

    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        let known = token.expose() == self.token.expose();
        Some(
            known
                .then(|| self.auth.clone())
                .ok_or(VerifyError::WrongSecret),
        )
    }
}

/// As large as a context, and as aligned.
type SameSize = [usize; size_of::<AuthContext>() / size_of::<usize>()];

const _: () = assert!(size_of::<SameSize>() == size_of::<AuthContext>());
const _: () = assert!(align_of::<SameSize>() == align_of::<AuthContext>());

/// Allocates nothing.
#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<bytes::Bytes>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(!request.extensions().is_empty());
        future::ready(Ok(Response::default()))
    }
}

fn auth(token: &ApiKeyToken) -> AuthContext {
    let scopes = Scopes::of(["tags:*", "notes:read", "notes:write"]).unwrap();
    AuthContext::new(token.key_id().unwrap(), "user_1", scopes).with_name("CI")
}

fn cost_of_a_request<S>(mut service: S, token: &ApiKeyToken) -> AllocationInfo
where
    S: Service<Request<()>, Response = Response<bytes::Bytes>, Error = Infallible>,
{
    let mut request = Request::new(());
    let value = format!("Bearer {}", token.expose()).parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let mut cx = Context::from_waker(Waker::noop());
    measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let response = pin!(service.call(request)).poll(&mut cx);
        assert!(matches!(response, Poll::Ready(Ok(response)) if response.status() == 200));
    })
}

/// What the insertion of one extension costs.
fn baseline(token: &ApiKeyToken) -> AllocationInfo {
    let insert = MapRequestLayer::new(|mut request: Request<()>| {
        request.extensions_mut().insert(SameSize::default());
        request
    });
    let baseline = cost_of_a_request(insert.layer(Inner), token);
    assert!(baseline.count_total > 0, "nothing is counted");
    baseline
}

#[test]
fn a_request_with_a_known_key_costs_the_insertion_of_one_extension() {
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let layer = ApiKeyLayer::new(InMemory {
        auth: auth(&token),
        token: token.clone(),
    });
    let baseline = baseline(&token);
    assert_eq!(cost_of_a_request(layer.layer(Inner), &token), baseline);
    let guarded = layer.layer(RequireScope("notes:read").layer(Inner));
    assert_eq!(cost_of_a_request(guarded, &token), baseline);
}

#[tokio::test]
async fn a_request_with_a_cached_key_of_a_store_costs_the_same() {
    let store = ApiKeyStore::in_memory();
    let layer = ApiKeyLayer::new(store.clone());
    let new = || {
        let scopes = Scopes::of(["tags:*", "notes:read", "notes:write"]).unwrap();
        NewApiKey::for_user("user_1", scopes).name("CI")
    };
    let hour = Duration::from_secs(3_600);
    for new in [new(), new().expires_in(hour)] {
        let issued = store.create(new).await.unwrap();
        let token = issued.token();
        let baseline = baseline(token);
        // Reads the key, and notes its use.
        store.verify(token.expose()).await.unwrap();
        let before = store.cache_stats();
        for _ in 0..100 {
            let guarded = RequireScope("notes:read").layer(Inner);
            assert_eq!(cost_of_a_request(layer.layer(Inner), token), baseline);
            assert_eq!(cost_of_a_request(layer.layer(guarded), token), baseline);
        }
        let after = store.cache_stats();
        assert_eq!(after.hits - before.hits, 200);
        assert_eq!(after.misses, before.misses);
    }
}

#[tokio::test]
async fn a_token_that_is_rejected_from_memory_allocates_nothing_where_nobody_listens() {
    let store = ApiKeyStore::in_memory();
    let new = NewApiKey::for_user("user_1", Scopes::none());
    let issued = store.create(new).await.unwrap();
    let token = issued.token().expose();
    let (rest, last) = token.split_at(token.len() - 1);
    let wrong: ApiKeyToken = format!("{rest}{}", if last == "A" { "B" } else { "A" })
        .parse()
        .unwrap();
    store.verify(token).await.unwrap();
    let rejected = || {
        let answer = store.resolve_now(black_box(&wrong));
        assert!(matches!(answer, Some(Err(VerifyError::WrongSecret))));
    };
    assert_eq!(measure(rejected).count_total, 0);
    let accepted = || assert!(matches!(store.resolve_now(issued.token()), Some(Ok(_))));
    assert_eq!(measure(accepted).count_total, 0);

    // Nor where somebody has listened for a while and has fallen behind: what is kept doesn't grow.
    let events = store.events();
    for _ in 0..2_000 {
        rejected();
    }
    assert_eq!(measure(rejected).count_total, 0);
    assert_eq!(measure(accepted).count_total, 0);
    drop(events);
}

#[test]
fn tokens_hashes_scopes_and_contexts_allocate_nothing() {
    let allocations = |work: &dyn Fn()| measure(work).count_total;
    assert_eq!(allocations(&|| drop(black_box(Box::new(1)))), 1);

    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let auth = auth(&token);
    let malformed = "x".repeat(65_536);
    let parse = |text: &str| {
        let parsed: Result<ApiKeyToken, _> = black_box(text).parse();
        black_box(parsed).is_ok()
    };
    assert_eq!(allocations(&|| assert!(parse(token.expose()))), 0);
    assert_eq!(allocations(&|| assert!(!parse(&malformed))), 0);

    let peppers = Peppers::new(Pepper::random("v1").unwrap());
    assert_eq!(allocations(&|| assert!(peppers.hash(&token).is_ok())), 0);

    let allows = |scope| black_box(&auth).scopes().allows(black_box(scope));
    assert_eq!(allocations(&|| assert!(allows("tags:delete"))), 0);
    assert_eq!(allocations(&|| assert!(allows("notes:write"))), 0);
    assert_eq!(allocations(&|| assert!(!allows("notes:readonly"))), 0);
    assert_eq!(allocations(&|| assert!(!allows("notes:*"))), 0);
    assert_eq!(allocations(&|| assert!(auth.has_scope("notes:read"))), 0);

    assert_eq!(allocations(&|| drop(black_box(auth.clone()))), 0);
}
