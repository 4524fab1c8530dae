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
    Checks::of_backend(async || Ok(SqliteBackend::open(&file).await?))
        .corrupt(corrupt)
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
        .run()
        .await
        .unwrap();
}
