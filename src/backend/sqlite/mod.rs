//! Keys in a SQLite file.

mod builder;
mod feed;
mod file;
mod grants;
mod lists;
mod open;
mod pools;
mod records;
mod rotate;
mod schema;
mod statements;
#[cfg(all(test, not(shuttle)))]
mod tests;

use std::{
    fmt, iter,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::{Connection as _, Sqlite, SqlitePool, query::Query, sqlite::SqliteArguments};

pub use self::builder::SqliteBackendBuilder;
use self::{
    feed::Feed,
    file::OpenFile,
    pools::Pools,
    records::{read_keys, write_key},
    statements::{MOST, Statement, Statements},
};
use super::{
    ApiKeyBackend, ChangeSink, KeySource, PageRequest, PepperUsage, Subscription, Touch,
    forward::forward_to_backend,
    sql::{Lane, OpenError, failed, millis},
    unchanged,
};
use crate::{
    error::BackendError,
    key::{ApiKey, GrantId, RevocationReason},
    sync::watch,
    token::{KeyId, LookupKey, PepperCheck},
};

/// Keys in a SQLite file, for the processes of one machine. Clones are one backend.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_api_key::{ApiKeyStore, Pepper, Peppers, SqliteBackend};
///
/// let store = ApiKeyStore::builder(SqliteBackend::open("keys.db").await?)
///     .peppers(Peppers::new(Pepper::from_file("v1", "keys.pepper")?))
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
///
/// What was answered is on disk: it survives a power cut. Every other process that has the file open
/// learns of a change within [`poll_every`](SqliteBackendBuilder::poll_every), 250 ms, whoever made
/// it: an `UPDATE` in the `sqlite3` shell counts, too.
///
/// ```sql
/// UPDATE tower_api_keys SET revoked_at = unixepoch() * 1000
/// WHERE user_id = 'user_1' AND revoked_at IS NULL;
/// ```
///
/// `id` is the 24 bytes and not the text of a key's id: one key is found by the first 16 characters of its
/// token, `display_prefix = 'pk.key_J1L3aUriQ'`.
///
/// A new version of this crate may change the tables when its first process opens them, in one transaction, and
/// adds columns without making the table of keys anew: what a service has that refers to it stays. Others read
/// meanwhile, and wait to write, some seconds for a hundred thousand keys.
///
/// # The file
///
/// It must be on a disk of this machine, as SQLite's write-ahead log asks for. **Stop what uses it
/// before it is replaced or moved**: while it is open, and something else or nothing is under its
/// name, all reads and writes are [unavailable](BackendError::unavailable), until it is back or the
/// backend is made anew. (Not on Windows, where it can't be moved while it is open.) Restoring into
/// it, with the shell's `.restore`, needs no stop.
#[derive(Clone)]
pub struct SqliteBackend(Arc<Shared>);

struct Shared {
    pools: Pools,
    statements: Statements,
    /// None in memory.
    file: Option<OpenFile>,
    poll_every: Duration,
    /// Says to the feeds of this backend that something was written.
    written: watch::Sender<()>,
}

impl SqliteBackend {
    /// Keys in the file at `path`, which is made where there is none, readable by its owner alone
    /// (0600).
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path).await
    }

    /// Keys in a database that the service has open already, beside its own tables.
    ///
    /// See [`SqliteBackendBuilder::over`].
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn new(pool: SqlitePool) -> Result<Self, OpenError> {
        Self::builder().over(pool).await
    }

    /// Keys in memory, for tests of what SQLite does. They are gone when the last clone is.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn in_memory() -> Result<Self, OpenError> {
        Self::builder().in_memory().await
    }

    /// For what can be set.
    pub fn builder() -> SqliteBackendBuilder {
        SqliteBackendBuilder::default()
    }
}

impl Shared {
    /// How many rows `query` has changed.
    async fn changed(
        &self,
        lane: Lane,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<u64, BackendError> {
        let write = async {
            let mut connection = self.pools.writer(lane).await?;
            query.execute(&mut *connection).await
        };
        Ok(self.write(write).await?.rows_affected())
    }

    /// # Errors
    ///
    /// Where the open file isn't the one under its name any more.
    fn check_file(&self) -> Result<(), BackendError> {
        self.file.as_ref().map_or(Ok(()), OpenFile::check)
    }

    /// What was read, if it was read from the file that is there.
    async fn read<T>(
        &self,
        read: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.check_file()?;
        let answer = read.await;
        self.check_file()?;
        answer
    }

    async fn write<T>(
        &self,
        write: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, BackendError> {
        self.check_file()?;
        let answer = write.await;
        // Also where it isn't known what was written.
        self.written.send_replace(());
        self.check_file()?;
        answer.map_err(failed)
    }
}

impl Shared {
    /// The records that `statement` finds by `keys`.
    async fn get(
        &self,
        lane: Lane,
        keys: &[&[u8; LookupKey::LEN]],
        statement: impl Fn(&Statements, usize) -> (&Statement, usize),
    ) -> Result<Vec<ApiKey>, BackendError> {
        let read = async {
            let mut found = Vec::new();
            let mut reader = self.pools.reader(lane).await?;
            for keys in keys.chunks(MOST) {
                let (statement, size) = statement(&self.statements, keys.len());
                let mut query = sqlx::query(statement.sql());
                // One of them again where there are fewer than the statement takes.
                for key in keys.iter().chain(iter::repeat(&keys[0])).take(size) {
                    query = query.bind(key.as_slice());
                }
                let rows = query.fetch_all(&mut *reader).await.map_err(failed)?;
                found.extend(read_keys(&rows)?);
            }
            Ok(found)
        };
        self.read(read).await
    }
}

impl KeySource for SqliteBackend {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let keys: Vec<_> = keys.iter().map(LookupKey::as_bytes).collect();
        self.0.get(Lane::Lookup, &keys, Statements::get).await
    }

    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        Feed::open(self.0.clone()).await.map(Subscription::feed)
    }
}

impl ApiKeyBackend for SqliteBackend {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        let query = write_key(sqlx::query(self.0.statements.insert.sql()), key);
        let is_done = self.0.changed(Lane::Ordinary, query).await? > 0;
        unchanged::inserted(self, key, None, is_done).await
    }

    async fn insert_made_by(
        &self,
        key: &ApiKey,
        maker: (KeyId, u64),
    ) -> Result<bool, BackendError> {
        let Ok(version) = i64::try_from(maker.1) else {
            return Ok(false);
        };
        let query = write_key(sqlx::query(self.0.statements.insert_made_by.sql()), key)
            .bind(maker.0.as_bytes().as_slice())
            .bind(version);
        let is_done = self.0.changed(Lane::Ordinary, query).await? > 0;
        unchanged::inserted(self, key, Some(maker), is_done).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let Ok(version) = i64::try_from(expected) else {
            return Ok(false);
        };
        let query = write_key(sqlx::query(self.0.statements.update.sql()), key).bind(version);
        let is_done = self.0.changed(Lane::Ordinary, query).await? > 0;
        unchanged::updated(self, &key.id, expected, is_done).await
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let query = sqlx::query(self.0.statements.delete.sql()).bind(id.as_bytes().as_slice());
        let is_done = self.0.changed(Lane::Revocation, query).await? > 0;
        unchanged::deleted(self, id, is_done).await
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let statements = &self.0.statements;
        let statement = match page.cursor() {
            None => &statements.first_page,
            Some(_) => &statements.next_page,
        };
        let mut query = sqlx::query(statement.sql())
            .bind(user_id)
            .bind(i64::try_from(page.max_keys()).unwrap_or(i64::MAX));
        if let Some(cursor) = page.cursor() {
            query = query
                .bind(millis(cursor.created_at()))
                .bind(cursor.id().as_bytes().as_slice());
        }
        let read = async {
            let mut reader = self.0.pools.reader(Lane::Ordinary).await?;
            let rows = query.fetch_all(&mut *reader).await.map_err(failed)?;
            read_keys(&rows)
        };
        self.0.read(read).await
    }

    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        let ids: Vec<_> = ids.iter().map(KeyId::as_bytes).collect();
        self.0
            .get(Lane::Revocation, &ids, Statements::get_by_id)
            .await
    }

    async fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> Result<bool, BackendError> {
        let Ok(version) = i64::try_from(expected) else {
            return Ok(false);
        };
        let is_done = self.0.rotate(successor, old, version).await?;
        unchanged::rotated(self, successor, old, expected, is_done).await
    }

    async fn pepper_usage(&self, now: SystemTime) -> Result<Vec<PepperUsage>, BackendError> {
        self.0.read(self.0.pepper_usage(now)).await
    }

    async fn pepper_checks(&self) -> Result<Vec<PepperCheck>, BackendError> {
        self.0.read(self.0.pepper_checks()).await
    }

    async fn insert_pepper_check(&self, check: &PepperCheck) -> Result<bool, BackendError> {
        let query = sqlx::query(self.0.statements.insert_pepper_check.sql())
            .bind(check.pepper().as_str())
            .bind(check.to_hex())
            .bind(millis(SystemTime::now()));
        Ok(self.0.changed(Lane::Ordinary, query).await? == 1)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        let shared = &*self.0;
        let write = async {
            let mut connection = shared.pools.writer(Lane::Ordinary).await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut changed = 0;
            for touches in touches.chunks(MOST) {
                let (statement, size) = shared.statements.touch(touches.len());
                let mut query = sqlx::query(statement.sql());
                for touch in touches.iter().chain(iter::repeat(&touches[0])).take(size) {
                    query = query
                        .bind(touch.id.as_bytes().as_slice())
                        .bind(millis(touch.used_at));
                }
                changed += query.execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            Ok(changed)
        };
        shared.check_file()?;
        let answer = write.await;
        shared.check_file()?;
        unchanged::touched(self, touches, answer.map_err(failed)?).await
    }

    async fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<bool, BackendError> {
        let query = sqlx::query(self.0.statements.revoke.sql())
            .bind(id.as_bytes().as_slice())
            .bind(millis(at))
            .bind(reason.map(RevocationReason::as_str));
        let is_done = self.0.changed(Lane::Revocation, query).await? > 0;
        unchanged::revoked(self, id, is_done).await
    }

    async fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Result<bool, BackendError> {
        let is_done = self.0.claim(grant, key, maker).await?;
        unchanged::claimed(self, grant, key, maker, is_done).await
    }

    async fn revoke_grant(&self, grant: &GrantId, at: SystemTime) -> Result<bool, BackendError> {
        let is_done = self.0.revoke_grant(grant, at).await?;
        unchanged::grant_revoked(self, grant, is_done).await
    }

    forward_to_backend!(self => self.0; list, revoke_for_user, purge, insert_grant, get_grant,
        get_grant_by_id, revoke_grants_of_user, list_grants);
}

impl fmt::Debug for SqliteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBackend")
            .field("file", &self.0.file.as_ref().map(OpenFile::path))
            .field("poll_every", &self.0.poll_every)
            .finish_non_exhaustive()
    }
}
