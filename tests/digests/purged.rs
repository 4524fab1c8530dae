//! Records of imported keys outlive a purge: the import that is run again must not bring a key back.

use std::time::{Duration, UNIX_EPOCH};

use tower_api_key::{
    ApiKeyBackend, Imported, MemoryBackend, OldKey, PostgresBackend, SqliteBackend,
};

use super::{hash_of, store_on, strict, token};
use crate::support::{USER, start};

#[tokio::test]
async fn a_leaked_key_stays_revoked_though_all_is_purged_and_imported_again() {
    check(MemoryBackend::new()).await;
    check(SqliteBackend::in_memory().await.unwrap()).await;
    #[cfg(target_os = "linux")]
    if let Some(server) = crate::support::postgres::Server::start() {
        check(PostgresBackend::connect(&server.url()).await.unwrap()).await;
    }
}

async fn check(backend: impl ApiKeyBackend) {
    let (store, _) = store_on(backend).await;
    let token = token(77);
    let old = || OldKey::by_digest(hash_of(&token), USER).scopes(["notes:read"]);
    // Its end has come by every clock.
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let ended = old().created_at(long_ago).expires_at(long_ago);
    let imported = store.import(ended, &strict()).await.unwrap();
    assert!(matches!(imported, Imported::Stored(_)));
    assert!(store.report_leaked([&token]).await.unwrap()[0].is_true_positive());
    let soon = start() + Duration::from_secs(60);
    assert_eq!(store.purge(soon).await.unwrap(), 0);
    let again = store.import(old(), &strict()).await.unwrap();
    assert!(matches!(again, Imported::AlreadyThere));
    assert!(!store.is_active(&token).await.unwrap());
}
