//! Who is calling.

mod shown;

use std::{
    any::Any,
    fmt,
    future::{pending, ready},
    num::NonZeroU64,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(crate) use self::shown::Shown;
use crate::{
    clock::{from_unix_millis, unix_millis},
    error::{StoreError, Unavailable},
    key::ApiKey,
    scope::Scopes,
    stream::UntilRevoked,
    sync::sleep,
    token::KeyId,
};

/// Who is calling: the owner of the presented key, and what the key may do.
///
/// The layer puts it into the extensions of each request that it authenticated. A clone is two
/// counters. No secret can be read from it.
///
/// It tells how things stood when the request began. What goes on for longer, a stream of events, a
/// WebSocket, a job, asks [`is_active`](Self::is_active), waits for [`revoked`](Self::revoked) beside what it does, or
/// is wrapped by [`until_revoked`](Self::until_revoked).
///
/// # In tests of handlers
///
/// A context can be made by hand, and passed to a handler as its argument, or put into a request's
/// extensions, where extractors and guards find it as if a layer had been there:
///
/// ```
/// use tower_api_key::{AuthContext, KeyId, RequireScope, Scopes, scopes};
///
/// scopes! { NotesRead = "notes:read"; }
///
/// async fn list(auth: AuthContext, _: RequireScope<NotesRead>) -> String {
///     format!("the notes of {}", auth.user_id())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scopes = Scopes::of(["notes:read"])?;
/// let auth = AuthContext::new(KeyId::from_bytes([7; 24]), "user_1", scopes).with_name("CI");
/// assert_eq!(list(auth.clone(), RequireScope(NotesRead)).await, "the notes of user_1");
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(auth);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AuthContext {
    /// Where it comes from a cache, what is cached: a hit copies nothing.
    caller: Arc<dyn HasCaller>,
    layer: Option<LayerHandle>,
}

/// Something that knows who is calling.
pub(crate) trait HasCaller: Send + Sync {
    fn caller(&self) -> &Caller;

    /// Returns when the caller's key has ended.
    fn ended(&self) -> Answer<()>;

    /// Whether the caller's key is good now.
    fn is_active(&self) -> Answer<Result<bool, Unavailable>>;

    /// The same key with what `caller` says of it, and an expiry of its own.
    fn shown_as(
        self: Arc<Self>,
        caller: Caller,
        expires_at: Option<NonZeroU64>,
    ) -> Arc<dyn HasCaller>;
}

pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who is calling. There may be a million of them, so it is kept small.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    key_id: KeyId,
    /// The user id, and the name right behind it.
    texts: Box<str>,
    user_id_len: usize,
    has_name: bool,
    scopes: Scopes,
    /// In milliseconds since 1970.
    expires_at: Option<NonZeroU64>,
}

impl Caller {
    fn new(
        key_id: KeyId,
        user_id: &str,
        name: Option<&str>,
        scopes: Scopes,
        expires_at: Option<NonZeroU64>,
    ) -> Self {
        Self {
            key_id,
            texts: [user_id, name.unwrap_or_default()].concat().into(),
            user_id_len: user_id.len(),
            has_name: name.is_some(),
            scopes,
            expires_at,
        }
    }

    pub(crate) fn of(key: &ApiKey) -> Self {
        let ApiKey { id, user_id, .. } = key;
        let name = key.name.as_deref();
        let expires_at = key.ends_at().map(expiry);
        Self::new(*id, user_id, name, key.scopes.clone(), expires_at)
    }

    pub(crate) fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    pub(crate) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// In milliseconds since 1970.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        self.expires_at.map(NonZeroU64::get)
    }

    pub(crate) fn user_id(&self) -> &str {
        &self.texts[..self.user_id_len]
    }

    fn name(&self) -> Option<&str> {
        self.has_name.then(|| &self.texts[self.user_id_len..])
    }
}

/// What ended with 1970 or before might as well have ended a millisecond later.
fn expiry(end: SystemTime) -> NonZeroU64 {
    NonZeroU64::new(unix_millis(end)).unwrap_or(NonZeroU64::MIN)
}

/// A caller that nobody can be asked about ends with its expiry alone.
impl HasCaller for Caller {
    fn caller(&self) -> &Caller {
        self
    }

    fn ended(&self) -> Answer<()> {
        let end = self.expires_at();
        Box::pin(async move {
            match end {
                Some(end) => at(end).await,
                None => pending().await,
            }
        })
    }

    fn is_active(&self) -> Answer<Result<bool, Unavailable>> {
        let has_ended = self.expires_at().is_some_and(|end| until(end).is_zero());
        Box::pin(ready(Ok(!has_ended)))
    }

    fn shown_as(self: Arc<Self>, caller: Caller, _: Option<NonZeroU64>) -> Arc<dyn HasCaller> {
        Arc::new(caller)
    }
}

/// How long it is until `end`, in milliseconds since 1970.
fn until(end: u64) -> Duration {
    Duration::from_millis(end.saturating_sub(unix_millis(SystemTime::now())))
}

async fn at(end: u64) {
    // The time of day may be set meanwhile.
    const MAX_SLEEP: Duration = Duration::from_secs(60 * 60);
    loop {
        let left = until(end);
        if left.is_zero() {
            return;
        }
        sleep(left.min(MAX_SLEEP)).await;
    }
}

impl AuthContext {
    /// A caller without a name whose key doesn't expire.
    #[must_use]
    pub fn new(key_id: KeyId, user_id: impl AsRef<str>, scopes: Scopes) -> Self {
        let caller = Caller::new(key_id, user_id.as_ref(), None, scopes, None);
        Self::of(Arc::new(caller))
    }

    pub(crate) fn of(caller: Arc<dyn HasCaller>) -> Self {
        Self {
            caller,
            layer: None,
        }
    }

    /// The same with the key's name.
    #[must_use]
    pub fn with_name(self, name: impl AsRef<str>) -> Self {
        let Caller {
            key_id,
            scopes,
            expires_at,
            ..
        } = self.caller().clone();
        let name = Some(name.as_ref());
        let caller = Caller::new(key_id, self.user_id(), name, scopes, expires_at);
        self.shown_as(caller, None)
    }

    /// The same with the key's end, in whole milliseconds. Where the context is that of a stored key, it still
    /// ends with that key, if that is earlier.
    #[must_use]
    pub fn with_expiry(self, expires_at: SystemTime) -> Self {
        let mut caller = self.caller().clone();
        caller.expires_at = Some(expiry(expires_at));
        self.shown_as(caller, Some(expiry(expires_at)))
    }

    fn shown_as(mut self, caller: Caller, expires_at: Option<NonZeroU64>) -> Self {
        self.caller = self.caller.shown_as(caller, expires_at);
        self
    }

    fn caller(&self) -> &Caller {
        self.caller.caller()
    }

    /// The public id of the key.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        &self.caller().key_id
    }

    /// Who the key belongs to.
    #[must_use]
    pub fn user_id(&self) -> &str {
        self.caller().user_id()
    }

    /// What the owner calls the key.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.caller().name()
    }

    /// What the key may do.
    #[must_use]
    pub fn scopes(&self) -> &Scopes {
        &self.caller().scopes
    }

    /// Whether the key may do what asks for `scope`; see [`Scopes::allows`].
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.caller().scopes.allows(scope)
    }

    /// When the key ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.caller().expires_at().and_then(from_unix_millis)
    }

    /// Whether the key is good now: not revoked, suspended, deleted or expired. Asks the backend where what
    /// is remembered won't do.
    ///
    /// A context that was [made by hand](Self::new), or by a resolver of one's own, is until its expiry.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where that can't be told.
    pub async fn is_active(&self) -> Result<bool, StoreError> {
        let is_active = self.caller.is_active().await;
        is_active.map_err(StoreError::Unavailable)
    }

    /// Returns when the key is revoked, suspended, deleted or expires, on whatever node: at once where that
    /// is done through this store, and elsewhere when its backend tells of it, within
    /// [`max_staleness`](crate::CacheConfig::max_staleness) at the worst. That holds where changes don't arrive and the key can't be read
    /// any more, too: then it returns, unless [`serve_stale`](crate::CacheConfig::serve_stale) allows for more.
    ///
    /// It waits without asking again and again. It keeps no store alive, and returns when the store is gone.
    ///
    /// ```
    /// # use tower_api_key::AuthContext;
    /// # async fn run(auth: AuthContext, work: impl Future<Output = ()>) {
    /// tokio::select! {
    ///     () = work => {}
    ///     () = auth.revoked() => {} // say goodbye
    /// }
    /// # }
    /// ```
    ///
    /// A context that was [made by hand](Self::new), or by a resolver of one's own, ends with its expiry.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + use<> {
        self.caller.ended()
    }

    /// `stream`, which ends when the key is [revoked](Self::revoked): for server-sent events and other
    /// bodies that have no end of their own.
    pub fn until_revoked<S>(&self, stream: S) -> UntilRevoked<S> {
        UntilRevoked::new(stream, self.caller.ended())
    }

    pub(crate) fn with_layer(mut self, layer: LayerHandle) -> Self {
        self.layer = Some(layer);
        self
    }

    pub(crate) fn layer(&self) -> Option<&LayerHandle> {
        self.layer.as_ref()
    }
}

/// Whether the callers are the same in every respect.
impl PartialEq for AuthContext {
    fn eq(&self, other: &Self) -> bool {
        self.caller() == other.caller()
    }
}

impl Eq for AuthContext {}

impl fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthContext")
            .field("key_id", self.key_id())
            .field("user_id", &self.user_id())
            .field("name", &self.name())
            .field("scopes", self.scopes())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// How the layer that let a request in rejects others, so that guards behind it do the same.
///
/// It travels in the context, since one extension costs half of two. What is in it is known to the
/// middleware alone; this module and what stands below the middleware know no HTTP. The resolver
/// isn't in it: a context that is kept keeps no store alive.
#[derive(Clone)]
pub(crate) struct LayerHandle {
    answers: HeldAnswers,
    reject: RejectErased,
}

/// What a layer answers with.
#[derive(Clone)]
pub(crate) enum HeldAnswers {
    Shared(Arc<dyn Any + Send + Sync>),
    /// Not counted: that is two locked instructions a request, a tenth of the HMAC.
    Static(&'static (dyn Any + Send + Sync)),
}

impl LayerHandle {
    /// `reject` is always called with these `answers`.
    pub(crate) fn new(answers: HeldAnswers, reject: RejectErased) -> Self {
        Self { answers, reject }
    }

    pub(crate) fn reject(&self, reason: Box<dyn Any>) -> Box<dyn Any> {
        let answers = match &self.answers {
            HeldAnswers::Shared(answers) => &**answers,
            HeldAnswers::Static(answers) => *answers,
        };
        (self.reject)(answers, reason)
    }
}

/// From the layer's way to answer and a reason to a response.
pub(crate) type RejectErased = fn(&(dyn Any + Send + Sync), Box<dyn Any>) -> Box<dyn Any>;
