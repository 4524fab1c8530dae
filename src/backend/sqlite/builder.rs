//! Settings of a [`SqliteBackend`].

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use super::{
    Shared, SqliteBackend,
    file::OpenFile,
    open::{absolute, at, cannot_open, file_of, prepare},
    pools::Pools,
    schema::{STEPS, migrate},
    statements::Statements,
};
use crate::{
    backend::sql::{Lane, OpenError, TablePrefix},
    error::BackendError,
    sync::{hold_paused_clock, watch},
};

/// Settings of a [`SqliteBackend`], which one of [`open`](Self::open), [`over`](Self::over) and
/// [`in_memory`](Self::in_memory) makes.
///
/// ```no_run
/// # async fn run() -> Result<(), tower_api_key::OpenError> {
/// use std::time::Duration;
/// use tower_api_key::SqliteBackend;
///
/// let backend = SqliteBackend::builder()
///     .poll_every(Duration::from_millis(100))
///     .open("keys.db")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `open`, `over` or `in_memory`"]
pub struct SqliteBackendBuilder {
    table_prefix: Option<String>,
    poll_every: Duration,
    max_connections: u32,
    busy_timeout: Duration,
}

impl Default for SqliteBackendBuilder {
    fn default() -> Self {
        Self {
            table_prefix: None,
            poll_every: Duration::from_millis(250),
            max_connections: 4,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

impl SqliteBackendBuilder {
    /// What the names of the tables begin with, `tower_api_` by default. Two backends with different
    /// prefixes can share a file that a service has open: see [`over`](Self::over).
    pub fn table_prefix(mut self, prefix: &str) -> Self {
        self.table_prefix = Some(prefix.to_owned());
        self
    }

    /// How often it checks whether another process has written, 250 ms by default. It costs a
    /// few microseconds. What is written through this backend and its clones is noticed at once.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll_every = interval;
        self
    }

    /// How many connections read at once, 4 by default; one more writes, and one for each store
    /// looks for changes. A quarter of them, at least one, is reserved for lookups. For
    /// [`open`](Self::open) only.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long one waits for a file that another process has locked, 5 seconds by default. For
    /// [`open`](Self::open) only.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Opens the keys in the file at `path`, which is created if it is missing, readable by its owner
    /// alone (0600). Its folder has to exist, and both have to be writable.
    ///
    /// # Errors
    ///
    /// [`OpenError`], with the path and the reason. A file that is something else's is left as it is.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteBackend, OpenError> {
        let prefix = self.check()?;
        let path = absolute(path.as_ref())?;
        let prepared = prepare(&path, &prefix, self.busy_timeout).await;
        let options = prepared.map_err(|error| at(&path, error))?;
        let file = OpenFile::at(path.clone()).map_err(BackendError::unavailable);
        let file = file.map_err(|error| at(&path, error.into()))?;
        let readers =
            lasting(self.max_connections, self.busy_timeout).connect_lazy_with(options.clone());
        let writer = lasting(1, self.busy_timeout).connect_lazy_with(options);
        let made = self.make(&prefix, Pools::new(readers, writer), Some(file));
        made.await.map_err(|error| at(&path, error))
    }

    /// Keys in the database of `pool`, beside other tables. Its settings are the pool's: see to
    /// `synchronous = FULL` (which is SQLite's default) where what was answered must survive a power cut, and to
    /// `journal_mode = WAL` where reads mustn't wait for writes.
    ///
    /// A transaction of the service's has to be begun with [`Pool::begin`](sqlx::Pool::begin), or to end before its
    /// connection is given back. One that is found open on a connection of the pool, since its `BEGIN` was sent as
    /// any other text, is rolled back.
    ///
    /// A pool in memory must have one connection that never ends: `max_connections(1)`,
    /// `idle_timeout(None)`, `max_lifetime(None)`. Any other would lose the keys.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A table with one of our names that isn't ours is left as it is.
    pub async fn over(self, pool: SqlitePool) -> Result<SqliteBackend, OpenError> {
        let prefix = self.check()?;
        let clock = hold_paused_clock();
        let mut connection = pool.acquire().await.map_err(cannot_open)?;
        let path = file_of(&mut connection).await?;
        // A pool of one connection has no other.
        drop(connection);
        drop(clock);
        let options = pool.options();
        let lasts = options.get_max_connections() == 1
            && options.get_idle_timeout().is_none()
            && options.get_max_lifetime().is_none();
        if path.is_none() && !lasts {
            return Err(OpenError::Unsupported(
                "a database in memory ends with its connection: the pool needs \
                 `max_connections(1)`, `idle_timeout(None)` and `max_lifetime(None)`"
                    .to_owned(),
            ));
        }
        let file = path
            .map(OpenFile::at)
            .transpose()
            .map_err(BackendError::unavailable)?;
        self.make(&prefix, Pools::shared(pool), file).await
    }

    /// Keys in memory, on one connection.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn in_memory(self) -> Result<SqliteBackend, OpenError> {
        let options = SqliteConnectOptions::new().in_memory(true);
        let pool = lasting(1, self.busy_timeout).connect_lazy_with(options);
        let prefix = self.check()?;
        self.make(&prefix, Pools::new(pool.clone(), pool), None)
            .await
    }

    fn check(&self) -> Result<TablePrefix, OpenError> {
        let wrong = |setting, problem| Err(OpenError::Setting { setting, problem });
        if self.poll_every.is_zero() {
            return wrong("poll_every", "must not be zero");
        }
        // A pool makes room for all of them at once.
        if !(1..=1_000).contains(&self.max_connections) {
            return wrong("max_connections", "must be between 1 and 1,000");
        }
        // SQLite counts milliseconds in 31 bits.
        if i32::try_from(self.busy_timeout.as_millis()).is_err() {
            return wrong("busy_timeout", "must not be longer than 24 days");
        }
        match &self.table_prefix {
            None => Ok(TablePrefix::default()),
            Some(prefix) => TablePrefix::new(prefix),
        }
    }

    async fn make(
        self,
        prefix: &TablePrefix,
        pools: Pools,
        file: Option<OpenFile>,
    ) -> Result<SqliteBackend, OpenError> {
        let mut connection = pools.writer(Lane::Ordinary).await.map_err(cannot_open)?;
        migrate(&mut connection, prefix, STEPS).await?;
        drop(connection);
        let shared = Shared {
            pools,
            statements: Statements::new(prefix),
            file,
            poll_every: self.poll_every,
            written: watch::Sender::new(()),
        };
        // What was opened is what is there.
        shared.check_file()?;
        Ok(SqliteBackend(Arc::new(shared)))
    }
}

/// Connections that nobody has to test or to replace, since there is no network between.
fn lasting(connections: u32, busy_timeout: Duration) -> SqlitePoolOptions {
    /// For those who wait for another one who waits for the file.
    const AND_SOME: Duration = Duration::from_secs(1);

    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(busy_timeout.saturating_add(AND_SOME))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}
