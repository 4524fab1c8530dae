//! What is written is what is read.

use std::{collections::BTreeSet, time::Duration};

use tower_api_key::{
    ApiKey, ApiKeyBackend, Cursor, KeyId, KeySource, PageRequest, Scopes, SqliteBackend, Touch,
};

use crate::{
    key, run, shell,
    support::{folder::Folder, start},
    text,
};

fn at(millis: u64) -> std::time::SystemTime {
    start() + Duration::from_millis(millis)
}

async fn read(backend: &SqliteBackend, id: &KeyId) -> ApiKey {
    let mut found = backend.get_many(&[id.lookup_key()]).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[tokio::test]
async fn every_field_comes_back_as_it_was_written() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    let mut full = key(2, "Üser 'x'\0;--");
    full.name = Some("naïve \"name\"\0".to_owned());
    full.scopes = Scopes::unrestricted();
    full.expires_at = Some(at(1));
    full.last_used_at = Some(at(2));
    full.revoked_at = Some(at(3));
    full.disabled_at = Some(at(4));
    full.version = 7;
    let mut without = key(3, "");
    without.scopes = Scopes::none();
    for key in [&key(1, "user_1"), &full, &without] {
        assert!(backend.insert(key).await.unwrap());
        assert_eq!(text(&read(&backend, &key.id).await), text(key));
    }

    // An update writes all of them, too, but for those that never change.
    let mut updated = full.clone();
    updated.id = without.id;
    updated.version = 8;
    assert!(backend.update(&updated, 1).await.unwrap());
    updated.user_id = without.user_id;
    updated.created_at = without.created_at;
    assert_eq!(text(&read(&backend, &without.id).await), text(&updated));
}

#[tokio::test]
async fn any_number_of_keys_is_read_at_once() {
    let folder = Folder::new("sqlite-many");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::open(&path).await.unwrap();
    let mut shell = shell(&path).await;
    run(&mut shell, "BEGIN").await;
    backend.get_many(&[]).await.unwrap();
    run(&mut shell, "ROLLBACK").await;
    for number in 0..300 {
        assert!(backend.insert(&key(number, "user_1")).await.unwrap());
    }
    for asked in [0, 1, 2, 3, 17, 255, 256, 257, 299, 300, 1_024, 1_025, 5_000] {
        let keys: Vec<_> = (0..asked)
            .map(|number| key(number, "user_1").lookup_key())
            .collect();
        let found = backend.get_many(&keys).await.unwrap();
        let ids: BTreeSet<_> = found.iter().map(|key| key.id).collect();
        let expected = usize::try_from(asked.min(300)).unwrap();
        assert_eq!((found.len(), ids.len()), (expected, expected), "of {asked}");
    }
    // One that is asked for twice is one.
    let twice = [key(1, "user_1").lookup_key(); 2];
    assert_eq!(backend.get_many(&twice).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_insert_never_overwrites() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    let stored = key(1, "user_1");
    assert!(backend.insert(&stored).await.unwrap());
    let mut other = key(1, "user_2");
    other.version = 9;
    assert!(!backend.insert(&other).await.unwrap());
    assert_eq!(text(&read(&backend, &stored.id).await), text(&stored));
}

#[tokio::test]
async fn an_update_replaces_the_version_that_it_expects_and_no_other() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    let mut stored = key(1, "user_1");
    stored.last_used_at = Some(at(50));
    backend.insert(&stored).await.unwrap();
    let mut new = stored.clone();
    new.version = 2;
    new.last_used_at = Some(at(40));
    for expected in [0, 2, 3, i64::MAX as u64, u64::MAX] {
        assert!(!backend.update(&new, expected).await.unwrap(), "{expected}");
    }
    assert_eq!(text(&read(&backend, &stored.id).await), text(&stored));
    assert!(backend.update(&new, 1).await.unwrap());
    assert!(!backend.update(&new, 1).await.unwrap());

    // The later use stays, whichever it is.
    assert_eq!(read(&backend, &stored.id).await.last_used_at, Some(at(50)));
    for (version, used, stays) in [(3, None, 50), (4, Some(at(60)), 60)] {
        new.version = version;
        new.last_used_at = used;
        assert!(backend.update(&new, version - 1).await.unwrap());
        assert_eq!(
            read(&backend, &stored.id).await.last_used_at,
            Some(at(stays))
        );
    }
    assert!(
        !backend.update(&key(2, "user_1"), 1).await.unwrap(),
        "it isn't there"
    );
}

#[tokio::test]
async fn of_two_updates_at_once_one_counts() {
    let folder = Folder::new("sqlite-updates");
    let path = folder.join("keys.db");
    let backends = [
        SqliteBackend::open(&path).await.unwrap(),
        SqliteBackend::open(&path).await.unwrap(),
    ];
    for number in 0..50 {
        let stored = key(number, "user_1");
        backends[0].insert(&stored).await.unwrap();
        let mut new = stored.clone();
        new.version = 2;
        let updates = backends.each_ref().map(|backend| {
            let (backend, new) = (backend.clone(), new.clone());
            tokio::spawn(async move { backend.update(&new, 1).await.unwrap() })
        });
        let mut counted = 0;
        for update in updates {
            counted += u32::from(update.await.unwrap());
        }
        assert_eq!(counted, 1);
    }
}

#[tokio::test]
async fn what_was_deleted_is_gone() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    let stored = key(1, "user_1");
    backend.insert(&stored).await.unwrap();
    backend.insert(&key(2, "user_1")).await.unwrap();
    assert!(backend.delete(&stored.id).await.unwrap());
    assert!(!backend.delete(&stored.id).await.unwrap());
    assert!(
        backend
            .get_many(&[stored.lookup_key()])
            .await
            .unwrap()
            .is_empty()
    );
    read(&backend, &key(2, "user_1").id).await;
}

#[tokio::test]
async fn a_list_goes_from_the_newest_to_the_oldest_page_by_page() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    let mut expected = Vec::new();
    for number in 0..25 {
        let mut key = key(number, "user_1");
        // Several of one moment.
        key.created_at = at(u64::from(number / 4));
        backend.insert(&key).await.unwrap();
        expected.push(key);
    }
    expected.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
    let expected: Vec<_> = expected.iter().map(|key| key.id).collect();
    for (number, other) in (100..).zip(["USER_1", "user_1 ", "user_1\0", "user_2"]) {
        assert!(backend.insert(&key(number, other)).await.unwrap());
    }
    for limit in [1, 3, 7, 25, 26] {
        let mut found = Vec::new();
        let mut page = PageRequest::new().limit(limit);
        loop {
            let keys = backend.list_for_user("user_1", &page).await.unwrap();
            assert!(keys.len() <= limit);
            let Some(last) = keys.last() else { break };
            page = page.after(Cursor::of(last));
            found.extend(keys.iter().map(|key| key.id));
        }
        assert_eq!(found, expected, "{limit} at a time");
    }
    let nobody = backend
        .list_for_user("nobody", &PageRequest::new())
        .await
        .unwrap();
    assert!(nobody.is_empty());
}

#[tokio::test]
async fn a_use_is_noted_unless_a_later_one_is() {
    let backend = SqliteBackend::in_memory().await.unwrap();
    for number in 0..3_000 {
        backend.insert(&key(number, "user_1")).await.unwrap();
    }
    let id = |number| key(number, "user_1").id;
    backend.touch(&[]).await.unwrap();
    backend
        .touch(&[Touch::new(id(0), at(50)), Touch::new(id(1), at(50))])
        .await
        .unwrap();
    // One that isn't there, and one of them twice, among many.
    let mut touches: Vec<_> = (1..3_001)
        .map(|number| Touch::new(id(number), at(40)))
        .collect();
    touches.extend([70, 60].map(|used| Touch::new(id(2), at(used))));
    backend.touch(&touches).await.unwrap();
    for (number, used) in [(0, 50), (1, 50), (2, 70), (3, 40), (2_999, 40)] {
        let key = read(&backend, &id(number)).await;
        assert_eq!(
            (key.last_used_at, key.version),
            (Some(at(used)), 1),
            "key {number}"
        );
    }
    let missing = backend.get_many(&[id(3_000).lookup_key()]).await.unwrap();
    assert!(missing.is_empty());
}

/// Calls that are given up at any moment leave nothing behind that others stumble over.
#[tokio::test]
async fn calls_that_are_given_up_do_no_harm() {
    let folder = Folder::new("sqlite-dropped");
    let backend = SqliteBackend::builder()
        .max_connections(2)
        .open(folder.join("keys.db"))
        .await
        .unwrap();
    let stored: Vec<_> = (0..64).map(|number| key(number, "user_1")).collect();
    for key in &stored {
        backend.insert(key).await.unwrap();
    }
    let asked: Vec<_> = stored.iter().map(ApiKey::lookup_key).collect();
    let touches: Vec<_> = stored.iter().map(|key| Touch::new(key.id, at(1))).collect();
    for round in 0..100 {
        let patience = Duration::from_micros(10 * round);
        let given_up = tokio::time::timeout(patience, backend.get_many(&asked));
        drop(given_up.await);
        drop(tokio::time::timeout(patience, backend.touch(&touches)).await);
        drop(tokio::time::timeout(patience, backend.insert(&stored[0])).await);
    }
    assert_eq!(backend.get_many(&asked).await.unwrap().len(), 64);
    backend.touch(&touches).await.unwrap();
    assert_eq!(
        read(&backend, &stored[9].id).await.last_used_at,
        Some(at(1))
    );
}
