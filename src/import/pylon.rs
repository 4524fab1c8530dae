//! Keys that `pylon` 0.3 has written.

use std::{fmt, time::SystemTime};

use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Row, Type};

use super::{ImportReport, OldScopes, RefusedReason, RefusedRow};
use crate::{
    backend::ApiKeyBackend,
    clock::from_unix_millis,
    error::BackendError,
    key::{ApiKey, NewApiKey},
    token::{KeyId, PepperId, SecretHash},
};

/// Takes over the keys that `pylon` 0.3 has written to its table `_pylon_api_keys`, in SQLite or in
/// PostgreSQL, into any [`ApiKeyBackend`].
///
/// The tokens that people hold go on working, once the store knows pylon's pepper under the id that
/// is given here. Pylon took peppers of any length, so it may have to be made with
/// [`Pepper::weak_for_import`](crate::Pepper::weak_for_import).
///
/// Owner, name, scopes, display prefix, and all times are kept: a key that has expired is imported as
/// one that has expired. What can't be taken over as it stands is refused and
/// [listed](ImportReport::refused), and the others go on.
///
/// It may be run again, after an error too: what is there already is left as it is, whatever became
/// of it since. A key that was deleted or [purged](crate::ApiKeyStore::purge) here would come back, so let both wait
/// until the import is done. **A key that was deleted in pylon after it was imported goes on working here**, and
/// another import doesn't change that: stop pylon's writers first, or revoke it here.
///
/// The import doesn't see the pepper: verify a token afterwards that you know. Leave the store's
/// [brand](crate::ApiKeyStoreBuilder::brand) as it is, since pylon's tokens begin with `pk`.
///
/// In pylon's table times are seconds, scopes are separated by commas without spaces, and hashes are
/// `hex(HMAC-SHA256(pepper, secret))`.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_api_key::{
///     ApiKeyStore, MissingScopes, OldPatterns, OldScopes, OldWildcard, Pepper,
///     PepperId, Peppers, PylonImport,
/// };
/// # #[cfg(feature = "sqlite")]
/// # use tower_api_key::sqlx::SqlitePool;
///
/// let scopes = OldScopes {
///     missing: MissingScopes::Nothing,
///     wildcard: OldWildcard::AllScopes,
///     patterns: OldPatterns::Ours,
/// };
/// # #[cfg(feature = "sqlite")] {
/// let backend = tower_api_key::SqliteBackend::open("keys.db").await?;
/// let old = SqlitePool::connect("sqlite:pylon.db").await?;
/// let import = PylonImport::new(PepperId::new("pylon")?, scopes);
/// let report = import.from_sqlite(&old, &backend).await?;
/// println!("{report}");
///
/// let peppers = Peppers::new(Pepper::from_env("v1", "API_KEY_PEPPER")?)
///     .with_retired(Pepper::weak_for_import("pylon", std::env::var("PYLON_PEPPER")?)?)?;
/// let store = ApiKeyStore::builder(backend).peppers(peppers).build().await?;
/// # }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is imported before it is told from where"]
pub struct PylonImport {
    pepper: PepperId,
    scopes: OldScopes,
}

const TABLE: &str = "_pylon_api_keys";
/// How many rows are read at a time.
const PAGE: i64 = 500;

impl PylonImport {
    /// An import of keys whose secrets were hashed under `pepper`, which say of their scopes what
    /// `scopes` explains.
    pub const fn new(pepper: PepperId, scopes: OldScopes) -> Self {
        Self { pepper, scopes }
    }

    /// Imports all keys of a SQLite database into `backend`.
    ///
    /// # Errors
    ///
    /// [`ImportError`]. What was imported before stays.
    #[cfg(feature = "sqlite")]
    pub async fn from_sqlite(
        &self,
        old: &sqlx::SqlitePool,
        backend: &impl ApiKeyBackend,
    ) -> Result<ImportReport, ImportError> {
        let columns: i64 = sqlx::query_scalar("SELECT count(*) FROM pragma_table_info(?)")
            .bind(TABLE)
            .fetch_one(old)
            .await
            .map_err(unreadable)?;
        if columns == 0 {
            return Err(ImportError::NoTable);
        }
        // By the number of the row: ids of any type, or none, can stand in a text column.
        let page =
            format!("SELECT rowid AS row, * FROM {TABLE} WHERE rowid > ? ORDER BY rowid LIMIT ?");
        let mut report = ImportReport::default();
        let mut last = i64::MIN;
        loop {
            let rows = sqlx::query(AssertSqlSafe(page.as_str()))
                .bind(last)
                .bind(PAGE)
                .fetch_all(old)
                .await
                .map_err(unreadable)?;
            let Some(row) = rows.last() else {
                return Ok(report);
            };
            last = row.try_get("row").map_err(unreadable)?;
            let keys = rows.iter().map(|row| self.key(row)).collect();
            store(keys, backend, &mut report).await?;
        }
    }

    /// Imports all keys of a PostgreSQL database into `backend`. The table is looked for in the
    /// schemas of the connection's `search_path`.
    ///
    /// # Errors
    ///
    /// [`ImportError`]. What was imported before stays.
    #[cfg(feature = "postgres")]
    pub async fn from_postgres(
        &self,
        old: &sqlx::PgPool,
        backend: &impl ApiKeyBackend,
    ) -> Result<ImportReport, ImportError> {
        let is_there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(TABLE)
            .fetch_one(old)
            .await
            .map_err(unreadable)?;
        if !is_there {
            return Err(ImportError::NoTable);
        }
        let page = |after| format!("SELECT * FROM {TABLE} {after} ORDER BY id LIMIT $1");
        let (first, next) = (page(""), page("WHERE id > $2"));
        let mut report = ImportReport::default();
        let mut last: Option<String> = None;
        loop {
            let query = match &last {
                None => sqlx::query(AssertSqlSafe(first.as_str())).bind(PAGE),
                Some(last) => sqlx::query(AssertSqlSafe(next.as_str()))
                    .bind(PAGE)
                    .bind(last),
            };
            let rows = query.fetch_all(old).await.map_err(unreadable)?;
            let Some(row) = rows.last() else {
                return Ok(report);
            };
            last = Some(row.try_get("id").map_err(unreadable)?);
            let keys = rows.iter().map(|row| self.key(row)).collect();
            store(keys, backend, &mut report).await?;
        }
    }

    fn key<'r, R>(&self, row: &'r R) -> Result<ApiKey, RefusedRow>
    where
        R: Row,
        &'static str: ColumnIndex<R>,
        String: Decode<'r, R::Database> + Type<R::Database>,
        i64: Decode<'r, R::Database> + Type<R::Database>,
    {
        let id = required::<String, R>(row, "id");
        let text = id.as_deref().ok().map(str::to_owned);
        id.and_then(|id| self.key_of(&id, row))
            .map_err(|reason| match &text {
                Some(id) => RefusedRow::of(id, reason),
                None => RefusedRow::of_no_text(reason),
            })
    }

    fn key_of<'r, R>(&self, id: &str, row: &'r R) -> Result<ApiKey, RefusedReason>
    where
        R: Row,
        &'static str: ColumnIndex<R>,
        String: Decode<'r, R::Database> + Type<R::Database>,
        i64: Decode<'r, R::Database> + Type<R::Database>,
    {
        let id: KeyId = id.parse()?;
        let user_id: String = required(row, "user_id")?;
        let name: Option<String> = column(row, "name")?;
        // Pylon wrote an empty text where there was no name.
        let name = name.filter(|name| !name.is_empty());
        let hash: String = required(row, "secret_hash")?;
        let scopes: Option<String> = column(row, "scopes")?;
        let scopes = self.scopes.of_text(scopes.as_deref())?;
        let prefix: Option<String> = column(row, "prefix")?;

        let as_new = NewApiKey::for_user(&user_id, scopes.clone());
        as_new.name(name.as_deref().unwrap_or_default()).check()?;
        let mut key = ApiKey::new(
            id,
            user_id,
            scopes,
            SecretHash::from_hex(self.pepper, &hash)?,
        );
        key.name = name;
        if let Some(prefix) = prefix.and_then(|prefix| prefix.parse().ok()) {
            key.display_prefix = prefix;
        }
        let created_at = RefusedReason::Time {
            column: "created_at",
        };
        key.created_at = time(row, "created_at")?.ok_or(created_at)?;
        key.expires_at = time(row, "expires_at")?;
        key.last_used_at = time(row, "last_used_at")?;
        Ok(key)
    }
}

async fn store(
    keys: Vec<Result<ApiKey, RefusedRow>>,
    backend: &impl ApiKeyBackend,
    report: &mut ImportReport,
) -> Result<(), ImportError> {
    for key in keys {
        match key {
            Ok(key) if backend.insert(&key).await.map_err(ImportError::Write)? => {
                report.imported += 1;
            }
            Ok(_) => report.already_there += 1,
            Err(refused) => report.refused.push(refused),
        }
    }
    Ok(())
}

fn column<'r, T, R>(row: &'r R, column: &'static str) -> Result<Option<T>, RefusedReason>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
{
    row.try_get(column)
        .map_err(|_| RefusedReason::Column { column })
}

fn required<'r, T, R>(row: &'r R, name: &'static str) -> Result<T, RefusedReason>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
{
    column(row, name)?.ok_or(RefusedReason::Column { column: name })
}

/// A time in whole seconds since 1970.
fn time<'r, R>(row: &'r R, name: &'static str) -> Result<Option<SystemTime>, RefusedReason>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let Some(seconds) = column::<i64, R>(row, name)? else {
        return Ok(None);
    };
    let millis = u64::try_from(seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000));
    let time = millis.and_then(from_unix_millis);
    time.map(Some).ok_or(RefusedReason::Time { column: name })
}

fn unreadable(error: sqlx::Error) -> ImportError {
    ImportError::Read(BackendError::unavailable(error))
}

/// An import came to an end before all rows were looked at. It may be run again.
///
/// `Debug` is the text for people, since that is what a `main` that returns it prints.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The database has no table of that name: it may be another database, or another schema.
    #[error("there is no table `{TABLE}`")]
    NoTable,
    /// The old table can't be read.
    #[error("the table `{TABLE}` can't be read")]
    Read(#[source] BackendError),
    /// A key can't be stored where it is to go.
    #[error("a key can't be stored")]
    Write(#[source] BackendError),
}

impl fmt::Debug for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::error::write_with_causes(self, f)
    }
}
