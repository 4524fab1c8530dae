//! Keys in PostgreSQL.

mod builder;
mod connect_url;
mod connections;
mod credentials;
mod feed;
mod grants;
mod listening;
mod lists;
mod names;
mod pooler;
mod privileges;
mod row;
mod schema;
mod session;
mod statements;
#[cfg(all(test, target_os = "linux", not(shuttle)))]
mod tests;
mod time;
mod url_parameters;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::{PgPool, postgres::PgConnectOptions};

pub use self::{builder::PostgresBackendBuilder, privileges::ExposedPrivileges};
use self::{
    feed::Feed,
    names::Names,
    session::Sessions,
    statements::{Statements, query},
    time::Timestamp,
};
use super::{
    ApiKeyBackend, ChangeSink, KeySource, PageRequest, PepperUsage, Subscription, Touch,
    forward::forward_to_backend,
    sql::{Lane, OpenError},
    unchanged,
};
use crate::{
    error::BackendError,
    key::{ApiKey, GrantId, RevocationReason},
    token::{KeyId, LookupKey, PepperCheck},
};

/// Keys in PostgreSQL, 13 or newer: for a fleet of nodes. Clones are one backend.
///
/// ```no_run
/// use tower_api_key::{ApiKeyStore, Pepper, Peppers, PostgresBackend};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = PostgresBackend::connect(&std::env::var("DATABASE_URL")?).await?;
/// let store = ApiKeyStore::builder(backend)
///     .peppers(Peppers::new(Pepper::from_env("v1", "API_KEY_PEPPER")?))
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # In the database
///
/// Keys are in `tower_api_keys`, check values of peppers in `tower_api_key_peppers`, and what was
/// handed off in `tower_api_key_grants`, until it is [purged](crate::ApiKeyStore::purge). `tower_api_key_changes` is a log that triggers write, and
/// `tower_api_key_schema` says how old the tables are. All are made, and brought up to date, when a
/// backend is opened; of nodes that start at once, one does it. Tables that something else has made
/// are left alone, and those of a newer version of this crate, too.
///
/// Nobody but their owner has privileges on them, and roles that
/// [`privileges_for`](PostgresBackendBuilder::privileges_for) names, whatever the default privileges
/// of the database say. [`warnings`](ApiKeyBackend::warnings) tells if others have some on older tables.
///
/// The role that opens the first one needs `CREATE` on the schema, or the right to make it. Later ones
/// need `SELECT, INSERT, UPDATE, DELETE` on `tower_api_keys` and `tower_api_key_grants`, `SELECT,
/// INSERT` on `tower_api_key_peppers`, and `SELECT` on the two others; one of them needs `DELETE` on
/// `tower_api_key_changes` and `UPDATE` on `tower_api_key_schema`, to delete what is older than an
/// hour. To [verify](crate::CachedResolver) and nothing else, `SELECT` is enough, on all but grants
/// and peppers. A role that may change keys and lacks privileges on those is refused at start.
///
/// A new version of this crate may change the tables when its first node starts, in one transaction:
/// `SELECT` and everything else on them wait for it meanwhile, a few seconds for a million keys. Nodes
/// of the version before go on working. While another session's transaction uses a table, the change
/// waits for a second at a time, with pauses for lookups, and is an error after a minute.
///
/// An operator can change keys by hand, and needs no right to the log for it:
///
/// ```sql
/// UPDATE tower_api_keys SET revoked_at = now() WHERE user_id = 'user_1' AND revoked_at IS NULL;
/// ```
///
/// `id` is the 24 bytes and not the text of a key's id: one key is found by the first 16 characters of its
/// token, `display_prefix = 'pk.key_J1L3aUriQ'`. `UPDATE 0` says that no key was revoked.
///
/// Times are cut to whole milliseconds when they are read. `expires_at = 'infinity'` is no end. Don't
/// disable the triggers: what they don't log, no cache is told.
///
/// # How other nodes hear of a change
///
/// Each change is logged in its own transaction, whoever makes it, and announced with `NOTIFY`. Each
/// store listens on one connection more, and reads the log there when something is announced, and five
/// times within [`max_staleness`](crate::CacheConfig::max_staleness) in any case: the answer is the
/// proof that it still hears. So a revocation reaches other nodes in milliseconds, and where the
/// connection is broken or silent, within `max_staleness`. A statement that changes more than 1,000
/// keys makes every cache read all of them anew.
///
/// # Row-level security
///
/// A role that doesn't see all rows would take a key for unknown, or for not revoked. So a table
/// that may hide rows from the role is refused when the backend is opened, and where a policy comes
/// later, calls fail as they do in an outage. Superusers, roles with `BYPASSRLS`, and owners of
/// tables without `FORCE ROW LEVEL SECURITY` see all rows.
///
/// A gap is left over a service's pool: after `BYPASSRLS` was granted to the role, PostgreSQL
/// may go on filtering statements that are prepared on open connections, and says that
/// no rows are hidden. Reconnect after that.
///
/// # Connections
///
/// [`connect`](Self::connect) makes its own; [`new`](Self::new) takes the service's pool for all but
/// the one that listens, and [ends transactions](PostgresBackendBuilder::over) that were left open there. A pool of sqlx's waits without a limit for a connection that falls silent
/// just when it is given back, and that place is lost until the system gives the connection up; with
/// connections of its own, a backend has no such wait. `close` on the pool leaves the listening
/// connection open, which ends with the store.
///
/// Of the connections, a quarter is reserved for lookups, and at least one for revocations: no flood
/// of lists or creations takes them. A pool that the service itself exhausts leaves none.
///
/// # Passwords that change
///
/// A password is needed for each new connection, also long after the start: when the server has
/// ended one, or when calls need more. Give a running backend the new one with
/// [`set_connect_options`](Self::set_connect_options), or let
/// [`password_from`](PostgresBackendBuilder::password_from) fetch it each time, as for the tokens
/// of hosting platforms that expire after minutes. Neither needs a restart, and no change is missed.
///
/// # Poolers
///
/// A pooler in session mode works (PgBouncer: `pool_mode = session`). Each backend needs at least
/// two connections through it, and [`max_connections`](PostgresBackendBuilder::max_connections) and
/// one more at most.
///
/// A pooler that shares sessions between clients is refused when the backend is opened: the
/// transaction and statement modes of PgBouncer. There a statement may be executed by a session
/// in which another client has prepared another statement, so a lookup could delete a key. It is
/// looked for before anything is prepared: whether the settings of one connection reach another,
/// and then, whether a notification arrives. Set session mode for the database and user, or connect
/// to the server itself.
///
/// # What can be lost
///
/// A standby is never believed: reads and the log refuse an answer from a server in recovery, and the
/// connection is made anew. So a name that moves to the new primary is followed.
/// What a failover loses, though, is lost: with asynchronous replication the last commits before it,
/// and a revocation among them. Take synchronous replication where that matters, or revoke again
/// what was revoked in the last moments. An old primary that goes on beside the new one has to be
/// shut out by whoever runs them: what is asked there is answered as if nothing had happened.
///
/// # Clocks
///
/// Expiry goes by the node's clock, not by the server's. `now()` is the server's: a key that an
/// operator lets expire by it ends when the nodes' clocks get there. Being revoked or suspended goes by
/// no clock.
#[derive(Clone)]
pub struct PostgresBackend(Arc<Shared>);

struct Shared {
    sessions: Sessions,
    names: Names,
    statements: Statements,
    channel: String,
    statement_timeout: Duration,
    /// Those that may have privileges.
    roles: Vec<String>,
    warnings: Vec<String>,
}

impl PostgresBackend {
    /// Keys in the database that `url` names, on connections of the backend's own.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names what is wrong and never shows the password.
    pub async fn connect(url: &str) -> Result<Self, OpenError> {
        Self::builder().connect(url).await
    }

    /// Keys in the database of the service's own pool, and one connection more.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names what is wrong.
    pub async fn new(pool: PgPool) -> Result<Self, OpenError> {
        Self::builder().over(pool).await
    }

    /// Settings, and then [`connect`](PostgresBackendBuilder::connect) or
    /// [`over`](PostgresBackendBuilder::over).
    pub fn builder() -> PostgresBackendBuilder {
        PostgresBackendBuilder::new()
    }

    /// Sets the options of new connections, among them the one that listens for changes. Open ones
    /// are kept until they end.
    ///
    /// Use it when the password, or the role, changes while the service runs. A password that
    /// [`password_from`](PostgresBackendBuilder::password_from) returns goes before the one in
    /// `options`. Connect another backend to use another database: until all connections are new,
    /// some calls would go to the old one.
    ///
    /// Over a service's pool, this is
    /// [`Pool::set_connect_options`](sqlx::Pool::set_connect_options) of that pool, so the service's own statements use them also. The reverse holds: options that
    /// the service sets on its pool are those of the next connection that listens.
    pub fn set_connect_options(&self, options: PgConnectOptions) {
        self.0.sessions.from.set_connect_options(options);
    }

    /// Returns what roles may do with the tables, their sequences and functions, other than their
    /// owner, this role, superusers, and roles that
    /// [`privileges_for`](PostgresBackendBuilder::privileges_for) names.
    ///
    /// Tables that this crate creates have no such privileges. An operator, or a hosting platform
    /// for all tables of a schema, may have granted some later, or before the tables were created by
    /// an older version.
    ///
    /// # Errors
    ///
    /// [`BackendError::unavailable`].
    pub async fn exposed_privileges(&self) -> Result<Vec<ExposedPrivileges>, BackendError> {
        let shared = &*self.0;
        let look = async {
            let mut session = shared.sessions.session(Lane::Ordinary).await?;
            let exposed = privileges::exposed(session.connection(), &shared.names, &shared.roles);
            let exposed = exposed.await?;
            session.give_back();
            Ok(exposed)
        };
        shared.sessions.in_time(look).await
    }
}

impl Shared {
    /// The settings of the session that listens.
    fn listening_settings(&self) -> String {
        // The server notices, too, where we are gone without a word.
        own_settings(self.statement_timeout)
            + "; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5;
            SET tcp_keepalives_count = 3"
    }
}

/// The settings of a connection of our own. They are set after connecting, and not by the parameter
/// `options` of the protocol, which PgBouncer refuses.
fn own_settings(statement_timeout: Duration) -> String {
    let millis = statement_timeout.as_millis();
    // Without row security, the server raises an error instead of hiding rows.
    format!(
        "SET statement_timeout = {millis}; SET default_transaction_isolation = 'read committed';
        SET row_security = off"
    )
}

impl KeySource for PostgresBackend {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let query = || match *keys {
            [key] => query(&self.0.statements.get_one).bind(key),
            _ => query(&self.0.statements.get_many).bind(keys.clone()),
        };
        row::keys(&self.0.sessions.looked_up(query).await?)
    }

    /// The sink isn't kept: changes come from the log alone.
    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        let feed = Feed::start(self.0.clone()).await?;
        Ok(Subscription::feed(feed))
    }
}

impl ApiKeyBackend for PostgresBackend {
    async fn warnings(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.0.warnings.clone())
    }

    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        let query = row::write(query(&self.0.statements.insert), key);
        let is_done = self.0.sessions.inserted(query).await?;
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
        let query = row::write(query(&self.0.statements.insert_made_by), key)
            .bind(maker.0.as_bytes().as_slice())
            .bind(version);
        let is_done = self.0.sessions.inserted(query).await?;
        unchanged::inserted(self, key, Some(maker), is_done).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let Ok(version) = i64::try_from(expected) else {
            return Ok(false);
        };
        let query = row::write(query(&self.0.statements.update), key).bind(version);
        let lane = match key.ended() {
            Some(_) => Lane::Revocation,
            None => Lane::Ordinary,
        };
        let is_done = self.0.sessions.changed(lane, query).await? == 1;
        unchanged::updated(self, &key.id, expected, is_done).await
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let query = query(&self.0.statements.delete).bind(id.as_bytes().as_slice());
        let is_done = self.0.sessions.changed(Lane::Revocation, query).await? == 1;
        unchanged::deleted(self, id, is_done).await
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        // Text with NUL can't be stored, so nobody has this name.
        if user_id.contains('\0') {
            return Ok(Vec::new());
        }
        let after = page.cursor();
        let created_at = after.map_or(Timestamp::INFINITY, |after| {
            Timestamp::new(after.created_at())
        });
        // Longer, and so later, than every id.
        let id: &[u8] = after.map_or(&[0xff; KeyId::LEN + 1], |after| after.id().as_bytes());
        let query = query(&self.0.statements.list)
            .bind(user_id)
            .bind(created_at)
            .bind(id)
            .bind(i64::try_from(page.max_keys()).unwrap_or(i64::MAX));
        row::keys(&self.0.sessions.rows(Lane::Ordinary, query).await?)
    }

    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let query = query(&self.0.statements.get_by_id).bind(ids);
        row::keys(&self.0.sessions.rows(Lane::Revocation, query).await?)
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
        let query = row::write(query(&self.0.statements.rotate), old).bind(version);
        let query = row::write(query, successor);
        let is_done = self.0.sessions.inserted(query).await?;
        unchanged::rotated(self, successor, old, expected, is_done).await
    }

    async fn pepper_usage(&self, now: SystemTime) -> Result<Vec<PepperUsage>, BackendError> {
        let query = query(&self.0.statements.pepper_usage).bind(Timestamp::new(now));
        row::pepper_usage(&self.0.sessions.rows(Lane::Ordinary, query).await?)
    }

    async fn pepper_checks(&self) -> Result<Vec<PepperCheck>, BackendError> {
        let query = query(&self.0.statements.pepper_checks);
        row::pepper_checks(&self.0.sessions.rows(Lane::Ordinary, query).await?)
    }

    async fn insert_pepper_check(&self, check: &PepperCheck) -> Result<bool, BackendError> {
        let query = query(&self.0.statements.insert_pepper_check)
            .bind(check.pepper().as_str())
            .bind(check.to_hex());
        Ok(self.0.sessions.changed(Lane::Ordinary, query).await? == 1)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        if touches.is_empty() {
            return Ok(());
        }
        let ids: Vec<&[u8]> = touches
            .iter()
            .map(|it| it.id.as_bytes().as_slice())
            .collect();
        let times: Vec<_> = touches
            .iter()
            .map(|it| Timestamp::new(it.used_at))
            .collect();
        let query = query(&self.0.statements.touch).bind(ids).bind(times);
        let changed = self.0.sessions.changed(Lane::Ordinary, query).await?;
        unchanged::touched(self, touches, changed).await
    }

    async fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<bool, BackendError> {
        let revoke = || {
            query(&self.0.statements.revoke)
                .bind(id.as_bytes().as_slice())
                .bind(Timestamp::new(at))
                .bind(reason.map(RevocationReason::as_str))
        };
        let is_done = self.0.sessions.revoke(revoke).await?.len() == 1;
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

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("keys", &self.0.names.table("keys"))
            .finish_non_exhaustive()
    }
}
