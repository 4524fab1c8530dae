//! The tables, and how they come to be what this version of the crate needs.

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::open::cannot_open;
use crate::backend::sql::{OpenError, TablePrefix};

/// What is done to an empty database, one step after the other. The schema has the number of the
/// last step that was done; steps are added, and never changed.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];

/// The tables, without the prefix, and the version from which on there is one.
const TABLES: [(&str, usize); 4] = [
    ("keys", 1),
    ("key_changes", 1),
    ("key_grants", 2),
    ("key_peppers", 3),
];

/// What writes the log of changes, without the prefix.
pub(super) const TRIGGERS: [&str; 5] = [
    "key_inserted",
    "key_updated",
    "key_deleted",
    "key_displaced",
    "key_displaced_by_update",
];

/// What a database is before anything is done to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of ours.
    Nothing {
        /// Whether there is nothing of anybody else, either.
        is_empty: bool,
    },
    /// Our tables, after so many steps.
    Schema(usize),
}

/// Looks, and changes nothing. All that it sees is of one moment: another process may be taking a step.
///
/// # Errors
///
/// [`OpenError::NewerSchema`]; [`OpenError::NotOurs`] where something else has our names.
pub(super) async fn look(
    connection: &mut SqliteConnection,
    prefix: &TablePrefix,
    steps: &[&str],
) -> Result<Found, OpenError> {
    let mut transaction = connection.begin().await.map_err(cannot_open)?;
    let found = look_now(&mut transaction, prefix, steps).await;
    transaction.rollback().await.map_err(cannot_open)?;
    found
}

async fn look_now(
    connection: &mut SqliteConnection,
    prefix: &TablePrefix,
    steps: &[&str],
) -> Result<Found, OpenError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM main.sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(cannot_open)?;
    let has = |name: &str| {
        let name = format!("{prefix}{name}");
        names.iter().any(|found| found.eq_ignore_ascii_case(&name))
    };
    if !has("key_schema") {
        return match TABLES.into_iter().find(|(name, _)| has(name)) {
            None => Ok(Found::Nothing {
                is_empty: names.is_empty(),
            }),
            Some((name, _)) => Err(OpenError::NotOurs(format!(
                "the database has a `{prefix}{name}` that this crate hasn't made: set another prefix"
            ))),
        };
    }
    let versions = format!("SELECT version FROM main.{prefix}key_schema");
    let versions: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(versions))
        .fetch_all(connection)
        .await
        .map_err(|error| not_a_version(prefix, error))?;
    let &[found] = &*versions else {
        return Err(OpenError::NotOurs(format!(
            "`{prefix}key_schema` has {} rows instead of one",
            versions.len()
        )));
    };
    let version = match usize::try_from(found) {
        Ok(version @ 1..) if version <= steps.len() => version,
        Ok(1..) => {
            return Err(OpenError::NewerSchema {
                found,
                known: i64::try_from(steps.len()).unwrap_or(i64::MAX),
            });
        }
        _ => {
            return Err(OpenError::NotOurs(format!(
                "`{prefix}key_schema` has the version {found}"
            )));
        }
    };
    let is_wrong = |(name, since): &(&str, usize)| has(name) != (version >= *since);
    match TABLES.into_iter().find(is_wrong) {
        None => Ok(Found::Schema(version)),
        Some((name, since)) if version < since => Err(OpenError::NotOurs(format!(
            "the database has a `{prefix}{name}` that this crate hasn't made, which needs the name from now \
             on: rename it"
        ))),
        Some((name, _)) => Err(OpenError::NotOurs(format!(
            "the database has a `{prefix}key_schema`, and no `{prefix}{name}`"
        ))),
    }
}

fn not_a_version(prefix: &TablePrefix, error: sqlx::Error) -> OpenError {
    let is_other_table = match &error {
        sqlx::Error::ColumnDecode { .. } => true,
        // SQLITE_ERROR: it has no such column.
        sqlx::Error::Database(error) => error.code().as_deref() == Some("1"),
        _ => false,
    };
    if is_other_table {
        OpenError::NotOurs(format!("`{prefix}key_schema` holds something else"))
    } else {
        cannot_open(error)
    }
}

/// Does the steps that are missing, in one transaction that several processes may begin at once.
///
/// # Errors
///
/// Those of [`look`], and where nothing can be written.
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    prefix: &TablePrefix,
    steps: &[&str],
) -> Result<(), OpenError> {
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(cannot_open)?;
    let done = match look(&mut transaction, prefix, steps).await? {
        Found::Nothing { .. } => 0,
        Found::Schema(done) => done,
    };
    let mut text = String::new();
    if done == 0 {
        text.push_str("CREATE TABLE {prefix}key_schema (version INTEGER NOT NULL);");
        text.push_str("INSERT INTO {prefix}key_schema VALUES (0);");
    }
    for step in &steps[done..] {
        text.push_str(step);
    }
    // It says whether the database can be written, even where there is nothing else to do.
    text.push_str("UPDATE {prefix}key_schema SET version = {steps} WHERE version <> {steps};");
    let text = text
        .replace("{prefix}", &prefix.to_string())
        .replace("{steps}", &steps.len().to_string());
    sqlx::raw_sql(AssertSqlSafe(text))
        .execute(&mut *transaction)
        .await
        .map_err(cannot_open)?;
    transaction.commit().await.map_err(cannot_open)
}
