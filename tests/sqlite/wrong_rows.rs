//! Rows that aren't records, and what an operator may do by hand.

use tower_api_key::{
    ApiKeyBackend, KeySource, NewApiKey, PageRequest, Scopes, SqliteBackend, VerifyError,
};

use crate::{
    key, run, shell, store,
    support::{USER, folder::Folder},
    try_run,
};

#[tokio::test]
async fn nonsense_can_not_be_written_by_hand() {
    let folder = Folder::new("sqlite-nonsense");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::open(&path).await.unwrap();
    backend.insert(&key(1, USER)).await.unwrap();
    let mut shell = shell(&path).await;
    for nonsense in [
        "id = zeroblob(23)",
        "id = NULL",
        "id = 'abcdefghijklmnopqrstuvwx'",
        "user_id = NULL",
        "scopes = NULL",
        "unrestricted = 2",
        "unrestricted = 1",
        "pepper = NULL",
        "secret_hash = 'ab'",
        "secret_hash = upper(secret_hash)",
        "created_at = NULL",
        "created_at = -1",
        "expires_at = 1e300",
        "revoked_at = datetime('now')",
        "revoked_at = -1",
        "version = 0",
        "version = NULL",
    ] {
        let statement = format!("UPDATE tower_api_keys SET {nonsense}");
        try_run(&mut shell, &statement).await.expect_err(nonsense);
    }
}

/// Whoever read the record before can't write it back.
#[tokio::test]
async fn a_change_by_hand_counts_against_writes_that_did_not_see_it() {
    let folder = Folder::new("sqlite-by-hand");
    let path = folder.join("keys.db");
    let backend = SqliteBackend::open(&path).await.unwrap();
    let stored = key(1, USER);
    backend.insert(&stored).await.unwrap();
    let mut shell = shell(&path).await;
    for recursive in ["OFF", "ON"] {
        run(
            &mut shell,
            &format!("PRAGMA recursive_triggers = {recursive}"),
        )
        .await;
        let before = backend
            .get_many(&[stored.lookup_key()])
            .await
            .unwrap()
            .remove(0);
        let now = "revoked_at = unixepoch() * 1000, name = 'by hand, ' || random()";
        let changed = try_run(&mut shell, &format!("UPDATE tower_api_keys SET {now}")).await;
        assert_eq!(changed.unwrap(), 1);
        let mut new = before.clone();
        new.version += 1;
        assert!(!backend.update(&new, before.version).await.unwrap());
        let after = backend
            .get_many(&[stored.lookup_key()])
            .await
            .unwrap()
            .remove(0);
        assert!(after.revoked_at.is_some());
        assert_eq!(after.version, before.version + 1);
    }
    // Neither that a key was used nor a write that changes nothing is a change.
    let before = backend
        .get_many(&[stored.lookup_key()])
        .await
        .unwrap()
        .remove(0);
    run(&mut shell, "UPDATE tower_api_keys SET last_used_at = 7").await;
    run(&mut shell, "UPDATE tower_api_keys SET name = name").await;
    let after = backend
        .get_many(&[stored.lookup_key()])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(after.version, before.version);
    // And a version that goes back doesn't.
    run(&mut shell, "UPDATE tower_api_keys SET version = 1").await;
    let after = backend
        .get_many(&[stored.lookup_key()])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(after.version, before.version + 1);
}

/// As they come from a damaged disk, or from someone who took the checks away.
#[tokio::test]
async fn g3_a_row_that_is_no_record_is_an_error_and_never_an_unknown_key() {
    let folder = Folder::new("sqlite-corrupt");
    for (number, damage) in [
        "secret_hash = 'short'",
        "secret_hash = CAST(x'ff' AS TEXT)",
        "scopes = 'notes:read  notes:write'",
        "scopes = CAST(x'fffe' AS TEXT)",
        "unrestricted = 1",
        "user_id = CAST(x'80' AS TEXT)",
        "display_prefix = ''",
        "pepper = ''",
        "created_at = -5",
        "revoked_at = 9223372036854775807",
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.join(&format!("{number}.db"));
        let backend = SqliteBackend::open(&path).await.unwrap();
        let store = store(backend.clone()).await;
        let new = NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap());
        let issued = store.create(new).await.unwrap();
        let mut shell = shell(&path).await;
        run(&mut shell, "PRAGMA ignore_check_constraints = ON").await;
        run(&mut shell, &format!("UPDATE tower_api_keys SET {damage}")).await;
        store.invalidate_all();
        let answer = store.verify(issued.token().expose()).await;
        assert!(
            matches!(answer, Err(VerifyError::Unavailable(_))),
            "{damage}: {answer:?}"
        );
        let asked = [issued.key().lookup_key()];
        let error = backend.get_many(&asked).await.unwrap_err();
        assert!(error.is_corrupt(), "{damage}: {error:?}");
        if !damage.starts_with("user_id") {
            let page = PageRequest::new();
            let error = backend.list_for_user(USER, &page).await.unwrap_err();
            assert!(error.is_corrupt(), "{damage}: {error:?}");
        }
    }
}
