//! Keys that pylon 0.3 wrote: their tokens work on, and nothing is guessed about them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "pylon/old.rs"]
mod old;
#[path = "pylon/refused.rs"]
mod refused;
#[path = "pylon/scopes.rs"]
mod scopes;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use old::{Old, Row, id, text, token};
use support::{Breakable, outcome, with_wrong_secret};
use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ImportError, MemoryBackend, MissingScopes, OldPatterns, OldScopes,
    OldWildcard, Pepper, PepperId, Peppers, PostgresBackend, PylonImport, Scopes, SqliteBackend,
};

/// Nothing is explained: what has no one meaning is refused.
fn strict() -> OldScopes {
    OldScopes {
        missing: MissingScopes::Refuse,
        wildcard: OldWildcard::Refuse,
        patterns: OldPatterns::Refuse,
    }
}

fn import(scopes: OldScopes) -> PylonImport {
    PylonImport::new(PepperId::new("pylon").unwrap(), scopes)
}

/// A store with a pepper of its own beside pylon's.
async fn store(backend: impl ApiKeyBackend) -> ApiKeyStore {
    let weak = Pepper::weak_for_import("pylon", old::PEPPER).unwrap();
    let peppers = Peppers::new(Pepper::random("v1").unwrap());
    let builder = ApiKeyStore::builder(backend).peppers(peppers.with_retired(weak).unwrap());
    builder.build().await.unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What a key that is resolved has to show.
async fn check_a_key_of_every_kind(old: &Old, backend: impl ApiKeyBackend) {
    let full = Row {
        prefix: text("pk.ours_from_old"),
        scopes: text("notes:read,tags:write"),
        expires_at: "4102444800".to_owned(),
        last_used_at: "1700000900".to_owned(),
        ..Row::new(1)
    };
    let bare = Row {
        name: text(""),
        prefix: text("pk.key_…"),
        ..Row::new(2)
    };
    let expired = Row {
        expires_at: "1700000001".to_owned(),
        ..Row::new(3)
    };
    old.put_all(&[full, bare, expired]).await;

    let report = old.import(&import(strict()), &backend).await.unwrap();
    assert_eq!(report.to_string(), "3 imported, 0 already there, 0 refused");

    let store = store(backend).await;
    let get = async |number| store.get(&id(number).parse().unwrap()).await.unwrap();
    let full = get(1).await.unwrap();
    assert_eq!(full.name.as_deref(), Some("CI"));
    assert_eq!(full.display_prefix.as_str(), "pk.ours_from_old");
    assert_eq!(
        full.scopes,
        Scopes::of(["notes:read", "tags:write"]).unwrap()
    );
    assert_eq!(full.created_at, at(1_700_000_000));
    assert_eq!(full.expires_at, Some(at(4_102_444_800)));
    assert_eq!(full.last_used_at, Some(at(1_700_000_900)));
    assert_eq!(full.version, 1);
    assert_eq!((full.revoked_at, full.disabled_at), (None, None));
    let bare = get(2).await.unwrap();
    assert_eq!((bare.name, bare.last_used_at), (None, None));
    assert_eq!(bare.expires_at, None);
    assert_eq!(bare.display_prefix.as_str(), &token(2)[..16]);

    let caller = store.verify(&token(1)).await.unwrap();
    assert_eq!(caller.user_id(), "user_1");
    assert!(caller.has_scope("tags:write") && !caller.has_scope("tags:read"));
    let told = async |token: &str| outcome(&store.verify(token).await);
    assert_eq!(told(&token(2)).await, "good");
    assert_eq!(told(&token(3)).await, "expired");
    assert_eq!(told(&with_wrong_secret(&token(1))).await, "wrong secret");
    assert_eq!(told(&token(4)).await, "unknown");
}

#[tokio::test]
async fn keys_of_pylons_sqlite_file_keep_their_tokens_and_all_that_is_known_of_them() {
    check_a_key_of_every_kind(&Old::sqlite().await, MemoryBackend::new()).await;
    let backend = SqliteBackend::in_memory().await.unwrap();
    check_a_key_of_every_kind(&Old::sqlite().await, backend).await;
}

#[tokio::test]
async fn keys_of_pylons_postgresql_keep_their_tokens_and_all_that_is_known_of_them() {
    let Some(old) = Old::postgres().await else {
        return;
    };
    if let Old::Postgres { pool, .. } = &old {
        let backend = PostgresBackend::new(pool.clone()).await.unwrap();
        Box::pin(check_a_key_of_every_kind(&old, backend)).await;
    }
}

#[tokio::test]
async fn the_tokens_of_the_vectors_work_on() {
    #[derive(serde::Deserialize)]
    struct Vectors {
        native: Vec<Vector>,
    }
    #[derive(serde::Deserialize)]
    struct Vector {
        pepper: String,
        token: String,
        id: String,
        secret_hash: String,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let old = Old::sqlite().await;
    for vector in &vectors.native {
        let row = Row {
            id: text(&vector.id),
            secret_hash: text(&vector.secret_hash),
            ..Row::new(0)
        };
        old.put(&row).await;
    }
    let backend = MemoryBackend::new();
    let _ = old.import(&import(strict()), &backend).await.unwrap();
    let pepper = Pepper::new("pylon", &vectors.native[0].pepper).unwrap();
    let builder = ApiKeyStore::builder(backend).peppers(Peppers::new(pepper));
    let store = builder.build().await.unwrap();
    for vector in vectors.native {
        let caller = store.verify(&vector.token).await.unwrap();
        assert_eq!(caller.key_id().to_string(), vector.id);
    }
}

/// Several pages, their ends, and that no row is left out or read twice.
async fn check_many(old: &Old, count: u32) {
    let rows: Vec<_> = (0..count).map(Row::new).collect();
    for rows in rows.chunks(1_000) {
        old.put_all(rows).await;
    }
    let backend = MemoryBackend::new();
    let report = old.import(&import(strict()), &backend).await.unwrap();
    assert_eq!(report.imported, u64::from(count));
    assert_eq!((report.already_there, report.refused.len()), (0, 0));
    let store = store(backend).await;
    for number in [0, 1, 499, 500, 501, 999, 1_000, count - 1] {
        assert_eq!(outcome(&store.verify(&token(number)).await), "good");
    }
}

#[tokio::test]
async fn thousands_of_rows_are_read_page_by_page_from_sqlite() {
    let old = Old::sqlite().await;
    check_many(&old, 4_000).await;
    // The last page was full, and now the first of them begins at the lowest number that there is.
    old.run("UPDATE _pylon_api_keys SET rowid = -9223372036854775807 WHERE rowid = 4000")
        .await;
    let report = old.import(&import(strict()), &MemoryBackend::new()).await;
    assert_eq!(report.unwrap().imported, 4_000);
}

#[tokio::test]
async fn thousands_of_rows_are_read_page_by_page_from_postgresql() {
    if let Some(old) = Old::postgres().await {
        check_many(&old, 4_001).await;
    }
}

#[tokio::test]
async fn what_is_there_already_is_left_as_it_is() {
    let old = Old::sqlite().await;
    old.put_all(&[Row::new(1), Row::new(2)]).await;
    let backend = MemoryBackend::new();
    let import = import(strict());
    let report = old.import(&import, &backend).await.unwrap();
    assert_eq!((report.imported, report.already_there), (2, 0));

    let store = store(backend.clone()).await;
    assert!(store.revoke(&id(1).parse().unwrap()).await.unwrap());
    old.put(&Row::new(3)).await;
    old.run("UPDATE _pylon_api_keys SET user_id = 'user_2'")
        .await;
    let report = old.import(&import, &backend).await.unwrap();
    assert_eq!((report.imported, report.already_there), (1, 2));
    assert_eq!(outcome(&store.verify(&token(1)).await), "revoked");
    assert_eq!(store.verify(&token(2)).await.unwrap().user_id(), "user_1");
    assert_eq!(store.verify(&token(3)).await.unwrap().user_id(), "user_2");
}

#[tokio::test]
async fn an_import_that_broke_off_says_so_and_can_be_run_again() {
    let old = Old::sqlite().await;
    old.put_all(&[Row::new(1), Row::new(2)]).await;
    let backend = Breakable::default();
    backend.set_broken(true);
    let error = old.import(&import(strict()), &backend).await.unwrap_err();
    assert!(matches!(&error, ImportError::Write(error) if !error.is_corrupt()));
    assert!(format!("{error:?}").ends_with("the cable was pulled"));

    backend.set_broken(false);
    let report = old.import(&import(strict()), &backend).await.unwrap();
    assert_eq!((report.imported, report.already_there), (2, 0));
}

/// The wrong database: another file, another schema.
async fn check_no_table(old: &Old) {
    let error = old.import(&import(strict()), &MemoryBackend::new()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ImportError::NoTable), "{error:?}");
    assert_eq!(error.to_string(), "there is no table `_pylon_api_keys`");
}

#[tokio::test]
async fn a_sqlite_file_without_the_table_is_an_error_and_not_an_import_of_nothing() {
    check_no_table(&Old::empty_sqlite().await).await;
}

#[tokio::test]
async fn a_postgresql_database_without_the_table_is_an_error_and_not_an_import_of_nothing() {
    if let Some(old) = Old::empty_postgres() {
        check_no_table(&old).await;
    }
}

#[tokio::test]
async fn a_database_that_fails_is_an_error_with_its_cause() {
    let old = Old::sqlite().await;
    old.put(&Row::new(1)).await;
    if let Old::Sqlite { pool, .. } = &old {
        pool.close().await;
    }
    let error = old.import(&import(strict()), &MemoryBackend::new()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ImportError::Read(_)), "{error:?}");
    assert!(format!("{error:?}").contains("closed pool"), "{error:?}");
}
