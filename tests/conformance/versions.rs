//! Records with the largest version that a database stores: nothing keeps them from being revoked.

use std::time::{Duration, SystemTime};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use tower_api_key::sqlx::raw_sql;
use tower_api_key::{
    ApiKey, ApiKeyBackend, ClaimHash, GrantId, GrantLimits, KeyGrant, KeyId, MemoryBackend,
    PepperId, Scopes, SecretHash,
};
#[cfg(all(feature = "postgres", target_os = "linux"))]
use tower_api_key::{PostgresBackend, sqlx::AssertSqlSafe};
#[cfg(feature = "sqlite")]
use tower_api_key::{SqliteBackend, sqlx::SqlitePool};

use super::table::Table;

const LARGEST: u64 = i64::MAX.cast_unsigned();

/// What an operator writes.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const BY_HAND: [&str; 2] = [
    "UPDATE tower_api_keys SET disabled_at = 1800000000000 WHERE user_id = 'hand'",
    "UPDATE tower_api_keys SET revoked_at = 1800000000000 WHERE user_id = 'hand'",
];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn key(number: u8, user: &str, version: u64) -> ApiKey {
    let hash = SecretHash::from_hex(PepperId::new("v1").unwrap(), &"ab".repeat(32)).unwrap();
    let mut key = ApiKey::new(id(number), user, Scopes::none(), hash);
    key.created_at = now() - Duration::from_secs(60);
    key.version = version;
    key
}

fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; KeyId::LEN])
}

async fn revoked_at(backend: &impl ApiKeyBackend, number: u8) -> Option<SystemTime> {
    let found = backend.get_by_id(&[id(number)]).await.unwrap();
    found[0].revoked_at
}

/// Of keys whose version can't be raised.
async fn can_be_revoked(backend: &impl ApiKeyBackend, version: u64) {
    for (number, user) in [(1, "one"), (2, "all"), (3, "changed")] {
        let stored = backend.insert(&key(number, user, version)).await;
        assert!(stored.unwrap());
    }
    assert!(backend.insert(&key(4, "all", 1)).await.unwrap());

    assert!(backend.revoke(&id(1), now(), None).await.unwrap());
    assert_eq!(revoked_at(backend, 1).await, Some(now()));
    assert!(!backend.revoke(&id(1), now(), None).await.unwrap());

    let revoked = backend.revoke_for_user("all", now(), None, 10).await;
    assert_eq!(revoked.unwrap().len(), 2);
    assert_eq!(revoked_at(backend, 2).await, Some(now()));
    assert_eq!(revoked_at(backend, 4).await, Some(now()));

    let mut changed = key(3, "changed", version);
    changed.disabled_at = Some(now());
    assert!(backend.update(&changed, version).await.unwrap());
    assert!(backend.revoke(&id(3), now(), None).await.unwrap());
}

/// The version says nothing here: the revocation does.
async fn a_revoked_parent_creates_nothing(backend: &impl ApiKeyBackend, version: u64) {
    let parent = (id(5), version);
    let mut grant = KeyGrant::new(
        GrantId::from_bytes([1; GrantId::LEN]),
        ClaimHash::from_bytes([1; 32]),
        "parent",
        Scopes::none(),
    );
    grant.made_by = Some(parent.0);
    let stored = backend.insert(&key(5, "parent", version)).await;
    assert!(stored.unwrap());
    let limits = GrantLimits::new();
    backend.insert_grant(&grant, &limits).await.unwrap();
    let created = backend.insert_made_by(&key(6, "parent", 1), parent).await;
    assert!(created.unwrap());

    assert!(backend.revoke(&parent.0, now(), None).await.unwrap());
    let created = backend.insert_made_by(&key(7, "parent", 1), parent).await;
    assert!(!created.unwrap());
    let claimed = backend
        .claim(&grant.id, &key(8, "parent", 1), Some(parent))
        .await;
    assert!(!claimed.unwrap());
    let mut old = key(5, "parent", version);
    old.successor = Some(id(9));
    let rotated = backend.rotate(&key(9, "parent", 1), &old, version).await;
    assert!(!rotated.unwrap());
    let found = backend.get_by_id(&[7, 8, 9].map(id)).await.unwrap();
    assert_eq!(found.len(), 0);
}

#[tokio::test]
async fn g1_a_key_in_memory_with_the_largest_version_can_be_revoked() {
    let backend = MemoryBackend::new();
    can_be_revoked(&backend, u64::MAX).await;
    a_revoked_parent_creates_nothing(&backend, u64::MAX).await;
}

/// By the methods that a backend needs not have.
#[tokio::test]
async fn g1_a_key_of_a_small_backend_with_the_largest_version_can_be_revoked() {
    for version in [LARGEST, u64::MAX] {
        can_be_revoked(&Table::default(), version).await;
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn g1_a_key_in_sqlite_with_the_largest_version_can_be_revoked() {
    let folder = super::folder::Folder::new("conformance-versions");
    let file = folder.join("keys.db");
    let backend = SqliteBackend::open(&file).await.unwrap();
    can_be_revoked(&backend, LARGEST).await;
    a_revoked_parent_creates_nothing(&backend, LARGEST).await;

    let url = format!("sqlite:{}", file.display());
    let pool = SqlitePool::connect(&url).await.unwrap();
    assert!(backend.insert(&key(9, "hand", LARGEST)).await.unwrap());
    for change in BY_HAND {
        let changed = raw_sql(change).execute(&pool).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{change}");
    }
    assert!(revoked_at(&backend, 9).await.is_some());
}

#[cfg(all(feature = "postgres", target_os = "linux"))]
#[tokio::test]
async fn g1_a_key_in_postgres_with_the_largest_version_can_be_revoked() {
    let Some(server) = super::postgres::Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    can_be_revoked(&backend, LARGEST).await;
    a_revoked_parent_creates_nothing(&backend, LARGEST).await;

    let pool = server.pool();
    assert!(backend.insert(&key(9, "hand", LARGEST)).await.unwrap());
    for change in BY_HAND {
        let change = change.replace("1800000000000", "to_timestamp(1800000000)");
        let changed = raw_sql(AssertSqlSafe(change)).execute(&pool).await.unwrap();
        assert_eq!(changed.rows_affected(), 1);
    }
    assert!(revoked_at(&backend, 9).await.is_some());
}
