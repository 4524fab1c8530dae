//! How a backend is set up.

use std::{error::Error, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    super::sql::{OpenError, end_stray, failed},
    PostgresBackend, Shared,
    connect_url::{self, ConnectUrl},
    connections::Connections,
    credentials::{Credentials, PasswordSource},
    names::Names,
    own_settings,
    pooler::refuse_shared_sessions,
    privileges, schema,
    session::{Sessions, Source, listening_pool, no_connection},
    statements::Statements,
};
use crate::sync::{hold_paused_clock, timeout};

/// Settings of a [`PostgresBackend`].
///
/// ```no_run
/// use tower_api_key::PostgresBackend;
///
/// # async fn run() -> Result<(), tower_api_key::OpenError> {
/// let backend = PostgresBackend::builder()
///     .schema("auth")
///     .max_connections(4)
///     .connect("postgres://notes@db.internal/notes?sslmode=verify-full")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `connect`, `connect_with` or `over`"]
pub struct PostgresBackendBuilder {
    schema: String,
    table_prefix: Option<String>,
    max_connections: u32,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    roles: Vec<String>,
    password: Option<PasswordSource>,
}

impl PostgresBackendBuilder {
    pub(super) fn new() -> Self {
        Self {
            schema: "public".to_owned(),
            table_prefix: None,
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(2),
            roles: Vec::new(),
            password: None,
        }
    }

    /// Names the roles that instances connect as, beside the one that owns the tables.
    ///
    /// They get the privileges that they need when the tables are created, and later if they lack
    /// some and this role owns the tables. Every other role has none on tables that this crate
    /// creates, whatever the default privileges of the database are.
    pub fn privileges_for<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// The schema of the tables: `public` where nothing is said, whatever the `search_path` is. It is
    /// made where it doesn't exist, which needs the right to `CREATE` in the database.
    ///
    /// A lower-case identifier of at most 32 characters.
    pub fn schema(mut self, name: &str) -> Self {
        name.clone_into(&mut self.schema);
        self
    }

    /// What the names of the tables begin with: `tower_api_` where nothing is said, so that keys are
    /// in `tower_api_keys`.
    ///
    /// A lower-case identifier of at most 32 characters.
    pub fn table_prefix(mut self, prefix: &str) -> Self {
        self.table_prefix = Some(prefix.to_owned());
        self
    }

    /// How many connections [`connect`](Self::connect) makes at most, when they are needed: 8. One
    /// more listens for changes. A quarter of them is reserved for lookups, and of the rest at
    /// least one for revocations.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long one waits for a connection: 2 seconds, over a service's pool also.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }

    /// How long a statement may take: 2 seconds, and a revocation at least 10. The server gives up
    /// by then, on connections that [`connect`](Self::connect) makes. So do we, on all of them,
    /// when both limits have passed: a connection whose other end is gone says nothing.
    pub fn statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit;
        self
    }

    /// Calls `fetch` for the password of each new connection, among them the one that listens for
    /// changes: for passwords that are rotated, and tokens that expire.
    ///
    /// A call that needs a new connection waits for it, within the limit of
    /// [`acquire_timeout`](Self::acquire_timeout). Keep the password in memory as long as it is
    /// valid if fetching it takes long. An error is an outage until a later connection gets one.
    ///
    /// ```no_run
    /// use tower_api_key::PostgresBackend;
    ///
    /// async fn password() -> std::io::Result<String> {
    ///     let text = std::fs::read_to_string("/run/secrets/db-password")?;
    ///     Ok(text.trim_end().to_owned())
    /// }
    ///
    /// # async fn run() -> Result<(), tower_api_key::OpenError> {
    /// let backend = PostgresBackend::builder()
    ///     .password_from(password)
    ///     .connect("postgres://notes@db.internal/notes?sslmode=verify-full")
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn password_from<F, R, E>(mut self, fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.password = Some(PasswordSource::new(fetch));
        self
    }

    /// A backend with connections of its own, to `postgres://user:password@host:port/database`.
    ///
    /// TLS is as `sslmode` says, by rustls: `verify-full` is the one that a network isn't trusted
    /// with; `prefer`, which sqlx takes where the URL says nothing, falls back to none. The tables
    /// are made where they are missing.
    ///
    /// The URL may have the parameters of
    /// [`PgConnectOptions`](sqlx::postgres::PgConnectOptions#parameters). Other parameters of libpq
    /// are accepted if the connection is as safe without them, such as `connect_timeout` or
    /// `gssencmode=prefer`; [`warnings`](crate::ApiKeyBackend::warnings) lists them.
    /// `sslmode=require` with an `sslrootcert` is `verify-ca`, as in libpq.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names what is wrong and never shows the password.
    /// [`OpenError::Unsupported`] names a parameter that is unknown, or that would be lost although
    /// safety depends on it, such as `channel_binding=require`.
    pub async fn connect(self, url: &str) -> Result<PostgresBackend, OpenError> {
        let names = self.check()?;
        let ConnectUrl { options, warnings } = connect_url::parse(url)?;
        self.open(names, options, warnings).await
    }

    /// Opens a backend with connections of its own that are made with `options`, for what a URL
    /// cannot say: certificates in memory, or how the driver logs statements.
    ///
    /// Otherwise as [`connect`](Self::connect). An application name is set where there is none, and
    /// `extra_float_digits` is not used.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names what is wrong and never shows the password.
    pub async fn connect_with(
        self,
        options: PgConnectOptions,
    ) -> Result<PostgresBackend, OpenError> {
        let names = self.check()?;
        self.open(names, options, Vec::new()).await
    }

    async fn open(
        self,
        names: Names,
        options: PgConnectOptions,
        warnings: Vec<String>,
    ) -> Result<PostgresBackend, OpenError> {
        let password = self.password.clone();
        let credentials = Credentials::new(options, password, self.acquire_timeout);
        let options = credentials.current().await?;
        let _clock = hold_paused_clock();
        let other = timeout(self.acquire_timeout, options.connect()).await;
        let mut other = other.map_err(|_| no_connection())?.map_err(failed)?;
        let listening = listening_pool(PgPoolOptions::new(), options);
        refuse_shared_sessions(&listening, &mut other, self.acquire_timeout).await?;
        drop(other);
        let settings = own_settings(self.statement_timeout);
        let (max, acquire_timeout) = (self.max_connections, self.acquire_timeout);
        let connections = Connections::new(credentials, settings, max, acquire_timeout);
        let lent = timeout(self.acquire_timeout, connections.lend()).await;
        let mut lent = lent.unwrap_or_else(|_| Err(no_connection()))?;
        let found = self.prepare(&mut lent.connection, &names).await?;
        lent.give_back();
        let from = Source::Own(Box::new(connections));
        let warnings = [warnings, found].concat();
        Ok(self.made(from, names, warnings))
    }

    /// A backend over the service's own pool. One connection more is made with the same options, which
    /// listens for changes. The tables are made where they are missing.
    ///
    /// A transaction of the service's has to be begun with [`Pool::begin`](sqlx::Pool::begin), or to end before its
    /// connection is given back. One that is found open on a connection of the pool, since its `BEGIN` was sent as
    /// any other text, is rolled back. To look for one costs each write a round trip, and another one
    /// shows whether row-level security hides rows.
    ///
    /// In a process with several tokio runtimes, use the pool and the store in one of them. sqlx's
    /// pool gives any idle connection to any caller, and a connection works only while its own
    /// runtime runs. Connections of [`connect`](Self::connect) are used in their own runtime alone.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names what is wrong.
    pub async fn over(self, pool: PgPool) -> Result<PostgresBackend, OpenError> {
        let names = self.check()?;
        if self.password.is_some() {
            return Err(OpenError::Setting {
                setting: "password_from",
                problem: "is for `connect` and `connect_with`: a pool makes its own connections. \
                    Call `set_connect_options` when the password changes",
            });
        }
        let _clock = hold_paused_clock();
        let mut connection = pool.acquire().await.map_err(failed)?;
        end_stray(&mut *connection).await.map_err(failed)?;
        let from = Source::Pool(pool);
        let listening = from.listening_pool().await?;
        refuse_shared_sessions(&listening, &mut connection, self.acquire_timeout).await?;
        let warnings = self.prepare(&mut connection, &names).await?;
        drop(connection);
        Ok(self.made(from, names, warnings))
    }

    /// Brings the tables up to date, and returns what an operator should know.
    async fn prepare(
        &self,
        connection: &mut PgConnection,
        names: &Names,
    ) -> Result<Vec<String>, OpenError> {
        schema::prepare(connection, names, schema::STEPS, &self.roles).await?;
        let exposed = privileges::exposed(connection, names, &self.roles).await?;
        Ok(privileges::warning(&exposed).into_iter().collect())
    }

    pub(super) fn made(self, from: Source, names: Names, warnings: Vec<String>) -> PostgresBackend {
        PostgresBackend(Arc::new(Shared {
            sessions: Sessions::new(from, &names, self.acquire_timeout, self.statement_timeout),
            statements: Statements::new(&names),
            channel: names.channel(),
            statement_timeout: self.statement_timeout,
            names,
            roles: self.roles,
            warnings,
        }))
    }

    fn check(&self) -> Result<Names, OpenError> {
        let names = Names::new(&self.schema, self.table_prefix.as_deref())?;
        if !(1..=1_000).contains(&self.max_connections) {
            return Err(OpenError::Setting {
                setting: "max_connections",
                problem: "must be between 1 and 1,000",
            });
        }
        let limits = [
            ("acquire_timeout", self.acquire_timeout),
            ("statement_timeout", self.statement_timeout),
        ];
        for (setting, limit) in limits {
            if limit < Duration::from_millis(1) || limit > Duration::from_secs(24 * 60 * 60) {
                return Err(OpenError::Setting {
                    setting,
                    problem: "must be between a millisecond and a day",
                });
            }
        }
        Ok(names)
    }
}
