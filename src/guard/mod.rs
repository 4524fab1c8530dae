//! Guards: what a route asks of the caller that the layer let in.

mod decide;
#[cfg(feature = "axum")]
mod extract;
mod scope;
mod service;
mod typed;

pub use self::{
    scope::{AllOf, AnyOf, RequireScope, RequiredScopes, ScopeList},
    service::{RequireScopeFuture, RequireScopeService},
    typed::{TypedScope, TypedScopes},
};
