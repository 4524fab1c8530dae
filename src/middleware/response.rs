//! From a rejection to a response.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
        RETRY_AFTER, WWW_AUTHENTICATE,
    },
};

use super::{Rejection, RejectionReason};

/// Makes the response to a request that is turned away.
///
/// Closures do, as do types of one's own:
///
/// ```
/// use http::Response;
/// use tower_api_key::{ApiKeyLayer, ApiKeyStore, Rejection, ResponseForRejection};
///
/// struct Plain;
///
/// impl<B: From<&'static str>> ResponseForRejection<B> for Plain {
///     fn response_for_rejection(&self, rejection: Rejection) -> Response<B> {
///         let mut response = Response::new(B::from(rejection.code()));
///         *response.status_mut() = rejection.status();
///         if let Some(challenge) = rejection.challenge() {
///             response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
///         }
///         response
///     }
/// }
///
/// let layer = ApiKeyLayer::new(ApiKeyStore::in_memory()).rejection_response(Plain);
/// ```
///
/// A 401 needs a challenge (RFC 9110 §15.5.2): take it over from
/// [`Rejection::challenge`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't answer rejections with `Response<{B}>`",
    note = "the default, `ProblemResponse`, needs a body that is `From<Bytes>`; for tonic's body call `.grpc()` on the layer",
    note = "a closure has to be `Fn(Rejection) -> Response<{B}>`, with its argument's type written out: `|rejection: Rejection| …`"
)]
pub trait ResponseForRejection<B> {
    /// The response. Its extensions get the rejection afterwards, and a response without
    /// `Cache-Control` gets `no-store`.
    fn response_for_rejection(&self, rejection: Rejection) -> Response<B>;
}

impl<F, B> ResponseForRejection<B> for F
where
    F: Fn(Rejection) -> Response<B>,
{
    fn response_for_rejection(&self, rejection: Rejection) -> Response<B> {
        self(rejection)
    }
}

/// The default: `application/problem+json` (RFC 9457), for every body that can be made from bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemResponse;

impl<B: From<Bytes>> ResponseForRejection<B> for ProblemResponse {
    fn response_for_rejection(&self, rejection: Rejection) -> Response<B> {
        let mut response = Response::new(B::from(problem(&rejection)));
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(challenge) = rejection.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = rejection.retry_after() {
            headers.insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// The problem details. All of its texts are constants but the scopes, which need no escaping.
fn problem(rejection: &Rejection) -> Bytes {
    let title = rejection.status().canonical_reason().unwrap_or_default();
    let scope = match rejection.required_scope() {
        Some(scope) => format!(r#","scope":"{scope}""#),
        None => String::new(),
    };
    format!(
        r#"{{"type":"about:blank","title":"{title}","status":{},"code":"{}","detail":"{}"{scope}}}"#,
        rejection.status().as_u16(),
        rejection.code(),
        rejection.detail(),
    )
    .into()
}

/// Puts the rejection into the extensions, and keeps caches from storing the response: the same
/// request with another key, or a moment later, is answered otherwise (RFC 9111 §5.2.2.5).
pub(crate) fn mark<B>(response: &mut Response<B>, rejection: Rejection) {
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(rejection);
}

/// Removes what describes a body that couldn't be kept. A gRPC response never had one.
pub(crate) fn forget_body(headers: &mut HeaderMap) {
    for described in [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE, ETAG] {
        headers.remove(described);
    }
    if !headers.contains_key(GRPC_STATUS) {
        headers.remove(CONTENT_TYPE);
    }
}

const GRPC_STATUS: &str = "grpc-status";

/// A gRPC response without a message, its status in the headers ("trailers-only"), for every body
/// that has a `Default`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrpcResponse;

impl<B: Default> ResponseForRejection<B> for GrpcResponse {
    fn response_for_rejection(&self, rejection: Rejection) -> Response<B> {
        let status = match rejection.reason() {
            RejectionReason::InvalidRequest => "3", // INVALID_ARGUMENT
            RejectionReason::InsufficientScope { .. } => "7", // PERMISSION_DENIED
            RejectionReason::Misconfigured => "13", // INTERNAL
            RejectionReason::Unavailable(_) => "14", // UNAVAILABLE
            RejectionReason::MissingCredentials
            | RejectionReason::InvalidToken
            | RejectionReason::Expired
            | RejectionReason::Revoked
            | RejectionReason::Disabled => "16", // UNAUTHENTICATED
        };
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
        // Sent as it stands: the texts have nothing that gRPC wants percent-encoded.
        headers.insert("grpc-message", HeaderValue::from_static(rejection.detail()));
        response
    }
}
