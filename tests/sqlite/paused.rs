//! Under a clock that a test has paused.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tower_api_key::{NewApiKey, Scopes, SqliteBackend, sqlx::SqlitePool};

use crate::{
    shell, store as store_on,
    support::{folder::Folder, outcome},
};

async fn works(backend: SqliteBackend) {
    let store = store_on(backend).await;
    for _ in 0..20 {
        let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"]).unwrap());
        let issued = store.create(new).await.unwrap();
        let token = issued.token().expose();
        assert_eq!(outcome(&store.verify(token).await), "good");
        assert_eq!(outcome(&store.verify_fresh(token).await), "good");
        store.revoke_token(token).await.unwrap();
        assert_eq!(outcome(&store.verify(token).await), "revoked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_works_under_a_paused_clock() {
    let folder = Folder::new("sqlite-paused");
    let path = folder.join("keys.db");
    for _ in 0..2 {
        let start = Instant::now();
        let opened = timeout(Duration::from_secs(1), SqliteBackend::open(&path)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        works(opened.unwrap().unwrap()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn keys_in_memory_work_under_a_paused_clock() {
    works(SqliteBackend::in_memory().await.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_services_pool_works_under_a_paused_clock() {
    let folder = Folder::new("sqlite-paused-pool");
    let path = folder.join("keys.db");
    drop(shell(&path).await);
    let pool = SqlitePool::connect_lazy(&format!("sqlite:{}", path.display())).unwrap();
    works(SqliteBackend::new(pool).await.unwrap()).await;
}
