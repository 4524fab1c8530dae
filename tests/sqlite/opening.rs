//! What is made where there is nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tower_api_key::{ApiKeyBackend, KeySource, OpenError, SqliteBackend, sqlx};

use crate::{key, run, shell, support::folder::Folder, text};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_new_file_and_those_beside_it_are_for_their_owner_alone() {
    let folder = Folder::new("sqlite-modes");
    let backend = SqliteBackend::open(folder.join("keys.db")).await.unwrap();
    backend.insert(&key(1, "user_1")).await.unwrap();
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["keys.db", "keys.db-shm", "keys.db-wal"]);
    for name in names {
        assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn the_rights_of_a_file_that_is_there_are_left_to_its_owner() {
    let folder = Folder::new("sqlite-rights");
    let path = folder.join("keys.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    SqliteBackend::open(&path).await.unwrap();
    assert_eq!(mode(&path), 0o660);
}

#[tokio::test]
async fn keys_are_there_when_the_file_is_opened_again() {
    let folder = Folder::new("sqlite-again");
    let path = folder.join("a name with % and ?mode=memory#.db");
    let stored = key(1, "user_1");
    for run in 0..3 {
        let backend = SqliteBackend::open(&path).await.unwrap();
        let inserted = backend.insert(&stored).await.unwrap();
        assert_eq!(inserted, run == 0);
        let found = backend.get_many(&[stored.lookup_key()]).await.unwrap();
        assert_eq!(text(&found[0]), text(&stored));
    }
    assert!(path.is_file());
}

#[tokio::test]
async fn many_can_open_a_new_file_at_once() {
    for round in 0..20 {
        let folder = Folder::new("sqlite-at-once");
        let path = folder.join("keys.db");
        let open = |number: u32| {
            let path = path.clone();
            tokio::spawn(async move {
                let backend = SqliteBackend::open(path).await?;
                backend.insert(&key(number, "user_1")).await?;
                Ok::<_, OpenError>(backend)
            })
        };
        let tasks: Vec<_> = (0..6).map(open).collect();
        for task in tasks {
            let backend = task.await.unwrap();
            backend.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        }
        let mut shell = shell(&path).await;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tower_api_keys")
            .fetch_one(&mut shell)
            .await
            .unwrap();
        assert_eq!(count, 6);
    }
}

/// To switch a file to WAL needs it alone for a moment: who reads it meanwhile is waited for.
#[tokio::test]
async fn a_file_that_is_in_use_is_switched_to_wal_when_it_can_be() {
    let folder = Folder::new("sqlite-wal");
    for (number, in_use) in ["BEGIN; SELECT * FROM tower_api_keys", "BEGIN IMMEDIATE"]
        .into_iter()
        .enumerate()
    {
        let path = folder.join(&format!("{number}.db"));
        let options = SqliteConnectOptions::new().filename(&path);
        let pool = SqlitePool::connect_with(options.create_if_missing(true)).await;
        drop(SqliteBackend::new(pool.unwrap()).await.unwrap());
        let mut shell = shell(&path).await;
        run(&mut shell, in_use).await;
        let builder = SqliteBackend::builder();
        let patient = tokio::spawn(builder.clone().open(path.clone()));
        let impatient = builder.busy_timeout(Duration::from_millis(100)).open(&path);
        let error = impatient.await.unwrap_err();
        assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
        run(&mut shell, "ROLLBACK").await;
        drop(patient.await.unwrap().unwrap());
    }
}

/// Reads don't wait for a writer, and a writer waits no longer than it may.
#[tokio::test]
async fn a_file_that_another_process_has_locked_is_unavailable_and_can_be_read() {
    let folder = Folder::new("sqlite-locked");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::builder()
        .busy_timeout(Duration::from_millis(100))
        .open(&path)
        .await
        .unwrap();
    backend.insert(&key(1, "user_1")).await.unwrap();
    let mut shell = shell(&path).await;
    run(&mut shell, "BEGIN IMMEDIATE").await;
    let error = backend.insert(&key(2, "user_1")).await.unwrap_err();
    assert!(!error.is_corrupt());
    let page = tower_api_key::PageRequest::new();
    assert_eq!(
        backend.list_for_user("user_1", &page).await.unwrap().len(),
        1
    );
    let error = SqliteBackend::builder()
        .busy_timeout(Duration::from_millis(100))
        .open(&path)
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");

    run(&mut shell, "ROLLBACK").await;
    assert!(backend.insert(&key(2, "user_1")).await.unwrap());
}
