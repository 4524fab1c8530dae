//! Steps from one schema to the next.

use sqlx::{Connection as _, SqliteConnection};

use super::{
    super::schema::{Found, STEPS, look, migrate},
    run,
};
use crate::backend::sql::{OpenError, TablePrefix};

/// Those there are, and one more.
const NEXT: &[&str] = &[
    STEPS[0],
    STEPS[1],
    "ALTER TABLE {prefix}keys ADD COLUMN colour TEXT NOT NULL DEFAULT 'none';
     CREATE INDEX {prefix}keys_by_colour ON {prefix}keys (colour);",
];

async fn memory() -> SqliteConnection {
    SqliteConnection::connect("sqlite::memory:").await.unwrap()
}

#[tokio::test]
async fn only_the_steps_that_are_missing_are_done_and_records_stay() {
    let prefix = TablePrefix::default();
    let mut connection = memory().await;
    migrate(&mut connection, &prefix, STEPS).await.unwrap();
    assert_eq!(
        look(&mut connection, &prefix, STEPS).await.unwrap(),
        Found::Schema(STEPS.len())
    );
    run(
        &mut connection,
        "INSERT INTO tower_api_keys (id, user_id, name, scopes, unrestricted, display_prefix, pepper,
             secret_hash, created_at, expires_at, last_used_at, revoked_at, disabled_at, version)
         VALUES
           (randomblob(24), 'user_1', NULL, '', 0, 'pk.key_abcdefghi', 'v1', hex(zeroblob(32)), 1, NULL, NULL, NULL, NULL, 1)",
    )
    .await;

    migrate(&mut connection, &prefix, NEXT).await.unwrap();
    migrate(&mut connection, &prefix, NEXT).await.unwrap();
    let colours: Vec<String> = sqlx::query_scalar("SELECT colour FROM tower_api_keys")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(colours, ["none"]);
    assert_eq!(
        look(&mut connection, &prefix, NEXT).await.unwrap(),
        Found::Schema(NEXT.len())
    );

    // What was newer stays.
    let error = migrate(&mut connection, &prefix, STEPS).await.unwrap_err();
    assert!(matches!(
        error,
        OpenError::NewerSchema { found: 3, known: 2 }
    ));
    assert_eq!(NEXT.len(), STEPS.len() + 1);
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_behind() {
    let prefix = TablePrefix::default();
    let mut connection = memory().await;
    let broken = &[
        STEPS[0],
        "CREATE TABLE {prefix}more (id); CREATE TABLE {prefix}keys (id);",
    ];
    migrate(&mut connection, &prefix, broken).await.unwrap_err();
    assert_eq!(
        look(&mut connection, &prefix, STEPS).await.unwrap(),
        Found::Nothing { is_empty: true }
    );
    migrate(&mut connection, &prefix, STEPS).await.unwrap();
}
