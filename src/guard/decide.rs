//! The decision that all guards share, and the answer where it is no.

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Response, header::CONTENT_TYPE};

use crate::{
    context::{AuthContext, LayerHandle},
    middleware::{
        Anonymous, GrpcResponse, ProblemResponse, Rejection, RejectionReason, ResponseForRejection,
        forget_body, mark, reject_like_the_layer,
    },
    scope::{Scope, is_plain},
    trace,
};

/// How many of several scopes are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Any one.
    Any,
    /// Every one.
    All,
}

/// The scopes that a guard asks for, each of them plain.
#[derive(Debug, Clone)]
pub(super) struct Requirement {
    pub(super) needed: Needed,
    pub(super) scopes: ScopesToHold,
}

#[derive(Debug, Clone)]
pub(super) enum ScopesToHold {
    Shared(Arc<[Scope]>),
    Static(&'static [&'static str]),
}

impl Requirement {
    /// Whether the caller of the request meets it.
    pub(super) fn check(&self, extensions: &Extensions) -> Result<(), Denied> {
        match &self.scopes {
            ScopesToHold::Shared(scopes) => authorize(extensions, self.needed, scopes),
            ScopesToHold::Static(scopes) => authorize(extensions, self.needed, scopes),
        }
    }
}

impl AuthContext {
    /// Goes on if the key may do what asks for `scope`: for scopes that only the handler knows.
    ///
    /// A text that isn't one plain scope is refused to everybody, and not named in the answer.
    ///
    /// ```
    /// use axum::{extract::Path, response::Response};
    /// use tower_api_key::AuthContext;
    ///
    /// async fn project(auth: AuthContext, Path(id): Path<u32>) -> Result<String, Response> {
    ///     auth.require_scope(&format!("project:{id}"))?;
    ///     Ok(format!("project {id}"))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The 403 that the layer answers where a scope is missing.
    pub fn require_scope<B>(&self, scope: &str) -> Result<(), Response<B>>
    where
        B: Default + 'static,
    {
        if self.has_scope(scope) {
            return Ok(());
        }
        // A text that is no scope would read as something else in the answer, "a b" as two scopes.
        let named = is_plain(scope).then_some(scope);
        let denied = Denied::lacking(self, Needed::All, named.as_slice());
        Err(denied.into_response(&HeaderMap::new()))
    }
}

/// A guard turned the request away.
pub(super) struct Denied {
    reason: RejectionReason,
    layer: Option<LayerHandle>,
}

/// The caller that the layer let in. `guard` is named in the log if there was no layer.
pub(super) fn caller<'a>(
    extensions: &'a Extensions,
    guard: &dyn Fn() -> String,
) -> Result<&'a AuthContext, Denied> {
    if let Some(caller) = extensions.get::<AuthContext>() {
        return Ok(caller);
    }
    let anonymous = extensions.get::<Anonymous>();
    let reason = if anonymous.is_some() {
        RejectionReason::MissingCredentials
    } else {
        trace::guard_without_layer(&guard());
        RejectionReason::Misconfigured
    };
    Err(Denied {
        reason,
        layer: anonymous.map(|anonymous| anonymous.0.clone()),
    })
}

fn authorize<S: AsRef<str>>(
    extensions: &Extensions,
    needed: Needed,
    scopes: &[S],
) -> Result<(), Denied> {
    let caller = caller(extensions, &|| format!("RequireScope({})", join(scopes)))?;
    let mut held = scopes
        .iter()
        .map(|scope| caller.scopes().allows_plain(scope.as_ref()));
    let enough = match needed {
        Needed::Any => held.any(|held| held),
        Needed::All => held.all(|held| held),
    };
    if enough {
        return Ok(());
    }
    Err(Denied::lacking(caller, needed, scopes))
}

fn join<S: AsRef<str>>(scopes: &[S]) -> String {
    let texts: Vec<_> = scopes.iter().map(AsRef::as_ref).collect();
    texts.join(" ")
}

impl Denied {
    fn lacking<S: AsRef<str>>(caller: &AuthContext, needed: Needed, scopes: &[S]) -> Self {
        Self {
            reason: RejectionReason::InsufficientScope {
                required: join(scopes).into(),
                any: needed == Needed::Any,
            },
            layer: caller.layer().cloned(),
        }
    }

    /// Whether the layer was there and let the request through without a key.
    #[cfg(feature = "axum")]
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.reason, RejectionReason::MissingCredentials)
    }

    /// What the layer would have answered. Where there was none, or the context was made by hand,
    /// what it answers by default.
    pub(super) fn into_response<B>(self, request: &HeaderMap) -> Response<B>
    where
        B: Default + 'static,
    {
        match self.layer {
            Some(layer) => reject_like_the_layer(&layer, self.reason),
            None => default_response(self.reason, request),
        }
    }
}

fn default_response<B>(reason: RejectionReason, request: &HeaderMap) -> Response<B>
where
    B: Default + 'static,
{
    let rejection = Rejection::new(reason);
    let mut response = if is_grpc(request) {
        // The client says that it speaks gRPC, and nobody else does: the status is told in both
        // ways.
        let mut response = GrpcResponse.response_for_rejection(rejection.clone());
        *response.status_mut() = rejection.status();
        response
    } else {
        let (mut head, body) = ResponseForRejection::<Bytes>::response_for_rejection(
            &ProblemResponse,
            rejection.clone(),
        )
        .into_parts();
        let body = body_from_bytes(body).unwrap_or_else(|| {
            forget_body(&mut head.headers);
            B::default()
        });
        Response::from_parts(head, body)
    };
    mark(&mut response, rejection);
    response
}

fn is_grpc(request: &HeaderMap) -> bool {
    request
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The bytes as a `B`, where `B` is a body that this crate knows: guards don't ask for more than
/// `Default`, so that they fit tonic's.
fn body_from_bytes<B: 'static>(bytes: Bytes) -> Option<B> {
    fn cast<A: 'static, B: 'static>(body: A) -> Option<B> {
        let mut body = Some(body);
        let body: &mut dyn Any = &mut body;
        body.downcast_mut().and_then(Option::take)
    }

    #[cfg(feature = "axum")]
    if let Some(body) = cast(axum::body::Body::from(bytes.clone())) {
        return Some(body);
    }
    cast(bytes)
}
