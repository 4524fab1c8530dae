//! From a token to who is calling.

mod cached;
mod loader;
mod pepper_checks;
mod rewrap;
mod touch;
mod watch;
pub(crate) mod write;

use std::sync::{Arc, LazyLock};

pub use self::cached::{CachedResolver, CachedResolverBuilder};
pub(crate) use self::pepper_checks::{PepperChecks, State as PepperState};
use crate::{
    ask,
    context::AuthContext,
    token::{ApiKeyToken, TokenFormat},
    verify::VerifyError,
};

/// Turns a presented token into who is calling.
///
/// [`ApiKeyStore`](crate::ApiKeyStore) and [`CachedResolver`] are resolvers; write another where
/// tokens are checked by something else, an identity service for one. The example `custom_resolver`
/// does that.
///
/// The tokens are those of its [format](Self::token_format), of this crate's form unless it says otherwise,
/// `<brand>.key_<id>.<secret>`: a resolver is asked about no others. For a JWT or a session see
/// [`pass_foreign_tokens`](crate::ApiKeyLayer::pass_foreign_tokens) and the example `optional_auth`.
///
/// ```
/// use tower_api_key::{ApiKeyToken, AuthContext, BackendError, KeyResolver, Scopes, VerifyError};
///
/// struct AskTheIdentityService;
///
/// impl KeyResolver for AskTheIdentityService {
///     async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
///         let id = token.key_id().ok_or(VerifyError::Unknown)?;
///         match ask(token.expose()).await {
///             Ok(Some(user)) => Ok(AuthContext::new(id, user, Scopes::none())),
///             Ok(None) => Err(VerifyError::Unknown),
///             Err(error) => Err(BackendError::unavailable(error).into()),
///         }
///     }
/// }
/// # async fn ask(_: &str) -> Result<Option<String>, std::io::Error> { Ok(None) }
/// ```
///
/// # What a resolver must see to
///
/// * **Check the secret**, on each request, whatever it remembers, and in constant time. An id is
///   public, and proves nothing.
/// * **Not knowing is [`VerifyError::Unavailable`]** (503) and never [`VerifyError::Unknown`] (401).
/// * **No word about a key before its secret was right**: whether it expired or was revoked is for
///   its holder alone.
/// * **A wrapper passes every method on**, those with a default among them: without
///   [`resolve_fresh`](Self::resolve_fresh), a layer that is to be fresh isn't.
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't say who a token speaks for",
    note = "give the layer an `ApiKeyStore` or a `CachedResolver`, after its builder's `.build().await?`, or implement `KeyResolver`"
)]
pub trait KeyResolver: Send + Sync + 'static {
    /// Who `token` speaks for.
    ///
    /// # Errors
    ///
    /// Why it speaks for nobody, or [`VerifyError::Unavailable`].
    fn resolve(
        &self,
        token: &ApiKeyToken,
    ) -> impl Future<Output = Result<AuthContext, VerifyError>> + Send;

    /// The same, of what is true now and not of what is remembered: for routes where a change that was
    /// made elsewhere must count at once. The layer asks here where it is told to be
    /// [`fresh`](crate::ApiKeyLayer::fresh).
    ///
    /// A resolver that remembers nothing needn't say anything else than [`resolve`](Self::resolve).
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    fn resolve_fresh(
        &self,
        token: &ApiKeyToken,
    ) -> impl Future<Output = Result<AuthContext, VerifyError>> + Send {
        self.resolve(token)
    }

    /// The same answer, where it can be given from memory, without waiting.
    ///
    /// The layer asks here first: an answer costs no boxed future and no copy of the service behind
    /// it. `None` sends it to [`resolve`](KeyResolver::resolve).
    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        let _ = token;
        None
    }

    /// Which texts are tokens of this resolver: those of the brand `pk` unless it says otherwise.
    ///
    /// For another brand or other forms, keep a [`TokenFormat`] beside what the resolver has, and return it.
    fn token_format(&self) -> &TokenFormat {
        static DEFAULT: LazyLock<TokenFormat> = LazyLock::new(TokenFormat::default);
        &DEFAULT
    }
}

impl<R: KeyResolver> KeyResolver for Arc<R> {
    fn resolve(
        &self,
        token: &ApiKeyToken,
    ) -> impl Future<Output = Result<AuthContext, VerifyError>> + Send {
        R::resolve(self, token)
    }

    fn resolve_fresh(
        &self,
        token: &ApiKeyToken,
    ) -> impl Future<Output = Result<AuthContext, VerifyError>> + Send {
        R::resolve_fresh(self, token)
    }

    fn resolve_now(&self, token: &ApiKeyToken) -> Option<Result<AuthContext, VerifyError>> {
        R::resolve_now(self, token)
    }

    fn token_format(&self) -> &TokenFormat {
        R::token_format(self)
    }
}
