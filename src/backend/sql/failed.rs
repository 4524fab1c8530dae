//! What an error of a database means.

use sqlx::error::DatabaseError;

use crate::error::BackendError;

/// Tells a record that can't be read from data that the database refuses, and both from an outage,
/// which everything else may be.
pub(in crate::backend) fn failed(error: sqlx::Error) -> BackendError {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => BackendError::corrupt(error),
        sqlx::Error::Database(error) => {
            let refusal = refusal(&*error);
            let said = Said {
                message: error.message().to_owned(),
                code: error.code().map(String::from),
            };
            match refusal {
                #[cfg(feature = "postgres")]
                Some(Refusal::Text) => BackendError::invalid_text(said),
                Some(Refusal::Constraint(name)) => BackendError::constraint(&name, said),
                None => BackendError::unavailable(said),
            }
        }
        error => BackendError::unavailable(error),
    }
}

/// What a database has said, without the details: those of a row that it refuses are the whole row, the
/// hash of the secret with it.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({})", code.as_deref().unwrap_or("no code"))]
struct Said {
    message: String,
    code: Option<String>,
}

/// Why data was refused.
enum Refusal {
    /// The database's encoding doesn't have a character. SQLite stores any text.
    #[cfg(feature = "postgres")]
    Text,
    /// By what an operator finds the constraint.
    Constraint(String),
}

fn refusal(error: &dyn DatabaseError) -> Option<Refusal> {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return match error.code() {
            // `character_not_in_repertoire`, `untranslatable_character`.
            "22021" | "22P05" => Some(Refusal::Text),
            // Data exceptions, integrity constraints, and what a trigger raises without a code.
            code if code.starts_with("22") || code.starts_with("23") || code == "P0001" => {
                let name = error.constraint().or(error.column()).unwrap_or(code);
                Some(Refusal::Constraint(name.to_owned()))
            }
            _ => None,
        };
    }
    #[cfg(feature = "sqlite")]
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        /// `SQLITE_CONSTRAINT`, the lowest byte of each extended code of a constraint.
        const CONSTRAINT: u32 = 19;
        let code = error.code()?;
        let is_constraint = code
            .parse::<u32>()
            .is_ok_and(|code| code & 0xff == CONSTRAINT);
        // "UNIQUE constraint failed: " and an index or columns; a trigger says what it wants.
        let named = error.message().split_once("constraint failed: ");
        let name = named.map_or(&*code, |(_, name)| name);
        return is_constraint.then(|| Refusal::Constraint(name.to_owned()));
    }
    None
}
