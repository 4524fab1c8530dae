//! The service: what happens to one request.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    ResponseForRejection,
    answers::{Anonymous, Answers, handle},
    credentials::Presented,
    future::ResponseFuture,
    layer::Config,
};
use crate::{context::AuthContext, resolver::KeyResolver, token::ApiKeyToken};

/// A service behind an [`ApiKeyLayer`](super::ApiKeyLayer).
pub struct ApiKeyService<S, R, F> {
    inner: S,
    config: Arc<Config<R, F>>,
}

impl<S, R, F> ApiKeyService<S, R, F> {
    pub(super) fn new(inner: S, config: Arc<Config<R, F>>) -> Self {
        Self { inner, config }
    }

    /// The service behind the layer.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service behind the layer.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R, F, ReqBody, ResBody> Service<Request<ReqBody>> for ApiKeyService<S, R, F>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    R: KeyResolver,
    F: ResponseForRejection<ResBody> + Send + Sync + 'static,
    ResBody: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R, F, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let mut token = ApiKeyToken::unread();
        let headers = request.headers_mut();
        match self.config.read_credentials(headers, &mut token) {
            Ok(Presented::Token(header)) => self.config.strip(headers, header),
            Ok(Presented::Foreign | Presented::Nothing) => {
                pass_anonymous(&mut request, self.config.answers());
                return ResponseFuture::passed(&mut self.inner, request);
            }
            Err(reason) => return ResponseFuture::rejected(self.config.answers().reject(reason)),
        }
        match self.config.resolve_now(&token) {
            Some(Ok(context)) => {
                pass_authenticated(&mut request, context, self.config.answers());
                ResponseFuture::passed(&mut self.inner, request)
            }
            Some(Err(error)) => {
                ResponseFuture::rejected(self.config.answers().reject(error.into()))
            }
            None => {
                // `inner` was polled ready and its copy wasn't: the ready one is called.
                let copy = self.inner.clone();
                let ready = mem::replace(&mut self.inner, copy);
                ResponseFuture::resolving(token, request, ready, self.config.clone())
            }
        }
    }
}

/// Replaces whatever context was there before.
pub(super) fn pass_authenticated<F, ReqBody, ResBody>(
    request: &mut Request<ReqBody>,
    context: AuthContext,
    answers: &Arc<Answers<F>>,
) where
    F: ResponseForRejection<ResBody> + Send + Sync + 'static,
    ResBody: 'static,
{
    let context = context.with_layer(handle(answers));
    request.extensions_mut().insert(context);
}

fn pass_anonymous<F, ReqBody, ResBody>(request: &mut Request<ReqBody>, answers: &Arc<Answers<F>>)
where
    F: ResponseForRejection<ResBody> + Send + Sync + 'static,
    ResBody: 'static,
{
    let extensions = request.extensions_mut();
    extensions.remove::<AuthContext>();
    extensions.insert(Anonymous(handle(answers)));
}

impl<S: Clone, R, F> Clone for ApiKeyService<S, R, F> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.config.clone())
    }
}

impl<S: fmt::Debug, R, F> fmt::Debug for ApiKeyService<S, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
