//! Connecting: databases that cannot be used, and what a URL may say.

use tower_api_key::{
    ApiKeyBackend, OpenError, PostgresBackend,
    sqlx::{PgPool, postgres::PgConnectOptions, query_as, query_scalar},
};

use crate::support::postgres::Server;

/// The users and databases of the sessions of an application.
async fn sessions(server: &Server, application: &str) -> Vec<(String, String)> {
    let mut connection = server.connection().await;
    let sessions = query_as(
        "SELECT usename::text, datname::text FROM pg_stat_activity WHERE application_name = $1",
    );
    let sessions = sessions.bind(application.to_owned());
    sessions.fetch_all(&mut connection).await.unwrap()
}

#[tokio::test]
async fn g13_a_database_whose_encoding_is_not_utf8_is_refused_at_open() {
    let Some(server) = Server::start() else {
        return;
    };
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let create = format!(
            "CREATE DATABASE other_{encoding} TEMPLATE template0
            ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        server.psql(&create).await;
        let name = format!("other_{}", encoding.to_lowercase());
        let port = server.port();
        let url = format!("postgres://postgres@127.0.0.1:{port}/{name}");
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        let OpenError::Unsupported(text) = &error else {
            panic!("{error:?}");
        };
        assert!(text.contains(encoding) && text.contains("UTF8"), "{text}");
    }
    PostgresBackend::connect(&server.url()).await.unwrap();
}

#[tokio::test]
async fn g13_a_url_with_parameters_of_many_kinds_connects_as_it_says() {
    let Some(server) = Server::start() else {
        return;
    };
    server
        .psql("CREATE ROLE owner; CREATE ROLE app LOGIN IN ROLE owner")
        .await;
    server.psql("CREATE DATABASE notes OWNER owner").await;
    let port = server.port();
    let ignored = "connect_timeout=5&keepalives=1&keepalives_idle=30&keepalives_interval=5\
         &keepalives_count=3&gssencmode=prefer&channel_binding=prefer&sslnegotiation=postgres\
         &target_session_attrs=read-write&client_encoding=utf8&sslcompression=0";
    let url = format!(
        "postgres://nobody:a-password@elsewhere.invalid:1/postgres?host=127.0.0.1&port={port}\
         &user=app&dbname=notes&password=another&application_name=notes%20service\
         &sslmode=prefer&statement-cache-capacity=50&options=-c%20role%3Downer\
         &options[jit]=off&{ignored}"
    );
    let backend = PostgresBackend::connect(&url).await.unwrap();
    let warnings = backend.warnings().await.unwrap();
    for pair in ignored.split('&') {
        let name = format!("`{}`", pair.split_once('=').unwrap().0);
        let about: Vec<_> = warnings.iter().filter(|it| it.contains(&name)).collect();
        assert_eq!(about.len(), 1, "{name}: {warnings:?}");
    }
    assert_eq!(warnings.len(), ignored.split('&').count(), "{warnings:?}");
    assert!(!format!("{warnings:?} {backend:?}").contains("password"));

    let sessions = sessions(&server, "notes service").await;
    assert_eq!(sessions, [("app".to_owned(), "notes".to_owned())]);
    let url = format!("postgres://postgres@127.0.0.1:{port}/notes");
    let pool = PgPool::connect(&url).await.unwrap();
    let owner =
        query_scalar("SELECT tableowner::text FROM pg_tables WHERE tablename = 'tower_api_keys'");
    let owner: String = owner.fetch_one(&pool).await.unwrap();
    assert_eq!(owner, "owner");
}

#[tokio::test]
async fn g13_a_refused_url_parameter_is_named_at_open() {
    for (parameter, words) in [
        ("channel_binding=require", "`channel_binding`"),
        ("sslnegotiation=direct", "`sslnegotiation`"),
        ("schema=auth", "schema(name)"),
        ("no_such=thing", "`no_such`"),
    ] {
        let url = format!("postgres://app:a-password@127.0.0.1:1/keys?{parameter}");
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        let OpenError::Unsupported(text) = &error else {
            panic!("{error:?}");
        };
        assert!(text.contains(words), "{text}");
        assert!(!format!("{error:?}").contains("a-password"));
    }
}

#[tokio::test]
async fn connect_with_takes_options_and_names_the_application() {
    let Some(server) = Server::start() else {
        return;
    };
    server.psql("CREATE ROLE app LOGIN SUPERUSER").await;
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port())
        .username("app")
        .password("a-password")
        .database("postgres");
    let builder = PostgresBackend::builder().schema("auth");
    let backend = builder.connect_with(options.clone()).await.unwrap();
    assert!(!format!("{backend:?}").contains("a-password"));
    let own = [("app".to_owned(), "postgres".to_owned())];
    assert_eq!(sessions(&server, "tower-api-key").await, own);
    let builder = PostgresBackend::builder().schema("auth");
    let named = options.clone().application_name("notes");
    let _backend = builder.connect_with(named).await.unwrap();
    assert_eq!(sessions(&server, "notes").await, own);
    let refused = PostgresBackend::builder().max_connections(0);
    let refused = refused.connect_with(options).await;
    assert!(matches!(refused, Err(OpenError::Setting { .. })));
}
