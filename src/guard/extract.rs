//! The caller and its scopes in the signatures of axum handlers.

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use super::{RequireScope, TypedScopes, decide};
use crate::{
    context::AuthContext,
    middleware::{ProblemResponse, Rejection, ResponseForRejection, mark},
};

/// The caller. Anonymous requests are answered 401, those that no layer has seen 500.
impl<S: Sync> FromRequestParts<S> for AuthContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        decide::caller(&parts.extensions, &|| "AuthContext".to_owned())
            .cloned()
            .map_err(|denied| denied.into_response(&parts.headers))
    }
}

/// The caller, or `None` behind an [optional](crate::ApiKeyLayer::optional) layer that let an
/// anonymous request through. Requests that no layer has seen are answered 500: who is let in
/// without a key is for a layer to say.
impl<S: Sync> OptionalFromRequestParts<S> for AuthContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Response> {
        match decide::caller(&parts.extensions, &|| "Option<AuthContext>".to_owned()) {
            Ok(caller) => Ok(Some(caller.clone())),
            Err(denied) if denied.is_anonymous() => Ok(None),
            Err(denied) => Err(denied.into_response(&parts.headers)),
        }
    }
}

/// Lets in callers that hold the scopes that `T` names.
impl<T: TypedScopes, S: Sync> FromRequestParts<S> for RequireScope<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let guard = Self::typed();
        match guard.requirement().check(&parts.extensions) {
            Ok(()) => Ok(guard),
            Err(denied) => Err(denied.into_response(&parts.headers)),
        }
    }
}

/// The response that a layer gives by default.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response: Response = ProblemResponse.response_for_rejection(self.clone());
        mark(&mut response, self);
        response
    }
}
