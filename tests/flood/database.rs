//! The instances that are flooded, and slow commits.

use std::{fmt, time::Duration};

use tower_api_key::{ApiKeyStore, ApiKeyStoreBuilder, PostgresBackend, SqliteBackend};

use crate::support::{PEPPER, folder::Folder, postgres::Server};

/// How long a commit takes.
pub(crate) const COMMIT_TIME: Option<Duration> = Some(Duration::from_millis(20));

/// Stores on one database, each with a cache and connections of its own.
pub(crate) struct Instances {
    name: String,
    pub(crate) all: Vec<ApiKeyStore>,
    /// Another one, whose commits are fast: it prepares rounds.
    pub(crate) setup: ApiKeyStore,
}

impl Instances {
    pub(crate) async fn postgres(
        server: &Server,
        count: usize,
        commit_time: Option<Duration>,
    ) -> Self {
        let url = server.url();
        let setup = postgres(&url).await;
        let url = match commit_time {
            Some(time) => {
                server.psql(SLOW_COMMITS).await;
                let seconds = time.as_secs_f64();
                format!("{url}?options[flood.commit_seconds]={seconds}")
            }
            None => url,
        };
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(postgres(&url).await);
        }
        let commit_time = commit_time.unwrap_or_default();
        Self {
            name: format!("PostgreSQL, instances: {count}, a commit takes {commit_time:?}"),
            all,
            setup,
        }
    }

    pub(crate) async fn sqlite(folder: &Folder, count: usize) -> Self {
        let mut all = Vec::new();
        for _ in 0..=count {
            let backend = SqliteBackend::open(folder.join("keys.db")).await.unwrap();
            all.push(build(ApiKeyStore::builder(backend)).await);
        }
        Self {
            name: format!("SQLite, instances: {count}"),
            setup: all.pop().unwrap(),
            all,
        }
    }
}

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

async fn postgres(url: &str) -> ApiKeyStore {
    let backend = PostgresBackend::connect(url).await.unwrap();
    build(ApiKeyStore::builder(backend)).await
}

async fn build(builder: ApiKeyStoreBuilder) -> ApiKeyStore {
    let pepper = tower_api_key::Pepper::new("v1", PEPPER).unwrap();
    let builder = builder.peppers(tower_api_key::Peppers::new(pepper));
    builder.build().await.unwrap()
}

/// Lets a transaction that changes keys or grants sleep once when it commits, with all its locks.
/// Sessions that set no `flood.commit_seconds` don't sleep.
const SLOW_COMMITS: &str = "
CREATE OR REPLACE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('flood.slept_in', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('flood.slept_in', pg_current_xact_id()::text, true);
        PERFORM pg_sleep(coalesce(
            nullif(current_setting('flood.commit_seconds', true), '')::float8, 0));
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS slow_commit ON tower_api_keys;
DROP TRIGGER IF EXISTS slow_commit ON tower_api_key_grants;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT OR UPDATE OR DELETE ON tower_api_keys
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT OR UPDATE OR DELETE ON tower_api_key_grants
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();";
