//! Databases as pylon 0.3 left them.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU32, Ordering},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tower_api_key::{
    ApiKeyBackend, ImportError, ImportReport, PylonImport,
    sqlx::{AssertSqlSafe, PgPool, SqlitePool, raw_sql, sqlite::SqliteConnectOptions},
};

use crate::support::{folder::Folder, postgres};

/// What a deployment that never set one was left with.
pub(crate) const PEPPER: &str = "dev";

/// A database with pylon's table, and where it is.
pub(crate) enum Old {
    Sqlite { pool: SqlitePool, _file_in: Folder },
    Postgres { pool: PgPool, _on: postgres::Server },
}

/// The same columns in both. A whole number is BIGINT in PostgreSQL and any size in SQLite.
const SCHEMA: &str = "
    CREATE TABLE _pylon_api_keys (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        name TEXT NOT NULL DEFAULT '',
        prefix TEXT NOT NULL DEFAULT '',
        secret_hash TEXT NOT NULL,
        scopes TEXT,
        expires_at BIGINT,
        last_used_at BIGINT,
        created_at BIGINT NOT NULL
    );
    CREATE INDEX _pylon_api_keys_user_idx ON _pylon_api_keys (user_id);";

impl Old {
    pub(crate) async fn sqlite() -> Self {
        let old = Self::empty_sqlite().await;
        old.run(SCHEMA).await;
        old
    }

    /// Without the table.
    pub(crate) async fn empty_sqlite() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = Folder::new(&format!("pylon-{count}"));
        let options = SqliteConnectOptions::new()
            .filename(folder.join("pylon.db"))
            .create_if_missing(true);
        Self::Sqlite {
            pool: SqlitePool::connect_with(options).await.unwrap(),
            _file_in: folder,
        }
    }

    pub(crate) async fn postgres() -> Option<Self> {
        let old = Self::empty_postgres()?;
        old.run(SCHEMA).await;
        Some(old)
    }

    pub(crate) fn empty_postgres() -> Option<Self> {
        let server = postgres::Server::start()?;
        Some(Self::Postgres {
            pool: server.pool(),
            _on: server,
        })
    }

    pub(crate) async fn run(&self, statements: &str) {
        let statements = raw_sql(AssertSqlSafe(statements.to_owned()));
        match self {
            Self::Sqlite { pool, .. } => drop(statements.execute(pool).await.unwrap()),
            Self::Postgres { pool, .. } => drop(statements.execute(pool).await.unwrap()),
        }
    }

    pub(crate) async fn put(&self, row: &Row) {
        self.put_all(std::slice::from_ref(row)).await;
    }

    pub(crate) async fn put_all(&self, rows: &[Row]) {
        let rows: Vec<_> = rows.iter().map(Row::values).collect();
        self.run(&format!(
            "INSERT INTO _pylon_api_keys VALUES {}",
            rows.join(", ")
        ))
        .await;
    }

    pub(crate) async fn import(
        &self,
        import: &PylonImport,
        backend: &impl ApiKeyBackend,
    ) -> Result<ImportReport, ImportError> {
        match self {
            Self::Sqlite { pool, .. } => import.from_sqlite(pool, backend).await,
            Self::Postgres { pool, .. } => import.from_postgres(pool, backend).await,
        }
    }
}

/// A row, each value as it is written in SQL.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) secret_hash: String,
    pub(crate) scopes: String,
    pub(crate) expires_at: String,
    pub(crate) last_used_at: String,
    pub(crate) created_at: String,
}

impl Row {
    /// The key with this number: as pylon made it, in 2023, with the scope `notes:read`.
    pub(crate) fn new(number: u32) -> Self {
        let token = token(number);
        Self {
            id: text(&id(number)),
            user_id: text("user_1"),
            name: text("CI"),
            prefix: text(&token[..16]),
            secret_hash: text(&hash(PEPPER, secret(&token))),
            scopes: text("notes:read"),
            expires_at: "NULL".to_owned(),
            last_used_at: "NULL".to_owned(),
            created_at: "1700000000".to_owned(),
        }
    }

    fn values(&self) -> String {
        let values = [
            &self.id,
            &self.user_id,
            &self.name,
            &self.prefix,
            &self.secret_hash,
            &self.scopes,
            &self.expires_at,
            &self.last_used_at,
            &self.created_at,
        ];
        format!("({})", values.map(String::as_str).join(", "))
    }
}

pub(crate) fn text(value: &str) -> String {
    format!("'{value}'")
}

pub(crate) fn id(number: u32) -> String {
    format!("key_{number:0>32}")
}

/// The token that the owner of the key holds.
pub(crate) fn token(number: u32) -> String {
    format!("pk.{}.{number:_>43}", id(number))
}

fn secret(token: &str) -> &str {
    token.rsplit('.').next().unwrap()
}

/// As pylon did it.
fn hash(pepper: &str, secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(pepper.as_bytes()).unwrap();
    mac.update(secret.as_bytes());
    let mut digits = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}
