//! Rows as an operator leaves them: what can't be read is never taken for a key that isn't there.

use std::time::{Duration, UNIX_EPOCH};

use tower_api_key::{
    ApiKeyBackend, KeySource, PageRequest, PostgresBackend,
    sqlx::{AssertSqlSafe, raw_sql},
};

use crate::{
    node::{Node, literal, where_id},
    records::record,
    support::{USER, postgres::Server},
};

const NO_CHECKS: &str = "
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT conname FROM pg_constraint
        WHERE conrelid = 'tower_api_keys'::regclass AND contype = 'c'
    LOOP EXECUTE format('ALTER TABLE tower_api_keys DROP CONSTRAINT %I', name); END LOOP;
END $$";

const NONSENSE: &[&str] = &[
    "secret_hash = ''",
    "secret_hash = repeat('ab', 31)",
    "scopes = 'notes:read  notes:write'",
    "scopes = ' notes:read'",
    "unrestricted = true",
    "display_prefix = ''",
    "pepper = ''",
    "pepper = 'a pepper'",
    "created_at = 'infinity'",
    "created_at = '1969-12-31 23:59:59+00'",
    "expires_at = '-infinity'",
    "expires_at = '10000-01-01 00:00:00+00'",
    "expires_at = '294276-12-31 23:59:59+00'",
    "revoked_at = 'infinity'",
    "revoked_at = '-infinity'",
    "disabled_at = 'infinity'",
    "last_used_at = 'infinity'",
];

#[tokio::test]
async fn g3_a_row_that_can_not_be_read_is_an_error_and_not_an_unknown_key() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::connect(&server).await;
    let all = format!(
        "{NO_CHECKS}; ALTER TABLE tower_api_keys ALTER user_id DROP NOT NULL,
        ALTER scopes DROP NOT NULL, ALTER unrestricted DROP NOT NULL,
        ALTER secret_hash DROP NOT NULL, ALTER created_at DROP NOT NULL,
        ALTER version DROP NOT NULL; DROP TRIGGER tower_api_key_version ON tower_api_keys"
    );
    server.psql(&all).await;
    let nulls = [
        "user_id",
        "scopes",
        "unrestricted",
        "secret_hash",
        "created_at",
        "version",
    ];
    let nulls: Vec<_> = nulls
        .iter()
        .map(|column| format!("{column} = NULL"))
        .collect();
    let nonsense = NONSENSE
        .iter()
        .copied()
        .chain(nulls.iter().map(String::as_str));
    for change in nonsense {
        let token = node.token().await;
        server
            .psql(&format!(
                "UPDATE tower_api_keys SET {change} WHERE {}",
                where_id(&token)
            ))
            .await;
        let read = node
            .backend
            .get_many(&[crate::support::id_of(&token).lookup_key()])
            .await;
        assert!(read.is_err_and(|error| error.is_corrupt()), "{change}");
        node.store.invalidate_all();
        assert_eq!(node.verify(&token).await, "unavailable", "{change}");
        // A list of this user can't have them: nothing says that they are his, or where they belong.
        if !["user_id = NULL", "created_at = NULL"].contains(&change) {
            let list = node.backend.list_for_user(USER, &PageRequest::new()).await;
            assert!(list.is_err_and(|error| error.is_corrupt()), "{change}");
        }
        server.psql("DELETE FROM tower_api_keys").await;
    }
    // An id of another length can't be asked for.
    let token = node.token().await;
    server.psql(r"UPDATE tower_api_keys SET id = '\x00'").await;
    node.becomes(&token, "unknown").await;
    assert!(
        node.backend
            .list_for_user(USER, &PageRequest::new())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_table_refuses_what_no_key_can_be() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut key = record(1);
    key.expires_at = None;
    assert!(backend.insert(&key).await.unwrap());
    let mut connection = server.connection().await;
    let more = [
        r"id = '\x00'",
        "user_id = ''",
        "user_id = NULL",
        "scopes = NULL",
        "secret_hash = repeat('AB', 32)",
    ];
    for change in NONSENSE.iter().chain(&more) {
        let statement = format!("UPDATE tower_api_keys SET {change}");
        let refused = raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await;
        assert!(refused.is_err(), "{change}");
    }
    let read = backend.get_many(&[key.id.lookup_key()]).await.unwrap();
    assert_eq!(format!("{:?}", read[0]), format!("{key:?}"));
}

#[tokio::test]
async fn times_that_an_operator_writes_are_read_in_whole_milliseconds() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let key = record(1);
    assert!(backend.insert(&key).await.unwrap());
    let id = literal(&key.id);
    server
        .psql(&format!(
            "UPDATE tower_api_keys SET expires_at = 'infinity',
                revoked_at = '2026-01-01 00:00:00.123999+00', disabled_at = NULL WHERE id = {id}"
        ))
        .await;
    let read = backend.get_many(&[key.id.lookup_key()]).await.unwrap();
    assert_eq!(read[0].expires_at, None);
    let wanted = UNIX_EPOCH + Duration::from_millis(1_767_225_600_123);
    assert_eq!(read[0].revoked_at, Some(wanted));
    assert_eq!(read[0].disabled_at, None);
    // What a list goes by has no more than the cursor has.
    server
        .psql("UPDATE tower_api_keys SET created_at = '2026-01-01 00:00:00.123456+00'")
        .await;
    let list = backend
        .list_for_user(USER, &PageRequest::new())
        .await
        .unwrap();
    assert_eq!(list[0].created_at, wanted);
    let page = PageRequest::new().after(tower_api_key::Cursor::of(&list[0]));
    assert!(backend.list_for_user(USER, &page).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_by_hand_raises_the_version_so_that_no_older_reading_overwrites_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut key = record(1);
    key.revoked_at = None;
    assert!(backend.insert(&key).await.unwrap());
    server
        .psql("UPDATE tower_api_keys SET revoked_at = now()")
        .await;
    let mut renamed = key.clone();
    renamed.name = Some("renamed".to_owned());
    renamed.version = 8;
    assert!(!backend.update(&renamed, 7).await.unwrap());
    let version = async || backend.get_many(&[key.id.lookup_key()]).await.unwrap()[0].version;
    assert_eq!(version().await, 8);
    // Neither a use nor nothing is a change; a version never goes back.
    for (change, wanted) in [
        ("last_used_at = now()", 8),
        ("name = name", 8),
        ("version = 20", 20),
        ("version = 3, revoked_at = NULL", 21),
        ("name = NULL, version = version + 1", 22),
    ] {
        server
            .psql(&format!("UPDATE tower_api_keys SET {change}"))
            .await;
        assert_eq!(version().await, wanted, "{change}");
    }
}
