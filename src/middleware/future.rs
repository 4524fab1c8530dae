//! What a request becomes: the inner service's future, an answer, or a wait for the resolver.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{ResponseForRejection, layer::Config, service::pass_authenticated};
use crate::{context::AuthContext, resolver::KeyResolver, token::ApiKeyToken, verify::VerifyError};

pin_project! {
    /// The future of [`ApiKeyService`](super::ApiKeyService).
    pub struct ResponseFuture<S, R, F, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, R, F, ReqBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, F, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        Passed { #[pin] inner: S::Future },
        Rejected { response: Option<S::Response> },
        Resolving { waiting: Option<Box<Waiting<S, R, F, ReqBody>>> },
    }
}

/// What a request needs while the resolver is asked. In a box of its own, so that a request that
/// doesn't have to wait isn't moved around with room for it.
struct Waiting<S, R, F, ReqBody> {
    answer: Resolution,
    request: Request<ReqBody>,
    ready: S,
    config: Arc<Config<R, F>>,
}

type Resolution = Pin<Box<dyn Future<Output = Result<AuthContext, VerifyError>> + Send>>;

impl<S, R, F, ReqBody> ResponseFuture<S, R, F, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    /// The inner future comes to be where it stays: futures of routers are large, and the other two ways
    /// out are kept out of line so that this one needn't be moved.
    #[inline]
    pub(super) fn passed(inner: &mut S, request: Request<ReqBody>) -> Self {
        Self {
            state: State::Passed {
                inner: inner.call(request),
            },
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn rejected(response: S::Response) -> Self {
        Self {
            state: State::Rejected {
                response: Some(response),
            },
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn resolving(
        token: ApiKeyToken,
        request: Request<ReqBody>,
        ready: S,
        config: Arc<Config<R, F>>,
    ) -> Self
    where
        R: KeyResolver,
        F: Send + Sync + 'static,
    {
        let asked = config.clone();
        let waiting = Waiting {
            answer: Box::pin(async move { asked.resolve(&token).await }),
            request,
            ready,
            config,
        };
        Self {
            state: State::Resolving {
                waiting: Some(Box::new(waiting)),
            },
        }
    }
}

impl<S, R, F, ReqBody, ResBody> Future for ResponseFuture<S, R, F, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: KeyResolver,
    F: ResponseForRejection<ResBody> + Send + Sync + 'static,
    ResBody: 'static,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Passed { inner } => return inner.poll(cx),
                StateProj::Rejected { response } => {
                    let response = response.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(response));
                }
                StateProj::Resolving { waiting } => {
                    let mut asked = waiting.take().expect("polled after it was ready");
                    match asked.answer.as_mut().poll(cx) {
                        Poll::Pending => {
                            *waiting = Some(asked);
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(context)) => {
                            let mut asked = *asked;
                            pass_authenticated(&mut asked.request, context, asked.config.answers());
                            State::Passed {
                                inner: asked.ready.call(asked.request),
                            }
                        }
                        Poll::Ready(Err(error)) => State::Rejected {
                            response: Some(asked.config.answers().reject(error.into())),
                        },
                    }
                }
            };
            state.set(next);
        }
    }
}

impl<S, R, F, ReqBody> fmt::Debug for ResponseFuture<S, R, F, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Passed { .. } => "Passed",
            State::Rejected { .. } => "Rejected",
            State::Resolving { .. } => "Resolving",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
