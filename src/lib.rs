//! Scoped, revocable API keys in front of any tower service: axum first, bare hyper and tonic too.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod clock;
mod context;
mod error;
mod guard;
mod key;
mod middleware;
mod resolver;
mod scope;
mod store;
mod token;
mod trace;
mod verify;

#[cfg(feature = "test-util")]
pub use self::clock::ManualClock;
pub use self::{
    backend::{
        ApiKeyBackend, Cursor, KeySource, MemoryBackend, Page, PageRequest, ParseCursorError, Touch,
    },
    clock::{Clock, SystemClock},
    context::AuthContext,
    error::{BackendError, ConfigError, InvalidKey, RandomError, StoreError},
    guard::{
        AllOf, AnyOf, RequireScope, RequireScopeFuture, RequireScopeService, RequiredScopes,
        TypedScope, TypedScopes,
    },
    key::{ApiKey, IssuedKey, KeyStatus, NewApiKey},
    middleware::{
        ApiKeyLayer, ApiKeyService, CredentialHeader, GrpcResponse, ProblemResponse, Rejection,
        RejectionReason, ResponseForRejection, ResponseFuture,
    },
    resolver::{CachedResolver, CachedResolverBuilder, KeyResolver},
    scope::{Scope, ScopeError, Scopes},
    store::{ApiKeyStore, ApiKeyStoreBuilder},
    token::{
        ApiKeyToken, Brand, DisplayPrefix, KeyId, LookupKey, MalformedToken, ParseHashError,
        ParseKeyIdError, Pepper, PepperId, Peppers, SecretHash, TokenFormat, UnknownPepper,
    },
    verify::VerifyError,
};

/// What the `scopes!` macro needs.
#[doc(hidden)]
pub mod __private {
    pub use crate::scope::is_plain;
}
