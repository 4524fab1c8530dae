//! Connecting: databases that cannot be used, and what a URL may say.

use tower_api_key::{OpenError, PostgresBackend};

use crate::support::postgres::Server;

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
