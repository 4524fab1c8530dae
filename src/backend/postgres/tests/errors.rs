//! What errors of the server mean.

use sqlx::{Connection as _, PgConnection, raw_sql};

use super::server::Server;
use crate::{backend::sql::failed, error::StoreError};

#[tokio::test]
async fn g13_text_that_an_encoding_cannot_hold_is_an_invalid_key() {
    let Some(server) = Server::start() else {
        return;
    };
    server
        .psql(
            "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
        )
        .await;
    let (base, _) = server.url().rsplit_once('/').map_or_else(
        || panic!("a URL without a database"),
        |(base, name)| (base.to_owned(), name.to_owned()),
    );
    let mut connection = PgConnection::connect(&format!("{base}/latin"))
        .await
        .unwrap();
    raw_sql("CREATE TABLE names (name text)")
        .execute(&mut connection)
        .await
        .unwrap();
    // No letter of LATIN1, and no text of any encoding.
    for text in ["\u{4e2d}", "a\0b"] {
        let insert = sqlx::query("INSERT INTO names VALUES ($1)").bind(text);
        let error = insert.execute(&mut connection).await.unwrap_err();
        let error = failed(error);
        assert!(!error.is_unavailable(), "{error:?}");
        let error = StoreError::from(error);
        assert!(matches!(error, StoreError::InvalidKey(_)), "{error:?}");
    }
}
