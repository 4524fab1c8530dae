//! The crate's own databases. Each handle has a pool of its own, as another process has.

use tower_api_key::{
    KeyId, SqliteBackend,
    conformance::{Checks, check_backend},
    sqlx::{self, SqlitePool},
};

use super::folder::Folder;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_in_memory_keeps_every_rule() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    check_backend(async || Ok(backend.clone())).await;
}
