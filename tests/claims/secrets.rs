//! No value in the database is one that a key could be claimed or used with, in whatever form it might be kept.

use std::fs;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use tower_api_key::{
    Pepper, Peppers,
    sqlx::{AssertSqlSafe, PgPool, SqlitePool, query_as, query_scalar},
};

use super::databases::{Database, Place, handed_off};
use crate::support::{PEPPER, USER, folder::Folder, postgres::Server};

/// Something that was found, and where.
struct Part {
    place: String,
    bytes: Vec<u8>,
}

/// Every value in every table that we have made, and for SQLite all that is in the files.
async fn all_parts(place: &Place) -> Vec<Part> {
    match place {
        Place::Memory(_) => Vec::new(),
        Place::Sqlite(folder) => {
            let mut parts = values_in_sqlite(folder).await;
            parts.extend(files(folder));
            parts
        }
        Place::Postgres(server) => values_in_postgres(server).await,
    }
}

async fn values_in_sqlite(folder: &Folder) -> Vec<Part> {
    let url = format!("sqlite:{}", folder.join("keys.db").display());
    let pool = SqlitePool::connect(&url).await.unwrap();
    let columns: Vec<(String, String)> = query_as(
        "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c \
         WHERE t.type = 'table'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let mut parts = Vec::new();
    for (table, column) in columns {
        let statement = format!(
            r#"SELECT CAST("{column}" AS BLOB) FROM "{table}" WHERE "{column}" IS NOT NULL"#
        );
        let statement = query_scalar(AssertSqlSafe(statement));
        let values: Vec<Vec<u8>> = statement.fetch_all(&pool).await.unwrap();
        parts.extend(parts_of(&table, &column, values));
    }
    pool.close().await;
    parts
}

async fn values_in_postgres(server: &Server) -> Vec<Part> {
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let columns: Vec<(String, String, String)> = query_as(
        "SELECT table_schema || '\".\"' || table_name, column_name::text, data_type::text \
         FROM information_schema.columns \
         WHERE table_schema NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let mut parts = Vec::new();
    for (table, column, kind) in columns {
        let value = if kind == "bytea" {
            format!(r#""{column}""#)
        } else {
            format!(r#"convert_to("{column}"::text, 'UTF8')"#)
        };
        let statement = format!(r#"SELECT {value} FROM "{table}" WHERE "{column}" IS NOT NULL"#);
        let statement = query_scalar(AssertSqlSafe(statement));
        let values: Vec<Vec<u8>> = statement.fetch_all(&pool).await.unwrap();
        parts.extend(parts_of(&table, &column, values));
    }
    pool.close().await;
    parts
}

fn parts_of(table: &str, column: &str, values: Vec<Vec<u8>>) -> impl Iterator<Item = Part> {
    let place = format!("{table}.{column}");
    values.into_iter().map(move |bytes| Part {
        place: place.clone(),
        bytes,
    })
}

fn files(folder: &Folder) -> Vec<Part> {
    let read = |name: String| Part {
        bytes: fs::read(folder.join(&name)).unwrap(),
        place: name,
    };
    let files: Vec<_> = folder.names().into_iter().map(read).collect();
    let has = |name: &str| files.iter().any(|file| file.place == name);
    assert!(has("keys.db") && has("keys.db-wal"));
    files
}

/// The ways in which bytes are written.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex = |bytes: &[u8]| {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    };
    let texts = [
        hex(bytes),
        BASE64_URL_SAFE_NO_PAD.encode(bytes),
        BASE64_STANDARD_NO_PAD.encode(bytes),
    ];
    let mut forms = vec![bytes.to_vec(), bytes.iter().rev().copied().collect()];
    for text in texts {
        // The bytes of a text may be written in hex, too.
        let hex = hex(text.as_bytes());
        forms.extend([&*text, &text.to_uppercase(), &hex, &hex.to_uppercase()].map(Vec::from));
    }
    forms
}

fn where_is<'a>(parts: &'a [Part], wanted: &[u8]) -> Option<&'a str> {
    let has = |part: &&Part| {
        let mut windows = part.bytes.windows(wanted.len());
        windows.any(|window| window == wanted)
    };
    parts.iter().find(has).map(|part| &*part.place)
}

fn is_nowhere(parts: &[Part], what: &str, bytes: &[u8]) {
    for form in forms(bytes) {
        assert_eq!(where_is(parts, &form), None, "{what} is kept");
    }
}

/// What is looked for is found where it is kept.
fn is_kept(parts: &[Part], what: &str, bytes: &[u8]) {
    assert!(where_is(parts, bytes).is_some(), "{what} isn't kept");
}

fn is_in_a_file(parts: &[Part], place: &Place, bytes: &[u8]) {
    if let Place::Sqlite(_) = place {
        let files = parts
            .iter()
            .filter(|part| part.place.starts_with("keys.db"));
        let has = |part: &Part| {
            part.bytes
                .windows(bytes.len())
                .any(|window| window == bytes)
        };
        assert!(files.into_iter().any(has), "the files aren't those");
    }
}

#[tokio::test]
async fn g7_the_database_has_nothing_that_a_key_could_be_claimed_or_used_with() {
    for database in Database::all("claims-secrets") {
        if let Place::Memory(_) = database.place() {
            continue;
        }
        let store = database.open().await;
        let handed_off = handed_off(&store).await;
        let (token, claim_hash) = (handed_off.token(), handed_off.grant().claim_hash);
        let parts = all_parts(database.place()).await;
        is_nowhere(&parts, "the claim token", token.expose());
        is_kept(&parts, "the claim token's hash", claim_hash.as_bytes());
        is_kept(&parts, "the name", b"laptop");
        is_kept(&parts, "the user", USER.as_bytes());
        is_in_a_file(&parts, database.place(), claim_hash.as_bytes());

        let issued = store.claim(token).await.unwrap();
        let plaintext = issued.token().expose();
        let secret = plaintext.rsplit('.').next().unwrap();
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(secret).unwrap();
        assert!(store.is_active(plaintext).await.unwrap());
        // Somebody presents both again, and notes that the key was used.
        store.claim(token).await.unwrap_err();
        store.verify(plaintext).await.unwrap();
        store.shutdown().await.unwrap();
        let parts = all_parts(database.place()).await;
        is_nowhere(&parts, "the claim token", token.expose());
        is_nowhere(&parts, "the key's secret", &decoded);
        is_nowhere(&parts, "the key's secret", secret.as_bytes());
        let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
        let hash = peppers.hash(issued.token()).unwrap().to_hex();
        is_kept(&parts, "the secret's hash", hash.as_bytes());
        is_kept(&parts, "the key's id", issued.key().id.as_bytes());
        is_kept(&parts, "the claim token's hash", claim_hash.as_bytes());
        is_in_a_file(&parts, database.place(), hash.as_bytes());
    }
}
