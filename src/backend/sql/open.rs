//! Why a database can't be used.

use std::fmt;

use crate::error::BackendError;

/// A database can't be used for keys. It is reported when the backend is made.
///
/// `Debug` is the text for people, since that is what a `main` that returns it prints.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database can't be reached or read, or doesn't let us in.
    #[error("the database can't be opened")]
    Unavailable(#[from] BackendError),
    /// The tables were made by a newer version of this crate. They were left as they are.
    #[error(
        "the tables have the schema {found}, and this version of the crate knows up to {known}"
    )]
    #[non_exhaustive]
    NewerSchema {
        /// What stands there.
        found: i64,
        /// The newest one that is known.
        known: i64,
    },
    /// The database's role lacks a right.
    #[error("the role may not {action}")]
    #[non_exhaustive]
    Denied {
        /// What it may not do.
        action: String,
        /// What the database said.
        source: BackendError,
    },
    /// Something else stands where the keys should be. It was left as it is.
    #[error("{0}")]
    NotOurs(String),
    /// Our tables aren't whole: one of them is gone, or what logs changes is. They were left as they are.
    #[error("{0}")]
    Damaged(String),
    /// What was given can't keep keys: a server that is too old, a folder.
    #[error("{0}")]
    Unsupported(String),
    /// A schema or a prefix of tables isn't a lower-case identifier of at most 32 characters: `[a-z_][a-z0-9_]*`.
    #[error("{0:?} is not an identifier: [a-z_][a-z0-9_]*, at most 32 characters")]
    Identifier(String),
    /// A setting can't work.
    #[error("`{setting}` {problem}")]
    #[non_exhaustive]
    Setting {
        /// The method of the builder that set it.
        setting: &'static str,
        /// What it has to be.
        problem: &'static str,
    },
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::error::write_with_causes(self, f)
    }
}
