//! Keys in PostgreSQL.

mod builder;
mod connections;
mod feed;
mod listening;
mod names;
mod row;
mod schema;
mod session;
mod statements;
mod time;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};

pub use self::builder::PostgresBackendBuilder;
use self::{
    feed::Feed,
    names::Names,
    session::{Sessions, Source},
    statements::{Statements, query},
    time::Timestamp,
};
use super::{
    ApiKeyBackend, ChangeSink, KeySource, PageRequest, Subscription, Touch,
    sql::{OpenError, scopes_text},
};
use crate::{
    error::BackendError,
    key::ApiKey,
    token::{KeyId, LookupKey},
};

/// Keys in PostgreSQL.
#[derive(Clone)]
pub struct PostgresBackend(Arc<Shared>);

struct Shared {
    sessions: Sessions,
    names: Names,
    statements: Statements,
    channel: String,
    statement_timeout: Duration,
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
}

impl Shared {
    /// A pool of one connection, made as the others are: with the same address, the same password,
    /// and what the service's pool does to each new connection.
    fn listening_pool(&self) -> PgPool {
        let (pool, options) = match &self.sessions.from {
            Source::Pool(pool) => (
                pool.options().clone(),
                pool.connect_options().as_ref().clone(),
            ),
            Source::Own(connections) => (PgPoolOptions::new(), connections.options().clone()),
        };
        let millis = self.statement_timeout.as_millis().to_string();
        // The server notices, too, where we are gone without a word.
        let options = options.application_name("tower-api-key-listen").options([
            ("statement_timeout", millis.as_str()),
            ("default_transaction_isolation", "read committed"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ]);
        pool.min_connections(0)
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options)
    }
}

impl KeySource for PostgresBackend {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
        let query = query(&self.0.statements.get_many).bind(keys);
        row::keys(&self.0.sessions.rows(query).await?)
    }

    /// The sink isn't kept: changes come from the log alone.
    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        let feed = Feed::start(self.0.clone()).await?;
        Ok(Subscription::feed(feed))
    }
}

impl ApiKeyBackend for PostgresBackend {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        let (scopes, unrestricted) = scopes_text(&key.scopes);
        let query = query(&self.0.statements.insert)
            .bind(key.id.as_bytes().as_slice())
            .bind(&key.user_id)
            .bind(&key.name)
            .bind(scopes)
            .bind(unrestricted)
            .bind(key.display_prefix.as_str())
            .bind(key.secret_hash.pepper().as_str())
            .bind(key.secret_hash.to_hex())
            .bind(Timestamp::new(key.created_at))
            .bind(key.expires_at.map(Timestamp::new))
            .bind(key.last_used_at.map(Timestamp::new))
            .bind(key.revoked_at.map(Timestamp::new))
            .bind(key.disabled_at.map(Timestamp::new))
            .bind(version(key.version)?);
        Ok(self.0.sessions.changed(query).await? == 1)
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let Ok(expected) = i64::try_from(expected) else {
            return Ok(false);
        };
        let (scopes, unrestricted) = scopes_text(&key.scopes);
        let query = query(&self.0.statements.update)
            .bind(key.id.as_bytes().as_slice())
            .bind(expected)
            .bind(&key.name)
            .bind(scopes)
            .bind(unrestricted)
            .bind(key.display_prefix.as_str())
            .bind(key.secret_hash.pepper().as_str())
            .bind(key.secret_hash.to_hex())
            .bind(key.expires_at.map(Timestamp::new))
            .bind(key.last_used_at.map(Timestamp::new))
            .bind(key.revoked_at.map(Timestamp::new))
            .bind(key.disabled_at.map(Timestamp::new))
            .bind(version(key.version)?);
        Ok(self.0.sessions.changed(query).await? == 1)
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let query = query(&self.0.statements.delete).bind(id.as_bytes().as_slice());
        Ok(self.0.sessions.changed(query).await? == 1)
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
        row::keys(&self.0.sessions.rows(query).await?)
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
        self.0.sessions.changed(query).await.map(drop)
    }
}

/// Versions count up from 1.
fn version(version: u64) -> Result<i64, BackendError> {
    i64::try_from(version).map_err(BackendError::corrupt)
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("keys", &self.0.names.table("keys"))
            .finish_non_exhaustive()
    }
}
