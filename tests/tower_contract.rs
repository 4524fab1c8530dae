//! The layer and its guard without axum: what tower asks of a middleware.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::{
    convert::Infallible,
    future, mem,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use axum::{Extension, Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use support::{Fixture, USER, unknown_token, with_wrong_secret};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_api_key::{
    ApiKeyLayer, ApiKeyService, ApiKeyStore, ApiKeyToken, AuthContext, KeyResolver,
    ProblemResponse, Rejection, RejectionReason, RequireScope, RequireScopeService, Scopes,
    VerifyError,
};

/// Knows one token, and says so at once or only after it was polled a second time.
#[derive(Clone)]
struct OneToken {
    token: String,
    at_once: bool,
}

impl OneToken {
    fn answer(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        if token.expose() != self.token {
            return Err(VerifyError::Unknown);
        }
        let scopes = Scopes::of(["notes:read"]).unwrap();
        Ok(AuthContext::new(token.key_id(), USER, scopes))
    }
}

impl KeyResolver for OneToken {
    async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        tokio::task::yield_now().await;
        self.answer(token)
    }

    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        self.at_once.then(|| self.answer(token))
    }
}

fn one_token(at_once: bool) -> ApiKeyLayer<OneToken> {
    let token = unknown_token();
    ApiKeyLayer::new(OneToken { token, at_once })
}

fn request<B: Default>(token: Option<&str>) -> Request<B> {
    let mut request = Request::new(B::default());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    request
}

/// Answers with the name of the caller.
async fn whoami<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let caller = request.extensions().get::<AuthContext>();
    let name = caller.map_or("nobody", AuthContext::user_id).to_owned();
    Ok(Response::new(Full::from(name)))
}

async fn text(body: Full<Bytes>) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn a_service_over_full_bytes_answers_as_axum_does_to_the_byte() {
    let fixture = Fixture::new().await;
    let keys = ApiKeyLayer::new(fixture.store.clone()).realm("notes");
    let guard = RequireScope("notes:read");
    let bare = ServiceBuilder::new()
        .layer(keys.clone())
        .layer(guard.clone())
        .service(service_fn(whoami::<Full<Bytes>>));
    let axum = Router::new()
        .route(
            "/",
            get(async |Extension(auth): Extension<AuthContext>| auth.user_id().to_owned()),
        )
        .route_layer(guard)
        .route_layer(keys);

    let reader = fixture.token(&["notes:read"]).await;
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    let table = [
        (bearer(&reader), 200, USER),
        (
            bearer(&fixture.token(&["notes:write"]).await),
            403,
            "insufficient_scope",
        ),
        (vec![], 401, "missing_credentials"),
        (
            vec!["Basic dXNlcjpwYXNz".to_owned()],
            401,
            "missing_credentials",
        ),
        (bearer("pk.key_short.secret"), 401, "invalid_token"),
        (bearer(&unknown_token()), 401, "invalid_token"),
        (bearer(&with_wrong_secret(&reader)), 401, "invalid_token"),
        (bearer(&fixture.expired_token().await), 401, "expired"),
        (bearer(&fixture.revoked_token().await), 401, "revoked"),
        (bearer(&fixture.disabled_token().await), 401, "disabled"),
        (bearer(""), 400, "invalid_request"),
        (
            [bearer(&reader), bearer(&reader)].concat(),
            400,
            "invalid_request",
        ),
        (bearer(&reader), 503, "unavailable"),
    ];
    for (headers, status, said) in table {
        fixture.backend.set_broken(status == 503);
        let mut to_bare = request::<Full<Bytes>>(None);
        let mut to_axum = request::<Body>(None);
        for header in headers {
            to_bare
                .headers_mut()
                .append("authorization", header.parse().unwrap());
            to_axum
                .headers_mut()
                .append("authorization", header.parse().unwrap());
        }
        let (bare_head, bare_body) = bare.clone().oneshot(to_bare).await.unwrap().into_parts();
        let (mut axum_head, axum_body) = axum.clone().oneshot(to_axum).await.unwrap().into_parts();

        assert_eq!(bare_head.status, status, "{said}");
        assert_eq!(axum_head.status, status, "{said}");
        let body = text(bare_body).await;
        assert!(body.contains(said), "{said}: {body}");
        assert_eq!(
            body,
            axum_body.collect().await.unwrap().to_bytes(),
            "{said}"
        );
        if status != 200 {
            // axum adds the length itself; servers do for the other.
            axum_head.headers.remove(CONTENT_LENGTH);
            assert_eq!(bare_head.headers, axum_head.headers, "{said}");
        }
    }
}

#[tokio::test]
async fn the_service_is_cloned_once_on_a_miss_and_never_otherwise() {
    struct Counted(Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::SeqCst);
            Self(self.0.clone())
        }
    }

    impl Service<Request<()>> for Counted {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            future::ready(Ok(Response::default()))
        }
    }

    let known = unknown_token();
    let wrong = with_wrong_secret(&known);
    let table = [
        (true, Some(&*known), 200, 0),
        (true, Some(&*wrong), 401, 0),
        (false, Some(&*known), 200, 1),
        (false, Some("malformed"), 401, 0),
        (false, Some(""), 400, 0),
        (false, None, 401, 0),
    ];
    for (at_once, token, status, expected) in table {
        let clones = Arc::new(AtomicUsize::new(0));
        let mut service = ServiceBuilder::new()
            .layer(one_token(at_once))
            .layer(RequireScope("notes:read"))
            .service(Counted(clones.clone()));
        for round in 1..=3 {
            let ready = service.ready().await.unwrap();
            let response = ready.call(request(token)).await.unwrap();
            assert_eq!(response.status(), status, "{token:?}");
            let clones = clones.load(Ordering::SeqCst);
            assert_eq!(clones, expected * round, "{token:?}, at once: {at_once}");
        }
    }
}

#[tokio::test]
async fn the_instance_that_is_called_is_the_one_that_was_ready() {
    /// Is ready for one call each time that it is polled ready; a copy has to be polled itself.
    #[derive(Default)]
    struct ReadyOnce {
        ready: bool,
    }

    impl Clone for ReadyOnce {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    impl Service<Request<()>> for ReadyOnce {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            assert!(
                !mem::replace(&mut self.ready, true),
                "a call was promised and not made"
            );
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(mem::take(&mut self.ready), "called without being ready");
            future::ready(Ok(Response::default()))
        }
    }

    let token = unknown_token();
    for at_once in [true, false] {
        let mut service = ServiceBuilder::new()
            .layer(one_token(at_once).optional())
            .service(ReadyOnce::default());
        let mut guarded = ServiceBuilder::new()
            .layer(one_token(at_once))
            .layer(RequireScope("notes:read"))
            .service(ReadyOnce::default());
        for token in [Some(&*token), None, Some(&*token), Some(&*token)] {
            let ready = service.ready().await.unwrap();
            assert_eq!(ready.call(request(token)).await.unwrap().status(), 200);
        }
        for _ in 0..3 {
            let ready = guarded.ready().await.unwrap();
            let response = ready.call(request(Some(&token))).await.unwrap();
            assert_eq!(response.status(), 200);
        }
    }
}

/// Is busy, then ready, then broken; each call fails.
#[derive(Clone, Default)]
struct Moody {
    polled: usize,
}

#[derive(Debug, PartialEq)]
enum Mood {
    Broken,
    Failed,
}

impl<B> Service<Request<B>> for Moody {
    type Response = Response<Full<Bytes>>;
    type Error = Mood;
    type Future = future::Ready<Result<Self::Response, Mood>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Mood>> {
        self.polled += 1;
        match self.polled {
            1 => Poll::Pending,
            2 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(Mood::Broken)),
        }
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        future::ready(Err(Mood::Failed))
    }
}

#[tokio::test]
async fn readiness_and_errors_are_the_inner_services_own() {
    for at_once in [true, false] {
        let mut service = ServiceBuilder::new()
            .layer(one_token(at_once))
            .layer(RequireScope("notes:read"))
            .service(Moody::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut ready = || Service::<Request<()>>::poll_ready(&mut service, &mut cx);
        assert_eq!(ready(), Poll::Pending);
        assert_eq!(ready(), Poll::Ready(Ok(())));
        assert_eq!(ready(), Poll::Ready(Err(Mood::Broken)));

        let answer = service.call(request::<()>(Some(&unknown_token()))).await;
        assert_eq!(answer.unwrap_err(), Mood::Failed, "at once: {at_once}");
    }
}

#[tokio::test]
async fn dropping_the_response_future_drops_the_resolvers() {
    #[derive(Clone, Default)]
    struct Hanging {
        begun: Arc<AtomicBool>,
        dropped: Arc<AtomicBool>,
    }

    struct OnDrop(Arc<AtomicBool>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl KeyResolver for Hanging {
        async fn resolve(&self, _: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
            let _told = OnDrop(self.dropped.clone());
            self.begun.store(true, Ordering::SeqCst);
            future::pending().await
        }
    }

    let resolver = Hanging::default();
    let mut service = ServiceBuilder::new()
        .layer(ApiKeyLayer::new(resolver.clone()))
        .service(service_fn(whoami::<()>));
    let ready = service.ready().await.unwrap();
    let mut response = Box::pin(ready.call(request(Some(&unknown_token()))));
    let polled = response
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    assert!(resolver.begun.load(Ordering::SeqCst));
    assert!(!resolver.dropped.load(Ordering::SeqCst));
    drop(response);
    assert!(resolver.dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn futures_are_send_and_static_and_bodies_need_not_be() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn spawnable<T: Send + 'static>(value: T) -> T {
        value
    }

    shared::<ApiKeyLayer<ApiKeyStore>>();
    shared::<ApiKeyService<Moody, ApiKeyStore, ProblemResponse>>();
    shared::<RequireScope>();
    shared::<RequireScopeService<Moody>>();
    let mut service = ServiceBuilder::new()
        .layer(one_token(false))
        .layer(RequireScope("notes:read"))
        .service(Moody::default());
    let token = unknown_token();
    let future = spawnable(service.call(request::<Full<Bytes>>(Some(&token))));
    assert_eq!(
        tokio::spawn(future).await.unwrap().unwrap_err(),
        Mood::Failed
    );

    let local = service.call(request::<Rc<str>>(Some(&token)));
    assert_eq!(local.await.unwrap_err(), Mood::Failed);
}

#[tokio::test]
async fn a_guard_without_a_layer_answers_500_to_whatever_is_sent() {
    let service = ServiceBuilder::new()
        .layer(RequireScope("notes:read"))
        .service(service_fn(whoami::<Full<Bytes>>));
    let token = Fixture::new().await.token(&["notes:read"]).await;
    for token in [None, Some(&*token)] {
        let response = service.clone().oneshot(request(token)).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!response.headers().contains_key("www-authenticate"));
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert!(matches!(rejection.reason(), RejectionReason::Misconfigured));
        assert_ne!(text(response.into_body()).await, "nobody");
    }
}

#[tokio::test]
async fn a_guard_behind_a_layer_that_maps_bodies_answers_with_an_empty_one() {
    let fixture = Fixture::new().await;
    let service = ServiceBuilder::new()
        .layer(
            ApiKeyLayer::new(fixture.store.clone())
                .realm("notes")
                .optional(),
        )
        .map_response(|response: Response<Full<Bytes>>| response.map(Body::new))
        .layer(RequireScope("notes:read"))
        .service(service_fn(whoami::<()>));
    let lacking = fixture.token(&[]).await;
    let enough = fixture.token(&["notes:read"]).await;
    let insufficient = r#"Bearer realm="notes", error="insufficient_scope", scope="notes:read""#;
    for (token, status, challenge, body) in [
        (None, 401, Some(r#"Bearer realm="notes""#), ""),
        (Some(&lacking), 403, Some(insufficient), ""),
        (Some(&enough), 200, None, USER),
    ] {
        let request = request(token.map(String::as_str));
        let (head, sent) = service.clone().oneshot(request).await.unwrap().into_parts();
        assert_eq!(head.status, status);
        let said = head.headers.get("www-authenticate");
        assert_eq!(said.map(|said| said.to_str().unwrap()), challenge);
        assert!(!head.headers.contains_key("content-type"));
        assert_eq!(sent.collect().await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn a_bare_hyper_server_is_guarded_over_http1_and_http2() {
    let fixture = Fixture::new().await;
    let service = ServiceBuilder::new()
        .layer(ApiKeyLayer::new(fixture.store.clone()))
        .layer(RequireScope("notes:read"))
        .service(service_fn(whoami::<hyper::body::Incoming>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // An error is a client that went away.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });

    let reader = fixture.token(&["notes:read"]).await;
    let writer = fixture.token(&["notes:write"]).await;
    for client in [support::http1(), support::http2()] {
        for (token, status, said) in [
            (None, 401, r#""code":"missing_credentials""#),
            (Some(unknown_token()), 401, r#""code":"invalid_token""#),
            (Some(writer.clone()), 403, r#""scope":"notes:read""#),
            (Some(reader.clone()), 200, USER),
        ] {
            let mut request = client.get(&url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status);
            let challenged = response.headers().contains_key("www-authenticate");
            assert_eq!(challenged, status != 200);
            assert!(response.text().await.unwrap().contains(said), "{said}");
        }
    }
    server.abort();
}
