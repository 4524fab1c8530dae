//! What became of the rows of an import.

use std::fmt;

use crate::{
    error::InvalidKey,
    key::ApiKey,
    scope::ScopeError,
    token::{ParseKeyIdError, ParseSecretHashError, UnknownPepper},
};

/// What became of one key.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use = "it may have been refused"]
pub enum Imported {
    /// It was stored, as this record.
    Stored(Box<ApiKey>),
    /// A key with this id or digest was there already, and was left as it is.
    AlreadyThere,
    /// No key was made of it.
    Refused(RefusedRow),
}

/// What became of each row. `Display` gives a line for all, and one for each row that was refused.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use = "rows may have been refused"]
pub struct ImportReport {
    /// How many keys were stored.
    pub imported: u64,
    /// How many were there already under the same id or digest, and were left as they are.
    pub already_there: u64,
    /// The rows that no key was made of.
    pub refused: Vec<RefusedRow>,
}

impl ImportReport {
    pub(crate) fn count(&mut self, imported: Imported) {
        match imported {
            Imported::Stored(_) => self.imported += 1,
            Imported::AlreadyThere => self.already_there += 1,
            Imported::Refused(row) => self.refused.push(row),
        }
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} imported, {} already there, {} refused",
            self.imported,
            self.already_there,
            self.refused.len()
        )?;
        self.refused.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}

/// A row that no key was made of. It is still where it was: mend it there, and import again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedRow {
    /// The id of the key. Of an id that isn't well-formed, the first 16 characters, with what isn't
    /// visible ASCII escaped: it may be a whole token. A key of which a digest is kept has none: its place
    /// among those that were imported, from 1, and the beginning of its user id.
    pub id: String,
    /// Why.
    pub reason: RefusedReason,
}

impl RefusedRow {
    pub(super) fn of(id: &str, reason: RefusedReason) -> Self {
        let id = match &reason {
            RefusedReason::Id(_) => start_of(id),
            _ => id.to_owned(),
        };
        Self { id, reason }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn of_no_text(reason: RefusedReason) -> Self {
        let id = "(no text)".to_owned();
        Self { id, reason }
    }

    /// Of a key of which there is no more than the hash, which isn't shown.
    pub(super) fn of_number(number: usize, user_id: &str, reason: RefusedReason) -> Self {
        let id = format!("number {number}, of {}", start_of(user_id));
        Self { id, reason }
    }
}

fn start_of(text: &str) -> String {
    let start: String = text.chars().take(16).collect();
    start.escape_default().to_string()
}

impl fmt::Display for RefusedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.reason)
    }
}

/// Why no key was made of a row. It never shows the hash of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The id isn't one of a token of the form `pk.key_<id>.<secret>`.
    #[error(transparent)]
    Id(#[from] ParseKeyIdError),
    /// The hash isn't HMAC-SHA256, SHA-256 or SHA-512 in hex: an older program may have stored
    /// another kind.
    #[error(transparent)]
    SecretHash(#[from] ParseSecretHashError),
    /// The store doesn't know the pepper, so it couldn't check the key.
    #[error(transparent)]
    UnknownPepper(#[from] UnknownPepper),
    /// The store knows no tokens of which it has digests, so nobody could use the key.
    #[error("the store takes no such tokens: call `.digest_format(..)` when it is built")]
    NoDigestFormat,
    /// The owner, the name or a time can't be stored.
    #[error(transparent)]
    Field(#[from] InvalidKey),
    /// A scope isn't one here: it has a space, say, or a `*` in the middle.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// There are no scopes, and such keys are to be [refused](super::MissingScopes::Refuse).
    #[error("it has no scopes")]
    MissingScopes,
    /// A scope has a `*`, and such keys are to be [refused](super::OldScopes).
    #[error("it has the pattern {0:?} among its scopes")]
    Pattern(String),
    /// A time is missing, or lies before 1970 or after 9999.
    #[error("`{column}` is missing, or not between 1970 and 9999 in seconds")]
    #[non_exhaustive]
    Time {
        /// The column.
        column: &'static str,
    },
    /// A value is missing, or isn't of the type that it should be.
    #[error("`{column}` is missing, or of another type")]
    #[non_exhaustive]
    Column {
        /// The column.
        column: &'static str,
    },
}
