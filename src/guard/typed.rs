//! Scopes as types, for handler signatures.

use super::{
    decide::Needed,
    scope::{AllOf, AnyOf},
};

/// A scope as a type; [`scopes!`](crate::scopes) makes them.
///
/// One that is made by hand is checked where it is used, and needs `AsRef<str>`, too, to be used in a
/// layer:
///
/// ```compile_fail
/// # use axum::{Router, routing::get};
/// use tower_api_key::{RequireScope, TypedScope};
///
/// struct Everything;
///
/// impl TypedScope for Everything {
///     const SCOPE: &'static str = "*";
/// }
///
/// let app: Router = Router::new().route("/", get(async |_: RequireScope<Everything>| ()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a scope as a type",
    note = "make one with `scopes! {{ pub NotesRead = \"notes:read\"; }}`; an extractor asks for `RequireScope<NotesRead>`, `RequireScope<AnyOf<(NotesRead, NotesWrite)>>` or `RequireScope<AllOf<(…)>>`"
)]
pub trait TypedScope: Send + Sync + 'static {
    /// The scope, a plain one. That it is valid is checked when the program is compiled.
    const SCOPE: &'static str;
}

/// What a [`RequireScope`](struct@super::RequireScope) extractor can ask for: a [`TypedScope`], or
/// [`AnyOf`] or [`AllOf`] a tuple of up to eight of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a scope as a type",
    note = "make one with `scopes! {{ pub NotesRead = \"notes:read\"; }}` and ask for `RequireScope<NotesRead>`"
)]
pub trait TypedScopes: Send + Sync + 'static {
    #[doc(hidden)]
    const NEEDED: Needed;
    #[doc(hidden)]
    const SCOPES: &'static [&'static str];
}

impl<T: TypedScope> TypedScopes for T {
    const NEEDED: Needed = Needed::All;
    const SCOPES: &'static [&'static str] = &[checked::<T>()];
}

const fn checked<T: TypedScope>() -> &'static str {
    assert!(
        crate::scope::is_plain(T::SCOPE),
        "a typed scope is not a valid scope, or is a pattern"
    );
    T::SCOPE
}

macro_rules! tuples {
    ($($($name:ident)+;)+) => {$(
        impl<$($name: TypedScope),+> TypedScopes for AnyOf<($($name,)+)> {
            const NEEDED: Needed = Needed::Any;
            const SCOPES: &'static [&'static str] = &[$(checked::<$name>()),+];
        }

        impl<$($name: TypedScope),+> TypedScopes for AllOf<($($name,)+)> {
            const NEEDED: Needed = Needed::All;
            const SCOPES: &'static [&'static str] = &[$(checked::<$name>()),+];
        }
    )+};
}

super::up_to_eight!(tuples);

/// Makes types of scopes, for [`RequireScope`](struct@crate::RequireScope) in handler signatures.
///
/// ```
/// use tower_api_key::{AuthContext, RequireScope, scopes};
///
/// scopes! {
///     /// See all notes.
///     pub NotesRead = "notes:read";
///     pub NotesWrite = "notes:write";
/// }
///
/// async fn list(auth: AuthContext, _: RequireScope<NotesRead>) -> String {
///     format!("the notes of {}", auth.user_id())
/// }
///
/// // As a layer, too:
/// let layer = RequireScope(NotesWrite);
/// # fn is_layer<L: tower_layer::Layer<()>>(_: L) {}
/// # is_layer(layer);
/// ```
///
/// A scope that isn't valid, or is a pattern, doesn't compile:
///
/// ```compile_fail
/// tower_api_key::scopes! { pub Notes = "notes:*"; }
/// ```
#[macro_export]
macro_rules! scopes {
    ($($(#[$attribute:meta])* $visibility:vis $name:ident = $scope:literal;)+) => {$(
        $(#[$attribute])*
        #[doc = concat!("The scope `", $scope, "`.")]
        #[derive(Debug, Clone, Copy, Default)]
        $visibility struct $name;

        impl $crate::TypedScope for $name {
            const SCOPE: &'static str = $scope;
        }

        impl ::core::convert::AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                <Self as $crate::TypedScope>::SCOPE
            }
        }

        const _: () = ::core::assert!(
            $crate::__private::is_plain($scope),
            "not a valid scope, or a pattern"
        );
    )+};
}
