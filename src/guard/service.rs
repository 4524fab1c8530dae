//! The service behind a `RequireScope` layer, and its future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::decide::Requirement;

/// A service behind a [`RequireScope`](struct@super::RequireScope) layer.
#[derive(Debug, Clone)]
pub struct RequireScopeService<S> {
    inner: S,
    requirement: Requirement,
}

impl<S> RequireScopeService<S> {
    pub(super) fn new(inner: S, requirement: Requirement) -> Self {
        Self { inner, requirement }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireScopeService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequireScopeFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let state = match self.requirement.check(request.extensions()) {
            Ok(()) => State::Passed {
                inner: self.inner.call(request),
            },
            Err(denied) => State::Denied {
                response: Some(denied.into_response(request.headers())),
            },
        };
        RequireScopeFuture { state }
    }
}

pin_project! {
    /// The future of [`RequireScopeService`].
    pub struct RequireScopeFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Passed { #[pin] inner: F },
        Denied { response: Option<Response<B>> },
    }
}

impl<F, B, E> Future for RequireScopeFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Passed { inner } => inner.poll(cx),
            StateProj::Denied { response } => {
                let response = response.take().expect("polled after it was ready");
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl<F, B> fmt::Debug for RequireScopeFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireScopeFuture").finish_non_exhaustive()
    }
}
