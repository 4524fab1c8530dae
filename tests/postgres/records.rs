//! What is written is read again, and nothing else is.

use std::time::{Duration, UNIX_EPOCH};

use tower_api_key::{
    ApiKey, ApiKeyBackend, Cursor, KeyId, KeySource, PageRequest, PepperId, PostgresBackend,
    Scopes, SecretHash,
};

use crate::support::{USER, chain, postgres::Server, start};

/// A record with every field, of which `number` makes another one.
pub(crate) fn record(number: u8) -> ApiKey {
    let hash = SecretHash::from_hex(PepperId::new("v1").unwrap(), &"ab".repeat(32)).unwrap();
    let scopes = Scopes::of(["notes:read", "notes:write"]).unwrap();
    let mut key = ApiKey::new(
        KeyId::from_bytes([number; 24]),
        USER.to_owned(),
        scopes,
        hash,
    );
    key.name = Some("CI \u{1f511} 'quoted' \\x".to_owned());
    key.created_at = start() + Duration::from_millis(123);
    key.expires_at = Some(start() + Duration::from_millis(86_400_456));
    key.last_used_at = Some(start() + Duration::from_millis(1));
    key.revoked_at = Some(UNIX_EPOCH);
    key.disabled_at = Some(UNIX_EPOCH + Duration::from_millis(253_402_300_799_999));
    key.version = 7;
    key
}

async fn get(backend: &PostgresBackend, number: u8) -> Option<ApiKey> {
    let id = KeyId::from_bytes([number; 24]);
    let found = backend.get_many(&[id.lookup_key()]).await.unwrap();
    assert!(found.len() <= 1);
    found.into_iter().next()
}

pub(crate) fn plain(number: u8) -> ApiKey {
    let mut key = record(number);
    key.name = None;
    key.expires_at = None;
    key.last_used_at = None;
    key.revoked_at = None;
    key.disabled_at = None;
    key.version = 1;
    key
}

#[tokio::test]
async fn every_field_survives_and_so_does_none() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut unrestricted = plain(2);
    unrestricted.scopes = Scopes::unrestricted();
    let mut nothing_allowed = plain(3);
    nothing_allowed.scopes = Scopes::none();
    for key in [record(1), unrestricted, nothing_allowed] {
        let number = key.id.as_bytes()[0];
        assert!(get(&backend, number).await.is_none());
        assert!(backend.insert(&key).await.unwrap());
        let read = get(&backend, number).await.unwrap();
        assert_eq!(format!("{read:?}"), format!("{key:?}"));
        assert_eq!(read.secret_hash.to_hex(), key.secret_hash.to_hex());
    }
    let all: Vec<_> = (0..100)
        .map(|n| KeyId::from_bytes([n; 24]).lookup_key())
        .collect();
    assert_eq!(backend.get_many(&all).await.unwrap().len(), 3);
    assert_eq!(backend.get_many(&[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn an_insertion_never_overwrites_and_an_update_compares_the_version() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let key = plain(1);
    assert!(backend.insert(&key).await.unwrap());
    let mut other = record(1);
    other.user_id = "somebody else".to_owned();
    assert!(!backend.insert(&other).await.unwrap());
    assert!(!backend.update(&other, 6).await.unwrap());
    assert!(!backend.update(&other, u64::MAX).await.unwrap());
    assert_eq!(
        format!("{:?}", get(&backend, 1).await.unwrap()),
        format!("{key:?}")
    );
    // Owner and time of creation never change, and the later use is kept.
    other.created_at = UNIX_EPOCH;
    assert!(backend.update(&other, 1).await.unwrap());
    let mut later = other.clone();
    later.last_used_at = None;
    later.version = 8;
    assert!(backend.update(&later, 7).await.unwrap());
    let read = get(&backend, 1).await.unwrap();
    let mut expected = record(1);
    expected.version = 8;
    assert_eq!(format!("{read:?}"), format!("{expected:?}"));
    assert!(backend.delete(&key.id).await.unwrap());
    assert!(!backend.delete(&key.id).await.unwrap());
    assert!(!backend.update(&later, 8).await.unwrap());
}

#[tokio::test]
async fn of_eight_writers_with_one_version_one_gets_through() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    assert!(backend.insert(&plain(1)).await.unwrap());
    for version in 1..20 {
        let writers: Vec<_> = (0..8)
            .map(|writer: u64| {
                let backend = backend.clone();
                let mut key = plain(1);
                key.name = Some(writer.to_string());
                key.version = version + 1;
                tokio::spawn(async move { backend.update(&key, version).await.unwrap() })
            })
            .collect();
        let mut written = 0;
        for writer in writers {
            written += usize::from(writer.await.unwrap());
        }
        assert_eq!(written, 1, "version {version}");
    }
}

#[tokio::test]
async fn lists_go_from_the_newest_to_the_oldest_and_by_the_bytes_of_ids() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut wanted = Vec::new();
    for number in 1..=9 {
        let mut key = plain(number);
        key.created_at = start() + Duration::from_millis(u64::from(number / 3));
        assert!(backend.insert(&key).await.unwrap());
        wanted.push(key);
    }
    for (number, user) in [(20, "User_1"), (21, "user_1 "), (22, "user_2"), (23, "ü")] {
        let mut key = plain(number);
        key.user_id = user.to_owned();
        assert!(backend.insert(&key).await.unwrap());
        let list = backend
            .list_for_user(user, &PageRequest::new())
            .await
            .unwrap();
        assert_eq!(list.len(), 1, "{user}");
    }
    wanted.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
    for limit in [1, 2, 4, 9, 50] {
        let mut found = Vec::new();
        let mut page = PageRequest::new().limit(limit);
        loop {
            let keys = backend.list_for_user(USER, &page).await.unwrap();
            let Some(last) = keys.last() else { break };
            assert!(keys.len() <= limit);
            page = page.after(Cursor::of(last));
            found.extend(keys.into_iter().map(|key| key.id));
        }
        assert_eq!(found, wanted.iter().map(|key| key.id).collect::<Vec<_>>());
    }
    for nobody in ["a\0b", "\0", "", "nobody"] {
        let list = backend
            .list_for_user(nobody, &PageRequest::new())
            .await
            .unwrap();
        assert!(list.is_empty(), "{nobody:?}");
    }
}

/// The server repeats all of it in what it says.
#[tokio::test]
async fn g7_a_record_that_is_refused_is_not_shown() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut nobodys = record(1);
    nobodys.user_id.clear();
    let error = backend.insert(&nobodys).await.unwrap_err();
    let shown = format!("{error:?}");
    assert!(shown.contains("check constraint"), "{shown}");
    assert!(
        !shown.contains("abab") && !shown.contains("quoted"),
        "{shown}"
    );
    let causes: Vec<_> = chain(&error).map(ToString::to_string).collect();
    assert!(causes.join(": ").contains("23514"), "{causes:?}");
}
