//! How connections are set.

use super::{Folder, SqliteBackend};

#[tokio::test]
async fn what_was_answered_is_on_disk() {
    let folder = Folder::new("settings");
    let backend = SqliteBackend::open(folder.file()).await.unwrap();
    for pool in [&backend.0.pools.readers, &backend.0.pools.writer] {
        let pragma = async |name: &'static str| -> i64 {
            sqlx::query_scalar(name).fetch_one(pool).await.unwrap()
        };
        assert_eq!(pragma("PRAGMA synchronous").await, 2, "FULL");
        assert_eq!(pragma("PRAGMA foreign_keys").await, 1);
        assert_eq!(pragma("PRAGMA busy_timeout").await, 5_000);
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(mode, "wal");
    }
}
