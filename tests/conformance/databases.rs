//! The crate's own databases. Each handle has a pool of its own, as another process has.

#[cfg(all(feature = "postgres", target_os = "linux"))]
use tower_api_key::PostgresBackend;
use tower_api_key::{KeyId, conformance::Checks, sqlx};
#[cfg(feature = "sqlite")]
use tower_api_key::{SqliteBackend, conformance::check_backend, sqlx::SqlitePool};

#[cfg(feature = "sqlite")]
use super::folder::Folder;
#[cfg(all(feature = "postgres", target_os = "linux"))]
use super::postgres::Server;

/// The id, for a literal in a trigger.
fn hex(id: &KeyId) -> String {
    use std::fmt::Write as _;
    id.as_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_every_rule() {
    let folder = Folder::new("conformance");
    let file = folder.join("keys.db");
    let url = format!("sqlite:{}", file.display());
    let corrupt = move |id: KeyId| {
        let url = url.clone();
        async move {
            let pool = SqlitePool::connect(&url).await?;
            sqlx::query("UPDATE tower_api_keys SET scopes = 'no*scope' WHERE id = ?")
                .bind(id.as_bytes().as_slice())
                .execute(&pool)
                .await?;
            pool.close().await;
            Ok(())
        }
    };
    let url = format!("sqlite:{}", file.display());
    let freeze = move |id: KeyId| {
        let url = url.clone();
        let hex = hex(&id);
        let trigger = |event| {
            format!(
                "CREATE TRIGGER frozen_{event} BEFORE {event} ON tower_api_keys
                WHEN OLD.id = x'{hex}' BEGIN SELECT RAISE(IGNORE); END;"
            )
        };
        let triggers = trigger("UPDATE") + &trigger("DELETE");
        async move {
            let pool = SqlitePool::connect(&url).await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(triggers))
                .execute(&pool)
                .await?;
            pool.close().await;
            Ok(())
        }
    };
    Checks::of_backend(async || Ok(SqliteBackend::open(&file).await?))
        .corrupt(corrupt)
        .freeze(freeze)
        .run()
        .await
        .unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_in_memory_keeps_every_rule() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    check_backend(async || Ok(backend.clone())).await;
}

#[cfg(all(feature = "postgres", target_os = "linux"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_keeps_every_rule() {
    let Some(server) = Server::start() else {
        return;
    };
    let url = server.url();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let operator = pool.clone();
    let freeze = move |id: KeyId| {
        let operator = operator.clone();
        let hex = hex(&id);
        let trigger = format!(
            "CREATE FUNCTION frozen() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
            CREATE TRIGGER frozen BEFORE UPDATE OR DELETE ON tower_api_keys FOR EACH ROW
                WHEN (OLD.id = '\\x{hex}') EXECUTE FUNCTION frozen()"
        );
        async move {
            sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))
                .execute(&operator)
                .await?;
            Ok(())
        }
    };
    let corrupt = move |id: KeyId| {
        let pool = pool.clone();
        async move {
            sqlx::query("UPDATE tower_api_keys SET scopes = 'no*scope' WHERE id = $1")
                .bind(id.as_bytes().as_slice())
                .execute(&pool)
                .await?;
            Ok(())
        }
    };
    Checks::of_backend(async || Ok(PostgresBackend::connect(&url).await?))
        .corrupt(corrupt)
        .freeze(freeze)
        .run()
        .await
        .unwrap();
}
