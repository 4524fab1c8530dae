//! What isn't ours is refused, and left as it is.

use std::{fs, path::Path};

use tower_api_key::{OpenError, SqliteBackend};

use crate::{run, shell, support::folder::Folder};

/// The error, after a check that nothing has changed in the file.
async fn refusal(path: &Path) -> OpenError {
    let before = fs::read(path).unwrap();
    let error = SqliteBackend::open(path).await.unwrap_err();
    assert!(
        fs::read(path).unwrap() == before,
        "{} was changed",
        path.display()
    );
    error
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_as_it_is() {
    let folder = Folder::new("sqlite-text");
    let contents: [&[u8]; 6] = [
        b"x",
        b"these are notes, and nobody wants to lose them\n",
        &[b' '; 511],
        &[b' '; 512],
        &[0xff; 7_000],
        b"SQLite format 3\0 and so on",
    ];
    for (number, content) in contents.into_iter().enumerate() {
        let path = folder.join(&format!("{number}.db"));
        fs::write(&path, content).unwrap();
        let error = refusal(&path).await;
        assert!(
            matches!(error, OpenError::NotOurs(_)),
            "{number}: {error:?}"
        );
        assert!(
            error.to_string().contains("is not a SQLite database"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_database_of_something_else_is_left_as_it_is() {
    let folder = Folder::new("sqlite-others");
    for mode in ["DELETE", "WAL"] {
        let path = folder.join(&format!("{mode}.db"));
        let mut owner = shell(&path).await;
        run(&mut owner, &format!("PRAGMA journal_mode = {mode}")).await;
        run(
            &mut owner,
            "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')",
        )
        .await;
        // Once while its owner has it open, and once after that.
        let error = refusal(&path).await;
        assert!(
            error
                .to_string()
                .contains("is the database of something else"),
            "{error}"
        );
        tower_api_key::sqlx::Connection::close(owner).await.unwrap();
        let error = refusal(&path).await;
        assert!(matches!(error, OpenError::NotOurs(_)), "{error:?}");
    }
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_as_they_are() {
    let folder = Folder::new("sqlite-newer");
    let path = folder.join("keys.db");
    drop(SqliteBackend::open(&path).await.unwrap());
    let mut shell = shell(&path).await;
    run(&mut shell, "UPDATE tower_api_key_schema SET version = 1000").await;
    run(&mut shell, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let error = refusal(&path).await;
    assert!(
        matches!(
            error,
            OpenError::NewerSchema {
                found: 1000,
                known: 3,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn tables_that_are_not_what_they_should_be_are_left_as_they_are() {
    let folder = Folder::new("sqlite-broken");
    let breakages = [
        "DELETE FROM tower_api_key_schema",
        "INSERT INTO tower_api_key_schema VALUES (1)",
        "UPDATE tower_api_key_schema SET version = 0",
        "UPDATE tower_api_key_schema SET version = -1",
        "UPDATE tower_api_key_schema SET version = 'one'",
        "DROP TABLE tower_api_key_schema",
        "DROP TABLE tower_api_key_schema; CREATE TABLE tower_api_key_schema (other)",
        "DROP TABLE tower_api_keys",
        "DROP TABLE tower_api_key_changes",
        "DROP TABLE tower_api_key_grants",
    ];
    for (number, breakage) in breakages.into_iter().enumerate() {
        let path = folder.join(&format!("{number}.db"));
        drop(SqliteBackend::open(&path).await.unwrap());
        let mut shell = shell(&path).await;
        run(&mut shell, breakage).await;
        run(&mut shell, "PRAGMA wal_checkpoint(TRUNCATE)").await;
        let error = refusal(&path).await;
        assert!(
            matches!(error, OpenError::NotOurs(_)),
            "{breakage}: {error:?}"
        );
    }
}

#[tokio::test]
async fn what_can_not_be_a_database_is_said_to_be_so() {
    let folder = Folder::new("sqlite-places");
    let read_only = folder.join("read-only.db");
    fs::write(&read_only, "").unwrap();
    let mut rights = fs::metadata(&read_only).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(&read_only, rights).unwrap();
    let dangling = folder.join("dangling.db");
    std::os::unix::fs::symlink(folder.join("nowhere/keys.db"), &dangling).unwrap();
    let not_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.db");

    let cases = [
        (folder.0.clone(), "is a folder"),
        (
            folder.join("nowhere/keys.db"),
            "nowhere/keys.db: No such file",
        ),
        (read_only, "the file is read-only"),
        (dangling, "unable to open"),
        ("/dev/null".into(), "is not a file"),
        (":memory:".into(), "`in_memory`"),
        ("".into(), "empty path"),
        (folder.0.join(not_utf8), "UTF-8"),
        (folder.join("nul\0.db"), "NUL byte"),
    ];
    for (path, expected) in cases {
        let error = SqliteBackend::open(&path).await.unwrap_err();
        // What `main` prints when it returns the error.
        let printed = format!("{error:?}");
        assert!(printed.contains(expected), "{}: {printed}", path.display());
    }
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["dangling.db", "read-only.db"]);
}

#[tokio::test]
async fn settings_that_can_not_work_are_named() {
    use std::time::Duration;

    let folder = Folder::new("sqlite-settings");
    let builder = SqliteBackend::builder;
    let cases = [
        (builder().poll_every(Duration::ZERO), "`poll_every`"),
        (builder().max_connections(0), "`max_connections`"),
        (builder().max_connections(1_001), "`max_connections`"),
        (builder().busy_timeout(Duration::MAX), "`busy_timeout`"),
        (
            builder().table_prefix("keys; DROP TABLE"),
            "is not an identifier",
        ),
        (builder().table_prefix(""), "is not an identifier"),
    ];
    for (builder, expected) in cases {
        let error = builder.clone().in_memory().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        builder.open(folder.join("keys.db")).await.unwrap_err();
    }
    assert_eq!(folder.names(), [""; 0]);
    // The longest that SQLite can count to, and no interval at all to speak of.
    let extreme = builder()
        .busy_timeout(Duration::from_millis(i32::MAX as u64))
        .poll_every(Duration::MAX)
        .max_connections(1_000);
    extreme.open(folder.join("keys.db")).await.unwrap();
}
