//! The layer and its settings.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use tower_layer::Layer;

use super::{
    ApiKeyService, CredentialHeader, GrpcResponse, ProblemResponse, Realm, RejectionReason,
    answers::Answers,
    credentials::{self, Presented},
};
use crate::{context::AuthContext, resolver::KeyResolver, token::ApiKeyToken, verify::VerifyError};

/// Lets in requests that carry a valid key; see the [crate's documentation](crate).
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext};
///
/// let app: Router = Router::new()
///     .route("/whoami", get(async |auth: AuthContext| auth.user_id().to_owned()))
///     .route_layer(ApiKeyLayer::new(ApiKeyStore::in_memory()).realm("notes"));
/// ```
///
/// The same resolver serves every route that the layer is put on, and every clone of the layer.
///
/// Without further settings it requires a key in `Authorization: Bearer`, in the realm `api`.
///
/// # What a request gets
///
/// | request | status | `WWW-Authenticate: Bearer realm="…"` and | `code` |
/// | --- | --- | --- | --- |
/// | no credentials, or another scheme | 401 | nothing more (RFC 6750 §3.1) | `missing_credentials` |
/// | two `Authorization` headers, two credential headers, `Bearer` alone, control characters, a list | 400 | `error="invalid_request"` | `invalid_request` |
/// | malformed, too long, unknown, wrong secret | 401 | `error="invalid_token"` | `invalid_token` |
/// | right secret, but the key has ended | 401 | `error="invalid_token"`, `error_description` | `expired`, `revoked`, `disabled` |
/// | a scope is missing | 403 | `error="insufficient_scope"`, `scope` | `insufficient_scope` |
/// | whether the key is good can't be told | 503, `Retry-After` | no challenge | `unavailable` |
/// | a guard with no layer around it | 500 | no challenge | `misconfigured` |
///
/// Bodies are `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `code`, `detail`,
/// and `scope` where one is missing. Rejections are responses, never errors: `Service::Error` is the
/// inner service's.
///
/// # What a request keeps
///
/// One that is let in with a key has an [`AuthContext`](crate::AuthContext) in its extensions, and a
/// context that was there before is gone. On all that pass, `Authorization` and the headers that the
/// layer reads are marked sensitive; [`strip_credentials`](Self::strip_credentials) removes the one
/// that carried the key. What logs requests further out sees them unmarked: put tower-http's
/// `SetSensitiveRequestHeadersLayer` around it.
pub struct ApiKeyLayer<R, F = ProblemResponse> {
    config: Arc<Config<R, F>>,
}

/// What the layer and all services that it makes share.
pub(super) struct Config<R, F> {
    resolver: Arc<R>,
    answers: Arc<Answers<F>>,
    settings: Settings,
}

#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the layer's own"
)]
struct Settings {
    headers: Arc<[CredentialHeader]>,
    optional: bool,
    pass_foreign: bool,
    strip: bool,
    fresh: bool,
}

impl<R: KeyResolver> ApiKeyLayer<R> {
    /// A layer that asks `resolver`, most often an [`ApiKeyStore`](crate::ApiKeyStore).
    #[must_use]
    pub fn new(resolver: R) -> Self {
        let config = Config {
            resolver: Arc::new(resolver),
            answers: Arc::default(),
            settings: Settings {
                headers: [CredentialHeader::bearer()].into(),
                optional: false,
                pass_foreign: false,
                strip: false,
                fresh: false,
            },
        };
        Self {
            config: Arc::new(config),
        }
    }
}

impl<R, F> ApiKeyLayer<R, F> {
    /// The protection space that challenges name (RFC 9110 §11.5), `api` by default. Quotes and
    /// backslashes are escaped.
    ///
    /// # Panics
    ///
    /// If `realm` has other characters than visible ASCII and spaces.
    #[must_use]
    #[track_caller]
    pub fn realm(mut self, realm: &str) -> Self {
        let Some(realm) = Realm::new(realm) else {
            panic!("a realm is visible ASCII and spaces, not {realm:?}")
        };
        let response = self.config.answers.response.clone();
        Arc::make_mut(&mut self.config).answers = Arc::new(Answers::new(response, realm));
        self
    }

    /// Reads keys from these headers, instead of from `Authorization: Bearer`. A request with keys
    /// in two of them is refused.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_api_key::{ApiKeyLayer, ApiKeyStore, CredentialHeader};
    ///
    /// let layer = ApiKeyLayer::new(ApiKeyStore::in_memory()).credential_headers([
    ///     CredentialHeader::bearer(),
    ///     CredentialHeader::named(HeaderName::from_static("x-api-key")),
    /// ]);
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no header, or one twice.
    #[must_use]
    #[track_caller]
    pub fn credential_headers(
        mut self,
        headers: impl IntoIterator<Item = CredentialHeader>,
    ) -> Self {
        let headers: Arc<[_]> = headers.into_iter().collect();
        assert!(
            !headers.is_empty(),
            "a layer reads keys from one header at least"
        );
        for (at, header) in headers.iter().enumerate() {
            let before = headers[..at].iter().map(CredentialHeader::name);
            assert!(
                !before.into_iter().any(|name| name == header.name()),
                "the header {} is named twice",
                header.name()
            );
        }
        self.settings().headers = headers;
        self
    }

    /// Passes requests without credentials on, without a context: handlers take
    /// `Option<AuthContext>`. Bad credentials are still rejected.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.settings().optional = true;
        self
    }

    /// Passes tokens that aren't [of the resolver's format](crate::TokenFormat::claims) on, without
    /// a context, so that a layer behind this one can check them: a JWT, a session.
    ///
    /// **That layer is then the only one that looks at them.** Guards of this crate turn such a
    /// request away, as they do an anonymous one.
    #[must_use]
    pub fn pass_foreign_tokens(mut self) -> Self {
        self.settings().pass_foreign = true;
        self
    }

    /// Removes the header with the key before the request goes on, so that nothing behind the layer
    /// can log or forward it. Foreign tokens stay.
    #[must_use]
    pub fn strip_credentials(mut self) -> Self {
        self.settings().strip = true;
        self
    }

    /// Checks each request against what is stored now, and not against what is cached: for routes
    /// where a revocation that was made elsewhere has to count at once. Costs a read of the database
    /// for each request; requests that come at the same moment share one.
    ///
    /// A layer for such routes alone goes inside one for all of them, which turns the others away
    /// first. Make it from that one: an inner layer takes over no settings.
    ///
    /// ```
    /// # use axum::{Router, routing::{get, post}};
    /// # use tower_api_key::{ApiKeyLayer, ApiKeyStore};
    /// # async fn notes() {}
    /// # async fn pay() {}
    /// # let store = ApiKeyStore::in_memory();
    /// let keys = ApiKeyLayer::new(store).realm("notes");
    /// let app: Router = Router::new()
    ///     .route("/notes", get(notes))
    ///     .route("/pay", post(pay).layer(keys.clone().fresh()))
    ///     .route_layer(keys);
    /// ```
    ///
    /// [`strip_credentials`](Self::strip_credentials) belongs on the innermost of them alone: behind it
    /// there is no key left to check.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.settings().fresh = true;
        self
    }

    /// Answers rejections with `response`, a closure or a type; see [`ResponseForRejection`](crate::ResponseForRejection). Guards
    /// behind the layer answer with it, too.
    ///
    /// A closure takes a [`Rejection`](crate::Rejection), which has to be written out, and returns a whole response:
    ///
    /// ```
    /// use axum::response::{IntoResponse, Response};
    /// use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
    /// use tower_api_key::{ApiKeyLayer, ApiKeyStore, Rejection};
    ///
    /// let layer = ApiKeyLayer::new(ApiKeyStore::in_memory())
    ///     .rejection_response(|rejection: Rejection| -> Response {
    ///         let challenge = rejection.challenge().map(|value| [(WWW_AUTHENTICATE, value)]);
    ///         let retry_after = rejection.retry_after().map(|value| [(RETRY_AFTER, value)]);
    ///         (rejection.status(), challenge, retry_after, rejection.code()).into_response()
    ///     });
    /// # let _: axum::Router = axum::Router::new().layer(layer);
    /// ```
    #[must_use]
    pub fn rejection_response<G>(self, response: G) -> ApiKeyLayer<R, G> {
        let config = Config {
            resolver: self.config.resolver.clone(),
            answers: Arc::new(Answers::new(
                Arc::new(response),
                self.config.answers.realm.clone(),
            )),
            settings: self.config.settings.clone(),
        };
        ApiKeyLayer {
            config: Arc::new(config),
        }
    }

    /// Answers rejections as gRPC does: `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNAVAILABLE`,
    /// `INVALID_ARGUMENT`, `INTERNAL`.
    #[must_use]
    pub fn grpc(self) -> ApiKeyLayer<R, GrpcResponse> {
        self.rejection_response(GrpcResponse)
    }

    /// The settings of this layer alone: clones keep theirs.
    fn settings(&mut self) -> &mut Settings {
        &mut Arc::make_mut(&mut self.config).settings
    }
}

impl<S, R, F> Layer<S> for ApiKeyLayer<R, F> {
    type Service = ApiKeyService<S, R, F>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiKeyService::new(inner, self.config.clone())
    }
}

impl<R, F> Clone for ApiKeyLayer<R, F> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
        }
    }
}

impl<R, F> Clone for Config<R, F> {
    fn clone(&self) -> Self {
        Self {
            resolver: self.resolver.clone(),
            answers: self.answers.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<R, F> fmt::Debug for ApiKeyLayer<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyLayer")
            .field("realm", &self.config.answers.realm)
            .field("settings", &self.config.settings)
            .finish_non_exhaustive()
    }
}

impl<R: KeyResolver, F> Config<R, F> {
    pub(super) fn answers(&self) -> &Arc<Answers<F>> {
        &self.answers
    }

    /// What the resolver can say without waiting, if that will do.
    pub(super) fn resolve_now(
        &self,
        token: &ApiKeyToken,
    ) -> Option<Result<AuthContext, VerifyError>> {
        if self.settings.fresh {
            return None;
        }
        self.resolver.resolve_now(token)
    }

    pub(super) async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
        if self.settings.fresh {
            self.resolver.resolve_fresh(token).await
        } else {
            self.resolver.resolve(token).await
        }
    }

    /// What the request presents. `Nothing` and `Foreign` come back only where they may pass, and a
    /// token comes to be in `token`.
    ///
    /// What may hold a token is hidden from logs: the headers that the layer reads, and every
    /// `Authorization`, where people put keys in forms that it doesn't read.
    #[inline]
    pub(super) fn read_credentials(
        &self,
        headers: &mut HeaderMap,
        token: &mut ApiKeyToken,
    ) -> Result<Presented<'_>, RejectionReason> {
        let Settings {
            headers: from,
            optional,
            pass_foreign,
            ..
        } = &self.settings;
        if from.iter().all(|header| *header.name() != AUTHORIZATION) {
            hide_authorization(headers);
        }
        let format = self.resolver.token_format();
        match credentials::read(headers, from, format, *pass_foreign, token)? {
            Presented::Nothing if !optional => Err(RejectionReason::MissingCredentials),
            presented => Ok(presented),
        }
    }

    /// Removes the header that carried a token of ours, if the layer is to.
    pub(super) fn strip(&self, headers: &mut HeaderMap, name: &HeaderName) {
        if self.settings.strip {
            headers.remove(name);
        }
    }
}

fn hide_authorization(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if *name == AUTHORIZATION {
            value.set_sensitive(true);
        }
    }
}
