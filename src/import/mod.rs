//! Keys that other programs have written, taken over as ours.

mod old;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod pylon;
mod report;
mod scopes;

pub(crate) use self::old::Known;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::pylon::{ImportError, PylonImport};
pub use self::{
    old::OldKey,
    report::{ImportReport, Imported, RefusedReason, RefusedRow},
    scopes::{MissingScopes, OldPatterns, OldScopes, OldWildcard},
};
