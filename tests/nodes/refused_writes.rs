//! Writes that the database ignores, or refuses because of the data. Neither is "not there", "taken"
//! or an outage.

use std::{
    error::Error,
    time::{Duration, UNIX_EPOCH},
};

use tower_api_key::{ApiKeyStore, IssuedKey, KeyUpdate, NewApiKey, Scopes, StoreError};

use crate::{
    DAY,
    support::{
        USER, chain,
        databases::{Database, clock},
        outcome,
    },
};

/// Makes a trigger by which changes of a table are ignored.
async fn ignore(database: &Database, event: &str, table: &str) {
    let sqlite = format!(
        "CREATE TRIGGER ignored BEFORE {event} ON tower_api_{table}
        BEGIN SELECT RAISE(IGNORE); END"
    );
    let postgres = format!(
        "CREATE FUNCTION ignored() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
        CREATE TRIGGER ignored BEFORE {event} ON tower_api_{table}
            FOR EACH ROW EXECUTE FUNCTION ignored()"
    );
    database.operator(&sqlite, &postgres).await;
}

async fn heed(database: &Database, table: &str) {
    let postgres = format!("DROP TRIGGER ignored ON tower_api_{table}; DROP FUNCTION ignored");
    database.operator("DROP TRIGGER ignored", &postgres).await;
}

/// The memory has no triggers and no constraints.
fn databases(test: &str) -> impl Iterator<Item = (&'static str, Database)> {
    let all = Database::all(test).into_iter();
    all.filter(|(_, database)| !matches!(database, Database::Memory(_)))
}

fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap())
}

async fn created(store: &ApiKeyStore) -> IssuedKey {
    store.create(new_key()).await.unwrap()
}

/// The error says that the database is in the way.
fn is_kept<T>(what: &str, answer: Result<T, StoreError>) {
    let error = answer.err().unwrap_or_else(|| panic!("{what}: no error"));
    let text = texts(&error);
    assert!(text.contains("the database kept the row"), "{what}: {text}");
}

fn texts(error: &(dyn Error + 'static)) -> String {
    chain(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_an_ignored_change_is_an_error() {
    for (name, database) in databases("g13-ignored") {
        let store = database.node(&clock()).await;
        let (key, rotated) = (created(&store).await, created(&store).await);
        let (id, old) = (key.key().id, rotated.key().id);
        drop(store.rotate(&old, DAY).await.unwrap());
        let ended = new_key().expires_at(UNIX_EPOCH + DAY);
        drop(store.create(ended).await.unwrap());
        let disabled = created(&store).await;
        assert!(store.disable(&disabled.key().id).await.unwrap(), "{name}");

        ignore(&database, "UPDATE", "keys").await;
        is_kept("disable", store.disable(&id).await);
        is_kept("enable", store.enable(&disabled.key().id).await);
        is_kept(
            "update",
            store.update(&id, KeyUpdate::new().name("new")).await,
        );
        is_kept("rotate", store.rotate(&id, DAY).await);
        is_kept("finish_rotation", store.finish_rotation(&old).await);
        is_kept("cancel_rotation", store.cancel_rotation(&old).await);
        is_kept("revoke", store.revoke(&id).await);
        is_kept(
            "revoke_token",
            store.revoke_token(key.token().expose()).await,
        );
        is_kept("revoke_all_for_user", store.revoke_all_for_user(USER).await);
        let found = store.get(&id).await.unwrap().unwrap();
        assert!(found.successor.is_none() && found.version == 1, "{name}");
        heed(&database, "keys").await;
        assert_eq!(outcome(&store.verify(key.token().expose()).await), "good");

        ignore(&database, "DELETE", "keys").await;
        is_kept("delete", store.delete(&id).await);
        let ended = UNIX_EPOCH + DAY * 2;
        is_kept("purge", store.purge(ended).await);
        heed(&database, "keys").await;
        assert!(store.delete(&id).await.unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_an_ignored_insertion_is_an_error_and_claims_nothing() {
    for (name, database) in databases("g13-not-inserted") {
        let store = database.node(&clock()).await;
        let parent = created(&store).await;
        let caller = store.verify(parent.token().expose()).await.unwrap();
        let minute = Duration::from_secs(60);
        let handed_off = store.hand_off_as(&caller, new_key(), minute).await.unwrap();
        let other_user = NewApiKey::for_user("user_3", Scopes::none());
        let revocable = store.hand_off(other_user, minute).await.unwrap();

        ignore(&database, "INSERT", "keys").await;
        is_kept("create", store.create(new_key()).await);
        is_kept("create_as", store.create_as(&caller, new_key()).await);
        is_kept("rotate", store.rotate(&parent.key().id, DAY).await);
        is_kept("claim", store.claim(handed_off.token()).await);
        heed(&database, "keys").await;

        ignore(&database, "UPDATE", "key_grants").await;
        is_kept("claim", store.claim(handed_off.token()).await);
        is_kept(
            "revoke_grant",
            store.revoke_grant(&revocable.grant().id).await,
        );
        is_kept(
            "revoke_all_for_user",
            store.revoke_all_for_user("user_3").await,
        );
        let of_nobody = store.revoke_all_for_user("user_2").await;
        assert_eq!(of_nobody.unwrap(), 0, "{name}");
        heed(&database, "key_grants").await;

        ignore(&database, "INSERT", "key_grants").await;
        is_kept("hand_off", store.hand_off(new_key(), minute).await);
        heed(&database, "key_grants").await;

        let found = store.get(&parent.key().id).await.unwrap().unwrap();
        assert!(found.successor.is_none(), "{name}: half of a rotation");
        let claimed = store.claim(handed_off.token()).await.unwrap();
        assert_eq!(
            outcome(&store.verify(claimed.token().expose()).await),
            "good",
            "{name}"
        );
    }
}

/// Rules of PostgreSQL turn a statement into none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_a_change_that_a_rule_discards_is_an_error() {
    for (name, database) in databases("g13-rules") {
        let Database::Postgres(server) = &database else {
            continue;
        };
        let store = database.node(&clock()).await;
        let key = created(&store).await;
        let id = key.key().id;
        for event in ["UPDATE", "DELETE", "INSERT"] {
            let rule =
                format!("CREATE RULE discarded AS ON {event} TO tower_api_keys DO INSTEAD NOTHING");
            server.psql(&rule).await;
            match event {
                "UPDATE" => {
                    is_kept("disable", store.disable(&id).await);
                    is_kept(
                        "update",
                        store.update(&id, KeyUpdate::new().name("new")).await,
                    );
                    store.rotate(&id, DAY).await.unwrap_err();
                    store.revoke(&id).await.unwrap_err();
                }
                "DELETE" => is_kept("delete", store.delete(&id).await),
                _ => is_kept("create", store.create(new_key()).await),
            }
            server.psql("DROP RULE discarded ON tower_api_keys").await;
        }
        let found = store.get(&id).await.unwrap().unwrap();
        assert!(
            found.successor.is_none() && found.revoked_at.is_none(),
            "{name}"
        );
    }
}

fn is_constraint<T>(what: &str, answer: Result<T, StoreError>, wanted: &str) {
    match answer {
        Err(StoreError::Constraint { name, .. }) if name.contains(wanted) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what}: no error"),
    }
}

/// Each with what it is called in both databases, and the name of a key that it refuses.
const CONSTRAINTS: [(&str, &str, &str, &str, &str); 3] = [
    (
        "one_name",
        "tower_api_keys.name",
        "CREATE UNIQUE INDEX one_name ON tower_api_keys (user_id, name)",
        "CREATE UNIQUE INDEX one_name ON tower_api_keys (user_id, name)",
        "taken",
    ),
    (
        "23514",
        "1811",
        "CREATE TRIGGER checked BEFORE INSERT ON tower_api_keys WHEN NEW.name = 'odd'
            BEGIN SELECT RAISE(ABORT, 'no odd names'); END;
        CREATE TRIGGER checked_2 BEFORE UPDATE ON tower_api_keys WHEN NEW.name = 'odd'
            BEGIN SELECT RAISE(ABORT, 'no odd names'); END",
        "CREATE FUNCTION checked() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE 'no odd names' USING ERRCODE = '23514'; END$$;
        CREATE TRIGGER checked BEFORE INSERT OR UPDATE ON tower_api_keys FOR EACH ROW
            WHEN (NEW.name = 'odd') EXECUTE FUNCTION checked()",
        "odd",
    ),
    (
        "short_names",
        "short_names",
        "CREATE TABLE names (name TEXT CONSTRAINT short_names CHECK (length(name) < 9));
        CREATE TRIGGER short BEFORE INSERT ON tower_api_keys
            BEGIN INSERT INTO names VALUES (NEW.name); END;
        CREATE TRIGGER short_2 BEFORE UPDATE ON tower_api_keys
            BEGIN INSERT INTO names VALUES (NEW.name); END",
        "ALTER TABLE tower_api_keys ADD CONSTRAINT short_names CHECK (length(name) < 9)",
        "a name that is too long",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_an_operators_constraint_is_named_and_is_no_outage() {
    for (name, database) in databases("g13-constraints") {
        let store = database.node(&clock()).await;
        let key = store.create(new_key().name("taken")).await.unwrap();
        let other = created(&store).await;
        let caller = store.verify(other.token().expose()).await.unwrap();
        for (in_postgres, in_sqlite, sqlite, postgres, refused) in CONSTRAINTS {
            database.operator(sqlite, postgres).await;
            let wanted = if name == "SQLite" {
                in_sqlite
            } else {
                in_postgres
            };
            let new = || new_key().name(refused);
            is_constraint("create", store.create(new()).await, wanted);
            is_constraint("create_as", store.create_as(&caller, new()).await, wanted);
            let update = KeyUpdate::new().name(refused);
            is_constraint(
                "update",
                store.update(&other.key().id, update).await,
                wanted,
            );
            let minute = Duration::from_secs(60);
            let handed_off = store.hand_off(new(), minute).await.unwrap();
            is_constraint("claim", store.claim(handed_off.token()).await, wanted);
            let grant = store.grant(&handed_off.grant().id).await.unwrap().unwrap();
            assert!(grant.claimed_at.is_none(), "{name}: the grant is used up");
        }
        // The successor has the name of the key, which is unique.
        let rotated = store.rotate(&key.key().id, DAY).await;
        let wanted = if name == "SQLite" {
            CONSTRAINTS[0].1
        } else {
            CONSTRAINTS[0].0
        };
        is_constraint("rotate", rotated, wanted);
        let found = store.get(&key.key().id).await.unwrap().unwrap();
        assert!(found.successor.is_none(), "{name}: half of a rotation");
        for token in [key.token(), other.token()] {
            assert_eq!(
                outcome(&store.verify(token.expose()).await),
                "good",
                "{name}"
            );
        }
        assert!(store.revoke(&key.key().id).await.unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_constraint_on_grants_is_named() {
    for (name, database) in databases("constraint-on-grants") {
        let store = database.node(&clock()).await;
        let index = "CREATE UNIQUE INDEX one_grant ON tower_api_key_grants (user_id)";
        database.operator(index, index).await;
        let minute = Duration::from_secs(60);
        drop(store.hand_off(new_key(), minute).await.unwrap());
        let wanted = if name == "SQLite" {
            "tower_api_key_grants.user_id"
        } else {
            "one_grant"
        };
        is_constraint("hand_off", store.hand_off(new_key(), minute).await, wanted);
    }
}
