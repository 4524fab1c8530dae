//! Keys that other programs have written, taken over as ours.

mod pylon;
mod report;
mod scopes;

pub use self::{
    pylon::{ImportError, PylonImport},
    report::{ImportReport, RefusedReason, RefusedRow},
    scopes::{MissingScopes, OldPatterns, OldScopes, OldWildcard},
};
