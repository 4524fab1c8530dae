//! A million keys in each kind of database, and those who read them.

use std::{error::Error, fs, path::PathBuf, process, sync::Arc, time::SystemTime};

use tower_api_key::{
    CacheConfig, CachedResolver, KeyId, KeyResolver, KeySource, Pepper, Peppers, PostgresBackend,
    SqliteBackend,
    sqlx::{
        self, PgPool, SqlitePool,
        postgres::PgPoolOptions,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};

use crate::{
    server::Server,
    support::{
        Outcome,
        made_up::{known_id, token},
    },
};

/// Far fewer than there are keys, so that the cache has next to none of those that are asked for.
const CAPACITY: usize = 100;

pub(crate) struct Database {
    pub(crate) name: &'static str,
    pub(crate) ids: Arc<[KeyId]>,
    /// sqlx alone is the first.
    pub(crate) readers: Vec<(&'static str, Reader)>,
    pub(crate) resolver: CachedResolver,
    _folder: Option<Folder>,
}

impl Database {
    /// A file on the disk that holds the target directory. Its pages are in memory by then.
    pub(crate) async fn sqlite(keys: usize) -> Outcome<Self> {
        let folder = Folder::new()?;
        let path = folder.0.join("keys.db");
        let backend = SqliteBackend::builder()
            .max_connections(4)
            .open(&path)
            .await?;
        let options = SqliteConnectOptions::new().filename(&path);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        let peppers = Peppers::new(Pepper::random("v1")?);
        let hash = peppers.hash(&token(known_id(0))?)?.to_hex();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        sqlx::query(
            "WITH RECURSIVE numbers (number) AS (
                 SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?1
             )
             INSERT INTO tower_api_keys (id, user_id, name, scopes, unrestricted, display_prefix,
                 pepper, secret_hash, created_at, last_used_at, version)
             SELECT randomblob(24), 'user_' || number, 'CI deploys', 'notes:read notes:write', FALSE,
                 'pk.key_AAAAAAAAA', 'v1', ?2, ?3, ?3, 1
             FROM numbers",
        )
        .bind(i64::try_from(keys)?)
        .bind(hash)
        .bind(i64::try_from(now.as_millis())?)
        .execute(&pool)
        .await?;
        // What the triggers have logged goes from the write-ahead log into the file as well.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&pool)
            .await?;
        sqlx::query("ANALYZE").execute(&pool).await?;
        let ids = sqlx::query_scalar("SELECT id FROM tower_api_keys").fetch_all(&pool);
        Ok(Self {
            name: "SQLite",
            ids: parsed(&ids.await?)?,
            ..Self::with(
                resolver(backend, peppers).await?,
                ("sqlx, pool of 4", Reader::Sqlite(pool)),
                Some(folder),
            )
        })
    }

    pub(crate) async fn postgres(keys: usize, server: &Server) -> Outcome<Self> {
        let backend = PostgresBackend::connect(&server.url()).await?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect(&server.url())
            .await?;
        let peppers = Peppers::new(Pepper::random("v1")?);
        let hash = peppers.hash(&token(known_id(0))?)?.to_hex();
        sqlx::query(
            "INSERT INTO tower_api_keys (id, user_id, name, scopes, display_prefix, pepper,
                 secret_hash, last_used_at)
             SELECT substring(sha256(number::text::bytea) FOR 24), 'user_' || number, 'CI deploys',
                 'notes:read notes:write', 'pk.key_AAAAAAAAA', 'v1', $2, now()
             FROM generate_series(1, $1) AS numbers (number)",
        )
        .bind(i64::try_from(keys)?)
        .bind(hash)
        .execute(&pool)
        .await?;
        sqlx::query("VACUUM ANALYZE tower_api_keys")
            .execute(&pool)
            .await?;
        let ids = sqlx::query_scalar("SELECT id FROM tower_api_keys").fetch_all(&pool);
        Ok(Self {
            name: "PostgreSQL on the loopback",
            ids: parsed(&ids.await?)?,
            ..Self::with(
                resolver(backend, peppers).await?,
                ("sqlx, pool of 8", Reader::Postgres(pool)),
                None,
            )
        })
    }

    fn with(
        resolver: CachedResolver,
        alone: (&'static str, Reader),
        folder: Option<Folder>,
    ) -> Self {
        let ours = ("CachedResolver", Reader::Ours(resolver.clone()));
        Self {
            name: "",
            ids: Arc::default(),
            readers: vec![alone, ours],
            resolver,
            _folder: folder,
        }
    }
}

fn parsed(ids: &[Vec<u8>]) -> Outcome<Arc<[KeyId]>> {
    let id = |bytes: &Vec<u8>| Ok(KeyId::from_bytes(bytes.as_slice().try_into()?));
    ids.iter().map(id).collect()
}

async fn resolver(source: impl KeySource, peppers: Peppers) -> Outcome<CachedResolver> {
    let builder = CachedResolver::builder(source).peppers(peppers);
    let cache = CacheConfig::new().capacity(CAPACITY);
    Ok(builder.cache(cache).build().await?)
}

/// Who looks keys up.
#[derive(Clone)]
pub(crate) enum Reader {
    Ours(CachedResolver),
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Reader {
    /// Ours finds that the key is good. sqlx alone reads its row.
    ///
    /// # Errors
    ///
    /// As text, which goes to another thread.
    pub(crate) async fn look_up(&self, id: KeyId) -> Result<(), String> {
        let key = id.as_bytes().as_slice();
        match self {
            Self::Ours(resolver) => {
                let token = token(id).map_err(|error| error.to_string())?;
                resolver.resolve(&token).await.map(drop).map_err(text)
            }
            Self::Sqlite(pool) => {
                const QUERY: &str = "SELECT * FROM tower_api_keys WHERE id = ?";
                let row = sqlx::query(QUERY).bind(key).fetch_one(pool).await;
                row.map(drop).map_err(text)
            }
            Self::Postgres(pool) => {
                const QUERY: &str = "SELECT * FROM tower_api_keys WHERE id = $1";
                let row = sqlx::query(QUERY).bind(key).fetch_one(pool).await;
                row.map(drop).map_err(text)
            }
        }
    }
}

fn text(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cold-{}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
