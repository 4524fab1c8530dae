//! Scoped, revocable API keys in front of any tower service: axum first, bare hyper and tonic too.
//!
//! ```
//! use axum::{Router, routing::{get, post}};
//! use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext, NewApiKey, RequireScope, Scopes};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = ApiKeyStore::in_memory();
//! let scopes = Scopes::of(["notes:read"])?;
//! let issued = store.create(NewApiKey::for_user("user_1", scopes).name("CI")).await?;
//! println!("{}", issued.token().expose()); // the one time
//!
//! let app: Router = Router::new()
//!     .route("/whoami", get(async |auth: AuthContext| auth.user_id().to_owned()))
//!     .route("/notes", post(async || "written").layer(RequireScope("notes:write")))
//!     .route_layer(ApiKeyLayer::new(store));
//! # Ok(()) }
//! ```
//!
//! # What happens to a request
//!
//! 1. [`ApiKeyLayer`] takes the token from `Authorization: Bearer pk.key_<id>.<secret>`, or from
//!    [another header](ApiKeyLayer::credential_headers).
//! 2. A [`KeyResolver`] says who it speaks for. [`ApiKeyStore`] is one: it finds the key's record by
//!    the id, in its cache or its backend, compares the HMAC of the secret in constant time, and then
//!    looks whether the key has expired or was revoked.
//! 3. The caller, an [`AuthContext`], goes into the request's extensions, and the request goes on.
//!    Other requests are answered, 400, 401 or 503, or passed without a context where the layer is
//!    told to: see [`ApiKeyLayer`].
//! 4. Guards ask more of the caller: [`RequireScope`](struct@crate::RequireScope) as a layer or in a
//!    handler's signature.
//!
//! # Where to put the layer
//!
//! A layer covers what was added to the router before it, and nothing that is added after:
//!
//! ```
//! # use axum::{Router, routing::get};
//! # use tower_api_key::{ApiKeyLayer, ApiKeyStore};
//! # async fn notes() {}
//! # async fn health() {}
//! # let store = ApiKeyStore::in_memory();
//! let app: Router = Router::new()
//!     .route("/notes", get(notes))
//!     .route_layer(ApiKeyLayer::new(store)) // guards /notes
//!     .route("/health", get(health)); // open
//! ```
//!
//! | with | a path that no route has, a fallback | a method that the route lacks |
//! | --- | --- | --- |
//! | `Router::route_layer` | open: 404, or what the fallback says | 401 without a key, 405 with one |
//! | `Router::layer` | 401 without a key | 401 without a key, 405 with one |
//! | `get(..).layer` | | 401 without a key, 405 with one; a guard there answers 403 first |
//! | `get(..).route_layer` | | **open**: 405, or what `any` or a fallback of the method router says |
//!
//! So put a fallback that needs a key under `layer`, and on the methods of one route use `layer`, as
//! in `post(add).layer(RequireScope("notes:write"))`: `any(one).get(other).route_layer(..)` guards GET
//! alone. Guard each method by itself, and merge:
//! `get(list).layer(RequireScope("notes:read")).merge(post(add).layer(RequireScope("notes:write")))`. In a chain, a layer
//! covers the methods before it, and none after. Several layers on one method router go into one `ServiceBuilder`. Nested and merged routers bring their layers
//! along; what a nested router has no route for is answered by the fallback of the router around
//! it, under that one's layers.
//!
//! A [`RequireScope`](struct@crate::RequireScope) belongs inside the [`ApiKeyLayer`]: on the routes
//! themselves, or added to the router before it. CORS belongs outside, added after it, or browsers'
//! preflights are answered 401. So does what compresses, traces and limits.
//!
//! With `ServiceBuilder`, which reads from the outside in, it is the other way round:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, service_fn};
//! use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext, RequireScope};
//!
//! # let store = ApiKeyStore::in_memory();
//! let service = ServiceBuilder::new()
//!     .layer(ApiKeyLayer::new(store))
//!     .layer(RequireScope("notes:read"))
//!     .service(service_fn(async |request: Request<Full<Bytes>>| {
//!         let auth: Option<&AuthContext> = request.extensions().get();
//!         let user = auth.map_or("nobody", AuthContext::user_id).to_owned();
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(user)))
//!     }));
//! ```
//!
//! On tonic, call [`.grpc()`](ApiKeyLayer::grpc) on the layer; see the example `grpc`.
//!
//! # What is cached
//!
//! A store remembers the keys that are in use, not that a token was good: each request's secret, and the
//! key's expiry, are checked. What is changed through a store counts at once for every request that begins
//! afterwards. What is changed elsewhere counts when the backend
//! [tells of it](KeySource::subscribe), and at the latest after
//! [`max_staleness`](CacheConfig::max_staleness), 5 seconds, whatever becomes of the connection that tells. Behind a
//! layer that is [`fresh`](ApiKeyLayer::fresh), it counts at once.
//!
//! Requests for one key that isn't cached wait for one read of it, and different keys that are asked for at
//! the same moment are read together. Where the backend can't be asked, requests whose key isn't cached are
//! answered 503, and the others as always.
//!
//! Reads, writes and timers run on tokio, in tasks of their own. A store has none before its first use;
//! [`shutdown`](ApiKeyStore::shutdown) ends them.
//!
//! # What outlives its request
//!
//! A stream of events, a WebSocket or a job that a request has begun ends with the key where it waits for
//! [`AuthContext::revoked`], or is a stream that is wrapped by [`AuthContext::until_revoked`]. See the example
//! `live`.
//!
//! # Handing a key over
//!
//! [`hand_off`](ApiKeyStore::hand_off) makes a [grant](KeyGrant): it promises a key to whoever presents a one-time
//! token, and [`claim`](ApiKeyStore::claim) makes the key then. So no plaintext waits anywhere, and of all who present
//! the token one gets the key. ([`HandoffTokenStore`] is something smaller: tickets of one process, of which no key is
//! made.)
//!
//! # When a key, or a pepper, is replaced
//!
//! [`ApiKeyStore::rotate`] makes a successor of a key, and lets the old one go on for an overlap;
//! [`rotation`](ApiKeyStore::rotation) says whether it is still in use, and the overlap can be
//! [ended early](ApiKeyStore::finish_rotation) or [taken back](ApiKeyStore::cancel_rotation). Tokens needn't
//! change for a new pepper: [`pepper_usage`](ApiKeyStore::pepper_usage) has the steps.
//!
//! # Where keys are kept
//!
//! In memory ([`MemoryBackend`]), in a SQLite file that one or several processes of a machine use
//! ([`SqliteBackend`]), in PostgreSQL for many machines ([`PostgresBackend`]), or in a backend of your own.
//!
//! # Looking after keys
//!
//! [`list`](ApiKeyStore::list) finds keys by a [`KeyFilter`]: those that end soon, those that nobody uses any more.
//! A revocation can say [why](ApiKeyStore::revoke_because), [`report_leaked`](ApiKeyStore::report_leaked) revokes the
//! keys whose tokens were found where they don't belong, and [`purge`](ApiKeyStore::purge) removes the records
//! of keys that ended long ago. What the service keeps with a key is its [`Metadata`].
//!
//! # What happened
//!
//! [`ApiKeyStore::events`] is a stream of what happens through a store: an [`Event`] for each change of a key,
//! and for each token that is rejected. An [`EventRecorder`] keeps them.
//!
//! With the feature `tracing` they go to the log as well, under the target `tower_api_key`, with
//! [their names](Event::name) in the field `event`. There it has these, too:
//!
//! | `event` | level | what |
//! | --- | --- | --- |
//! | `request.rejected` | debug | a layer or a guard has answered a request, with this `code` |
//! | `request.unavailable` | error | the same with 503, since keys can't be checked; `cause` says why |
//! | `guard.without_layer` | error | a guard ran where no layer has been: its route answers 500 |
//! | `feed.lost` | warn | changes made elsewhere don't arrive; they count after [`max_staleness`](CacheConfig::max_staleness) |
//! | `feed.found` | info | they arrive again |
//! | `uses.not_noted` | warn | it couldn't be written when keys were last used; it is tried again |
//! | `pepper.not_rewrapped` | warn | the hash of a key stays under a retired pepper until the key is used again |
//! | `events.not_recorded` | warn | an [`EventRecorder`] has failed; it is called again |
//!
//! A line `key.rejected` for which the store couldn't be asked is a warning, and otherwise a debug message.
//!
//! # Keys that others have made
//!
//! Keys of which another issuer has kept no more than SHA-256 are [imported](ApiKeyStore::import) by that digest, once the
//! store knows [how their tokens look](DigestFormat). Their owners go on using the tokens that they have, beside new
//! ones. `PylonImport` takes over the keys of pylon 0.3.
//!
//! # Bring your own
//!
//! | what you have | implement | and get |
//! | --- | --- | --- |
//! | a table of keys that something else writes | [`KeySource`] | cache, verification and revocation, in a [`CachedResolver`] |
//! | a database that this crate has no backend for | [`ApiKeyBackend`] | all of [`ApiKeyStore`] |
//! | a service that checks tokens of this form | [`KeyResolver`] | the layer and the guards |
//!
//! # Features
//!
//! | feature | by default | what it adds |
//! | --- | --- | --- |
//! | `axum` | yes | extractors: [`AuthContext`], `Option<AuthContext>`, [`RequireScope`](struct@crate::RequireScope); [`Rejection`] as a response |
//! | `sqlite` | no | [`SqliteBackend`]: keys in a file, for one machine |
//! | `postgres` | no | [`PostgresBackend`]: keys for a fleet |
//! | `json` | no | [`Metadata`] of anything that serde can write |
//! | `tracing` | no | events in the log: what happens to keys, rejections, outages, lost feeds of changes, guards without a layer |
//! | `test-util` | no | for tests of one's own: `ManualClock`, `ApiKeyToken::generate_with`, checks of backends (`conformance`) |
//!
//! Without any the crate has no axum, no serde and no SQL, and works on hyper and tonic. `sqlite` and
//! `postgres` need Rust 1.94, as sqlx does, and give [`PylonImport`] as well.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// What unit tests share with the others names the crate as those do.
#[cfg(all(test, feature = "postgres"))]
extern crate self as tower_api_key;

mod ask;
mod backend;
mod background;
mod cache;
mod clock;
#[cfg(feature = "test-util")]
pub mod conformance;
mod context;
mod error;
mod events;
#[cfg(all(test, shuttle))]
mod explore;
mod guard;
mod handoff;
mod import;
mod key;
mod middleware;
mod resolver;
mod scope;
mod store;
mod stream;
mod sync;
mod token;
mod trace;
mod verify;

#[cfg(feature = "postgres")]
pub use self::backend::{ExposedPrivileges, PostgresBackend, PostgresBackendBuilder};
#[cfg(feature = "sqlite")]
pub use self::backend::{SqliteBackend, SqliteBackendBuilder};
#[cfg(feature = "test-util")]
pub use self::clock::ManualClock;
#[cfg(feature = "json")]
pub use self::key::ReadMetadataError;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::{
    backend::OpenError,
    import::{ImportError, PylonImport},
};
pub use self::{
    backend::{
        ApiKeyBackend, Change, ChangeFeed, ChangeSink, Cursor, GrantCursor, GrantInsertion,
        GrantLimits, GrantPage, GrantPageRequest, KeyFilter, KeySource, MemoryBackend, Page,
        PageRequest, ParseCursorError, ParseGrantCursorError, PepperStatus, PepperUsage,
        RevokedKey, Subscription, Touch,
    },
    cache::{CacheConfig, CacheStats},
    clock::{Clock, SystemClock},
    context::AuthContext,
    error::{
        BackendError, ClaimRefusal, ConfigError, InvalidKey, PepperMismatch, RandomError,
        RotationError, StoreError, Unavailable,
    },
    events::{Event, EventKind, EventRecorder, Events, MissedEvents},
    guard::{
        AllOf, AnyOf, RequireScope, RequireScopeFuture, RequireScopeService, RequiredScopes,
        ScopeList, TypedScope, TypedScopes,
    },
    handoff::{
        HandedOff, HandoffError, HandoffToken, HandoffTokenConfig, HandoffTokenStore,
        ParseHandoffTokenError,
    },
    import::{
        ImportReport, Imported, MissingScopes, OldKey, OldPatterns, OldScopes, OldWildcard,
        RefusedReason, RefusedRow,
    },
    key::{
        ApiKey, ClaimHash, GrantId, GrantStatus, IssuedKey, KeyGrant, KeyStatus, KeyUpdate,
        Metadata, NewApiKey, ParseGrantIdError, RevocationReason, Rotation,
    },
    middleware::{
        ApiKeyLayer, ApiKeyService, CredentialHeader, GrpcResponse, ProblemResponse, Rejection,
        RejectionReason, ResponseForRejection, ResponseFuture,
    },
    resolver::{CachedResolver, CachedResolverBuilder, KeyResolver},
    scope::{Scope, ScopeError, Scopes},
    store::{ApiKeyStore, ApiKeyStoreBuilder, LeakReport},
    stream::UntilRevoked,
    token::{
        ApiKeyToken, Brand, DigestAlgorithm, DigestFormat, DisplayPrefix, KeyId, LookupKey,
        MalformedToken, ParseDisplayPrefixError, ParseKeyIdError, ParseSecretHashError, Pepper,
        PepperCheck, PepperId, Peppers, SecretHash, TokenAlphabet, TokenFormat, UnknownPepper,
    },
    verify::{VerifyError, VerifyErrorKind},
};

/// The version of sqlx whose pools [`SqliteBackend`] and [`PostgresBackend`] take.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[doc(no_inline)]
pub use sqlx;

/// What the `scopes!` macro needs.
#[doc(hidden)]
pub mod __private {
    pub use crate::scope::is_plain;
}

#[cfg(all(doctest, feature = "axum", feature = "postgres"))]
#[doc = include_str!("../README.md")]
struct Readme;
