//! `RequireScope`, as a layer.

use std::sync::Arc;

use tower_layer::Layer;

use super::{decide::Mode, service::RequireScopeService};
use crate::scope::{self, Scope};

/// Lets in callers that hold a scope: with a string it is a [`Layer`], with a type that `scopes!`
/// made it is an extractor, too.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use tower_api_key::{ApiKeyLayer, ApiKeyStore, RequireScope, scopes};
///
/// scopes! { pub NotesRead = "notes:read"; }
///
/// async fn list(_: RequireScope<NotesRead>) {}
/// async fn add() {}
///
/// let app: Router = Router::new()
///     .route("/notes", get(list).merge(post(add).route_layer(RequireScope("notes:write"))))
///     .route_layer(ApiKeyLayer::new(ApiKeyStore::in_memory()));
/// ```
///
/// [`AnyOf`] and [`AllOf`] ask for several: `RequireScope(AnyOf(["notes:write", "admin"]))` as a
/// layer, or `RequireScope(AllOf((NotesRead, NotesWrite)))`, and as an extractor
/// `RequireScope<AllOf<(NotesRead, NotesWrite)>>`.
///
/// | caller | answer |
/// | --- | --- |
/// | holds the scope | goes on |
/// | has a key, not the scope | 403 `insufficient_scope` |
/// | anonymous behind an [optional](crate::ApiKeyLayer::optional) layer | 401 `missing_credentials` |
/// | no [`ApiKeyLayer`](crate::ApiKeyLayer) around the guard | 500 `misconfigured`, and a log line |
///
/// The function of the same name makes one.
#[derive(Debug, Clone, Copy)]
pub struct RequireScope<S = &'static str> {
    scopes: S,
}

/// Makes the guard [`RequireScope`](struct@crate::RequireScope).
///
/// ```
/// use tower_api_key::{AllOf, AnyOf, RequireScope};
///
/// let one = RequireScope("notes:write");
/// let either = RequireScope(AnyOf(["notes:write", "admin"]));
/// let both = RequireScope(AllOf(["notes:read", "notes:write"]));
/// ```
///
/// # Panics
///
/// If a scope isn't valid or is a pattern, or if [`AnyOf`] or [`AllOf`] has none. At once, and so
/// when the routes are put together: axum builds some layers only when the first connection comes.
#[allow(non_snake_case, reason = "it stands for the constructor of the type")]
pub fn RequireScope<S: RequiredScopes>(scopes: S) -> RequireScope<S> {
    parse(&scopes);
    RequireScope { scopes }
}

/// Any of several scopes is enough.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyOf<S>(pub S);

/// All of several scopes are needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllOf<S>(pub S);

/// What a [`RequireScope`](struct@crate::RequireScope) layer can ask for: one scope, or [`AnyOf`] or
/// [`AllOf`] several.
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't name scopes that a route can ask for",
    note = "give `RequireScope` a string, a type made by `scopes!`, or `AnyOf` or `AllOf` several"
)]
pub trait RequiredScopes {
    #[doc(hidden)]
    fn required(&self) -> (Mode, Vec<String>);
}

impl<S: AsRef<str>> RequiredScopes for S {
    fn required(&self) -> (Mode, Vec<String>) {
        (Mode::All, vec![self.as_ref().to_owned()])
    }
}

impl<L: ScopeList> RequiredScopes for AnyOf<L> {
    fn required(&self) -> (Mode, Vec<String>) {
        (Mode::Any, self.0.texts())
    }
}

impl<L: ScopeList> RequiredScopes for AllOf<L> {
    fn required(&self) -> (Mode, Vec<String>) {
        (Mode::All, self.0.texts())
    }
}

/// What [`AnyOf`] and [`AllOf`] take in a layer: an array, a slice or a `Vec` of scopes, or a tuple
/// of up to eight.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of scopes",
    note = "give `AnyOf` and `AllOf` an array of strings, or a tuple of types made by `scopes!`"
)]
pub trait ScopeList {
    #[doc(hidden)]
    fn texts(&self) -> Vec<String>;
}

impl<S: AsRef<str>> ScopeList for &[S] {
    fn texts(&self) -> Vec<String> {
        self.iter().map(|scope| scope.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<str>, const N: usize> ScopeList for [S; N] {
    fn texts(&self) -> Vec<String> {
        self.as_slice().texts()
    }
}

impl<S: AsRef<str>> ScopeList for Vec<S> {
    fn texts(&self) -> Vec<String> {
        self.as_slice().texts()
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)+) => {$(
        impl<$($name: AsRef<str>),+> ScopeList for ($($name,)+) {
            #[allow(non_snake_case, reason = "a variable for each type")]
            fn texts(&self) -> Vec<String> {
                let ($($name,)+) = self;
                vec![$($name.as_ref().to_owned()),+]
            }
        }
    )+};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}

impl<S: RequiredScopes, Svc> Layer<Svc> for RequireScope<S> {
    type Service = RequireScopeService<Svc>;

    fn layer(&self, inner: Svc) -> Self::Service {
        let (mode, scopes) = parse(&self.scopes);
        RequireScopeService::new(inner, mode, scopes)
    }
}

fn parse<S: RequiredScopes>(scopes: &S) -> (Mode, Arc<[Scope]>) {
    let (mode, texts) = scopes.required();
    assert!(
        !texts.is_empty(),
        "RequireScope names no scope, so it would guard nothing"
    );
    let scope = |text: &String| match scope::required(text) {
        Ok(scope) => scope,
        Err(error) => panic!("RequireScope: {error}"),
    };
    (mode, texts.iter().map(scope).collect())
}

#[cfg(feature = "axum")]
impl<T: super::TypedScopes> RequireScope<T> {
    /// What an extractor gives to a handler. The type was checked when it was compiled.
    pub(super) fn granted() -> Self {
        Self {
            scopes: T::default(),
        }
    }
}
