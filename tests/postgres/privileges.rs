//! Default privileges, as hosted platforms set them, give strangers nothing.

use std::sync::{Arc, Mutex};

use tower_api_key::{
    ApiKeyBackend as _, ApiKeyStore, BackendError, CacheConfig, Event, EventRecorder, Pepper,
    Peppers, PostgresBackend,
    sqlx::{AssertSqlSafe, Connection as _, PgConnection, query_scalar, raw_sql},
};

use crate::{
    node::{Node, where_id},
    setup::{texts, url_as},
    support::{PEPPER, postgres::Server},
};

const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];
/// As a platform sets them up, for the schema and for all schemas.
const PLATFORM: &str = "
CREATE ROLE anon LOGIN; CREATE ROLE authenticated LOGIN; CREATE ROLE service_role LOGIN;
CREATE ROLE app LOGIN;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO service_role, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO service_role WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO anon, authenticated, service_role";

/// What a stranger may try, in the schema.
const ATTEMPTS: [&str; 7] = [
    "SELECT secret_hash FROM tower_api_keys",
    "UPDATE tower_api_keys SET revoked_at = NULL",
    "DELETE FROM tower_api_key_changes",
    "UPDATE tower_api_key_schema SET version = 99",
    "SELECT claim_hash FROM tower_api_key_grants",
    "SELECT nextval('tower_api_key_changes_seq_seq')",
    "CREATE TEMP TABLE mine (id int); CREATE TRIGGER mine AFTER UPDATE ON mine
        FOR EACH STATEMENT EXECUTE FUNCTION tower_api_log_key_changes()",
];

async fn connect_as(server: &Server, role: &str, schema: &str) -> PgConnection {
    let mut connection = PgConnection::connect(&url_as(server, role)).await.unwrap();
    let path = format!("SET search_path = {schema}");
    raw_sql(AssertSqlSafe(path))
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_default_privileges_open_no_new_table_to_other_roles() {
    let Some(server) = Server::start() else {
        return;
    };
    server.psql(PLATFORM).await;
    for schema in ["public", "auth"] {
        let builder = || {
            PostgresBackend::builder()
                .schema(schema)
                .privileges_for(["app"])
        };
        let backend = builder().connect(&server.url()).await.unwrap();
        assert_eq!(backend.warnings().await.unwrap(), [""; 0]);
        assert_eq!(backend.exposed_privileges().await.unwrap(), []);
        let node = Node::on(backend, CacheConfig::new()).await;
        let token = node.token().await;
        for role in ROLES {
            let mut connection = server.connection().await;
            let may_use = query_scalar("SELECT has_schema_privilege($1, $2, 'USAGE')");
            let may_use: bool = may_use
                .bind(role)
                .bind(schema)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(may_use, schema == "public", "{role}");
            for attempt in ATTEMPTS {
                let mut connection = connect_as(&server, role, schema).await;
                let tried = raw_sql(attempt).execute(&mut connection).await;
                let error = tried.expect_err(attempt).to_string();
                let is_refused = error.contains("permission denied")
                    || schema == "auth" && error.contains("not exist");
                assert!(is_refused, "{role}: {attempt}: {error}");
            }
        }
        // The role that is named can do all that an instance does.
        for is_pooled in [false, true] {
            let url = url_as(&server, "app");
            let backend = if is_pooled {
                let pool = tower_api_key::sqlx::PgPool::connect_lazy(&url).unwrap();
                builder().over(pool).await.unwrap()
            } else {
                builder().connect(&url).await.unwrap()
            };
            let app = Node::on(backend, CacheConfig::new()).await;
            assert_eq!(app.verify(&token).await, "good");
            let other = app.token().await;
            assert!(app.store.revoke_token(&other).await.unwrap());
            assert_eq!(app.store.revoke_all_for_user("nobody").await.unwrap(), 0);
            app.store.purge(std::time::SystemTime::now()).await.unwrap();
        }
        // An operator's change is logged, though nobody else may call what logs it.
        node.cache(&token).await;
        let update = format!(
            "UPDATE {schema}.tower_api_keys SET revoked_at = now() WHERE {}",
            where_id(&token)
        );
        server.psql(&update).await;
        node.becomes(&token, "revoked").await;
    }
}

#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<Event>>>);

impl EventRecorder for Recorded {
    async fn record(&self, events: &[Event]) -> Result<(), BackendError> {
        self.0.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_privileges_on_existing_tables_are_reported_and_withdrawn() {
    let Some(server) = Server::start() else {
        return;
    };
    server.psql(PLATFORM).await;
    drop(Node::connect(&server).await);
    server
        .psql(
            "GRANT SELECT ON tower_api_keys TO anon WITH GRANT OPTION;
            GRANT UPDATE (revoked_at) ON tower_api_keys TO authenticated;
            GRANT ALL ON SEQUENCE tower_api_key_changes_seq_seq TO service_role;
            GRANT EXECUTE ON FUNCTION tower_api_log_key_changes() TO PUBLIC;
            GRANT SELECT ON tower_api_keys TO app;
            SET ROLE anon; GRANT SELECT ON tower_api_keys TO authenticated; RESET ROLE",
        )
        .await;
    let backend = PostgresBackend::builder()
        .privileges_for(["app"])
        .connect(&server.url())
        .await
        .unwrap();
    let warnings = backend.warnings().await.unwrap();
    let [warning] = &*warnings else {
        panic!("{warnings:?}");
    };
    let named = warning.contains("PUBLIC, anon, authenticated, service_role");
    assert!(named && !warning.contains("app,"), "{warning}");

    let recorded = Recorded::default();
    let store = ApiKeyStore::builder(backend.clone())
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .record_events(recorded.clone())
        .build()
        .await
        .unwrap();
    store.shutdown().await.unwrap();
    let events = recorded.0.lock().unwrap().clone();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.name(), event.reason()))
        .collect();
    assert_eq!(told, [("backend.warning", Some(warning.as_str()))]);

    let exposed = backend.exposed_privileges().await.unwrap();
    let roles: Vec<_> = exposed
        .iter()
        .map(|it| (&*it.role, &*it.object, it.privileges.join(" ")))
        .collect();
    let keys = "TABLE \"public\".tower_api_keys";
    assert_eq!(
        roles,
        [
            (
                "PUBLIC",
                "FUNCTION \"public\".tower_api_log_key_changes()",
                "EXECUTE".to_owned()
            ),
            ("anon", keys, "SELECT".to_owned()),
            ("authenticated", keys, "SELECT UPDATE".to_owned()),
            (
                "service_role",
                "SEQUENCE \"public\".tower_api_key_changes_seq_seq",
                "SELECT UPDATE USAGE".to_owned()
            ),
        ]
    );
    for exposed in exposed {
        server.psql(&exposed.statement).await;
    }
    assert_eq!(backend.exposed_privileges().await.unwrap(), []);
    let mut connection = server.connection().await;
    let app = "SELECT has_table_privilege('app', 'tower_api_keys', 'SELECT')";
    let app: bool = query_scalar(app).fetch_one(&mut connection).await.unwrap();
    assert!(app, "a role that was named has lost its privileges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_role_that_does_not_exist_is_an_error_with_its_name() {
    let Some(server) = Server::start() else {
        return;
    };
    let builder = PostgresBackend::builder().privileges_for(["nobody\" here"]);
    let error = builder.connect(&server.url()).await.unwrap_err();
    let text = texts(&error);
    assert!(
        text.contains("nobody") && text.contains("not found"),
        "{text}"
    );
    // Nothing was created for it.
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'tower_api%'";
    let mut connection = server.connection().await;
    let tables: i64 = query_scalar(tables)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);
}
