//! Guards: what a route asks of the caller that the layer let in.

/// Calls a macro with the type parameters of all tuples that guards take.
macro_rules! up_to_eight {
    ($callback:ident) => {
        $callback! {
            A;
            A B;
            A B C;
            A B C D;
            A B C D E;
            A B C D E F;
            A B C D E F G;
            A B C D E F G H;
        }
    };
}
use up_to_eight;

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
