//! `RequireScope`, as a layer.

use std::{fmt, marker::PhantomData};

use tower_layer::Layer;

use super::{
    decide::{Needed, Requirement, ScopesToHold},
    service::RequireScopeService,
    typed::TypedScopes,
};
use crate::scope::parse_required;

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
///     .route("/notes", get(list).merge(post(add).layer(RequireScope("notes:write"))))
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
/// The [function](RequireScope()) of the same name makes one. An extractor is taken as
/// `_: RequireScope<NotesRead>`: there is nothing in it.
pub struct RequireScope<S = &'static str> {
    requirement: Requirement,
    scopes: PhantomData<fn() -> S>,
}

/// Makes the guard [`RequireScope`](struct@RequireScope).
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
/// when the routes are put together: some layers axum builds for each connection only.
#[allow(non_snake_case, reason = "it stands for the constructor of the type")]
#[must_use]
#[track_caller]
pub fn RequireScope<S: RequiredScopes>(scopes: S) -> RequireScope<S> {
    let (needed, texts) = scopes.required();
    assert!(
        !texts.is_empty(),
        "RequireScope names no scope, so it would guard nothing"
    );
    let mut plain = Vec::with_capacity(texts.len());
    for text in texts {
        match parse_required(&text) {
            Ok(scope) => plain.push(scope),
            Err(error) => panic!("RequireScope: {error}"),
        }
    }
    RequireScope::new(needed, ScopesToHold::Shared(plain.into()))
}

impl<S> RequireScope<S> {
    fn new(needed: Needed, scopes: ScopesToHold) -> Self {
        Self {
            requirement: Requirement { needed, scopes },
            scopes: PhantomData,
        }
    }
}

impl<T: TypedScopes> RequireScope<T> {
    /// The guard that the type says. Its scopes were checked when it was compiled.
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "extractors are axum's")
    )]
    pub(super) fn typed() -> Self {
        Self::new(T::NEEDED, ScopesToHold::Static(T::SCOPES))
    }

    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "extractors are axum's")
    )]
    pub(super) fn requirement(&self) -> &Requirement {
        &self.requirement
    }
}

impl<S, Svc> Layer<Svc> for RequireScope<S> {
    type Service = RequireScopeService<Svc>;

    fn layer(&self, inner: Svc) -> Self::Service {
        RequireScopeService::new(inner, self.requirement.clone())
    }
}

impl<S> Clone for RequireScope<S> {
    fn clone(&self) -> Self {
        Self {
            requirement: self.requirement.clone(),
            scopes: PhantomData,
        }
    }
}

impl<S> fmt::Debug for RequireScope<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireScope")
            .field("requirement", &self.requirement)
            .finish()
    }
}

/// Any of several scopes is enough.
///
/// ```
/// use tower_api_key::{AnyOf, RequireScope, scopes};
///
/// scopes! { NotesWrite = "notes:write"; Admin = "admin"; }
///
/// let layer = RequireScope(AnyOf((NotesWrite, Admin)));
/// async fn handler(_: RequireScope<AnyOf<(NotesWrite, Admin)>>) {}
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AnyOf<S>(pub S);

/// All of several scopes are needed. It is used like [`AnyOf`].
#[derive(Debug, Clone, Copy)]
pub struct AllOf<S>(pub S);

/// What a [`RequireScope`](struct@crate::RequireScope) layer can ask for: one scope, or [`AnyOf`] or
/// [`AllOf`] several.
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't name scopes that a route can ask for",
    note = "give `RequireScope` a string, a type made by `scopes!`, or `AnyOf` or `AllOf` several"
)]
pub trait RequiredScopes {
    #[doc(hidden)]
    fn required(self) -> (Needed, Vec<String>);
}

impl<S: AsRef<str>> RequiredScopes for S {
    fn required(self) -> (Needed, Vec<String>) {
        (Needed::All, vec![self.as_ref().to_owned()])
    }
}

impl<L: ScopeList> RequiredScopes for AnyOf<L> {
    fn required(self) -> (Needed, Vec<String>) {
        (Needed::Any, self.0.texts())
    }
}

impl<L: ScopeList> RequiredScopes for AllOf<L> {
    fn required(self) -> (Needed, Vec<String>) {
        (Needed::All, self.0.texts())
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
    fn texts(self) -> Vec<String>;
}

impl<S: AsRef<str>> ScopeList for &[S] {
    fn texts(self) -> Vec<String> {
        self.iter().map(|scope| scope.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<str>, const N: usize> ScopeList for &[S; N] {
    fn texts(self) -> Vec<String> {
        self.as_slice().texts()
    }
}

impl<S: AsRef<str>, const N: usize> ScopeList for [S; N] {
    fn texts(self) -> Vec<String> {
        self.as_slice().texts()
    }
}

impl<S: AsRef<str>> ScopeList for Vec<S> {
    fn texts(self) -> Vec<String> {
        self.as_slice().texts()
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)+) => {$(
        impl<$($name: AsRef<str>),+> ScopeList for ($($name,)+) {
            #[allow(non_snake_case, reason = "a variable for each type")]
            fn texts(self) -> Vec<String> {
                let ($($name,)+) = self;
                vec![$($name.as_ref().to_owned()),+]
            }
        }
    )+};
}

super::up_to_eight!(tuples);
