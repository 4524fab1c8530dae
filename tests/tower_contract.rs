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

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::{
    USER,
    bare::{request, whoami},
    unknown_token, with_wrong_secret,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_api_key::{
    ApiKeyLayer, ApiKeyService, ApiKeyStore, ApiKeyToken, AuthContext, KeyResolver,
    ProblemResponse, RequireScope, RequireScopeService, Scopes, VerifyError,
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
        Ok(AuthContext::new(token.key_id().unwrap(), USER, scopes))
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

/// Says that it was dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn dropping_the_response_future_drops_the_resolvers() {
    #[derive(Clone, Default)]
    struct Hanging {
        begun: Arc<AtomicBool>,
        dropped: Arc<AtomicBool>,
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
async fn a_context_that_is_kept_keeps_no_resolver_alive() {
    struct Watched {
        inner: OneToken,
        _told: OnDrop,
    }

    impl KeyResolver for Watched {
        async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
            self.inner.resolve(token).await
        }

        fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
            self.inner.resolve_now(token)
        }
    }

    /// Hands the caller out.
    async fn caller(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = Response::default();
        let caller: Option<&AuthContext> = request.extensions().get();
        response.extensions_mut().insert(caller.unwrap().clone());
        Ok(response)
    }

    let token = unknown_token();
    for at_once in [true, false] {
        let dropped = Arc::new(AtomicBool::new(false));
        let layer = ApiKeyLayer::new(Watched {
            inner: OneToken {
                token: token.clone(),
                at_once,
            },
            _told: OnDrop(dropped.clone()),
        });
        let layer = layer.realm("notes");
        let mut service = layer.layer(service_fn(caller));
        let ready = service.ready().await.unwrap();
        let response = ready.call(request(Some(&token))).await.unwrap();
        let kept: AuthContext = response.extensions().get().cloned().unwrap();

        drop(layer);
        assert!(!dropped.load(Ordering::SeqCst), "at once: {at_once}");
        drop(service);
        assert!(dropped.load(Ordering::SeqCst), "at once: {at_once}");
        // What the layer answers with is alive in it.
        let denied = kept.require_scope::<Full<Bytes>>("admin").unwrap_err();
        assert_eq!(
            denied.headers()["www-authenticate"],
            r#"Bearer realm="notes", error="insufficient_scope", scope="admin""#
        );
    }
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
