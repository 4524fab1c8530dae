//! Rows that no key can be made of are listed, and the others go on.

use tower_api_key::{ImportReport, MemoryBackend, RefusedReason};

use super::{
    import,
    old::{Old, Row, id, text, token},
    store, strict,
};
use crate::support::outcome;

/// A change to a row, and what is said of it.
type Case = (fn(&mut Row), &'static str);

fn sql(value: &str) -> String {
    value.to_owned()
}

const EITHER: &[Case] = &[
    (
        |row| row.secret_hash = text("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"),
        "a secret's hash is 64 hex digits, or 128 of SHA-512",
    ),
    (
        |row| row.secret_hash = text(&"a".repeat(63)),
        "a secret's hash is 64 hex digits, or 128 of SHA-512",
    ),
    (|row| row.user_id = text(""), "`user_id` is empty"),
    (
        |row| row.user_id = text(&"u".repeat(256)),
        "`user_id` is longer than 255 bytes",
    ),
    (
        |row| row.name = text("CI\nadmin"),
        "`name` has a character that controls lines or the direction of text, and could forge a log line",
    ),
    (
        |row| row.created_at = sql("-1"),
        "`created_at` is missing, or not between 1970 and 9999 in seconds",
    ),
    // Milliseconds.
    (
        |row| row.created_at = sql("1700000000000"),
        "`created_at` is missing, or not between 1970 and 9999 in seconds",
    ),
    (
        |row| row.expires_at = sql("9223372036854775807"),
        "`expires_at` is missing, or not between 1970 and 9999 in seconds",
    ),
    (
        |row| row.expires_at = sql("-1"),
        "`expires_at` is missing, or not between 1970 and 9999 in seconds",
    ),
    (
        |row| row.last_used_at = sql("253402300800"),
        "`last_used_at` is missing, or not between 1970 and 9999 in seconds",
    ),
    (|row| row.scopes = sql("NULL"), "it has no scopes"),
];

/// SQLite keeps values of any type in any column.
const SQLITE: &[Case] = &[
    (
        |row| row.created_at = text("yesterday"),
        "`created_at` is missing, or of another type",
    ),
    (
        |row| row.created_at = sql("1700000000.5"),
        "`created_at` is missing, or of another type",
    ),
    (
        |row| row.expires_at = text(""),
        "`expires_at` is missing, or of another type",
    ),
    (
        |row| row.secret_hash = sql("x'00ff'"),
        "`secret_hash` is missing, or of another type",
    ),
    (
        |row| row.user_id = sql("CAST(x'ff' AS TEXT)"),
        "`user_id` is missing, or of another type",
    ),
];

/// Good rows before, between and after are imported.
async fn check(old: &Old, cases: &[Case]) -> ImportReport {
    let count = u32::try_from(cases.len()).unwrap();
    for (number, (spoil, _)) in (0..).zip(cases) {
        let mut row = Row::new(2 * number + 1);
        spoil(&mut row);
        old.put_all(&[Row::new(2 * number), row]).await;
    }
    let backend = MemoryBackend::new();
    let report = old.import(&import(strict()), &backend).await.unwrap();
    assert_eq!(report.imported, u64::from(count), "{report}");
    assert_eq!(report.refused.len(), cases.len());
    let store = store(backend).await;
    for (number, (_, reason)) in (0..).zip(cases) {
        let refused = &report.refused[usize::try_from(number).unwrap()];
        assert_eq!(refused.id, id(2 * number + 1));
        assert_eq!(refused.reason.to_string(), *reason);
        assert_eq!(outcome(&store.verify(&token(2 * number)).await), "good");
        let refused = store.verify(&token(2 * number + 1)).await;
        assert_eq!(outcome(&refused), "unknown");
    }
    report
}

#[tokio::test]
async fn rows_that_no_key_can_be_made_of_are_listed_and_the_others_go_on() {
    let old = Old::sqlite().await;
    let report = check(&old, &[EITHER, SQLITE].concat()).await;
    // Nothing of a hash is shown, whatever it looks like.
    let shown = format!("{report} {report:?}");
    for hash in ["argon2id", "c2FsdA", &"a".repeat(63), "00ff"] {
        assert!(!shown.contains(hash), "{shown}");
    }
}

#[tokio::test]
async fn rows_of_postgresql_that_no_key_can_be_made_of_are_listed_and_the_others_go_on() {
    if let Some(old) = Old::postgres().await {
        let _ = check(&old, EITHER).await;
    }
}

/// Those that `CREATE TABLE … AS SELECT` makes have no such constraints.
#[tokio::test]
async fn a_value_that_is_missing_is_said_to_be() {
    let old = Old::sqlite().await;
    old.put(&Row::new(1)).await;
    old.run(
        "CREATE TABLE copied AS SELECT * FROM _pylon_api_keys;
         DROP TABLE _pylon_api_keys;
         ALTER TABLE copied RENAME TO _pylon_api_keys;",
    )
    .await;
    for (column, is_time) in [
        ("created_at", true),
        ("user_id", false),
        ("secret_hash", false),
        ("id", false),
    ] {
        old.run(&format!("UPDATE _pylon_api_keys SET {column} = NULL"))
            .await;
        let report = old.import(&import(strict()), &MemoryBackend::new()).await;
        let report = report.unwrap();
        let refused = match &report.refused[0].reason {
            RefusedReason::Time { column, .. } => (*column, true),
            RefusedReason::Column { column, .. } => (*column, false),
            reason => panic!("{reason}"),
        };
        assert_eq!(refused, (column, is_time));
        old.run("DELETE FROM _pylon_api_keys").await;
        old.put(&Row::new(1)).await;
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_shown_so_far_that_it_gives_no_token_away() {
    let old = Old::sqlite().await;
    let whole = token(1);
    let ids = [
        (text(&whole), "pk.key_000000000"),
        (text("key_short"), "key_short"),
        (text(""), ""),
        (text("key_\n\u{1b}[2J"), "key_\\n\\u{1b}[2J"),
        ("x'6b6579'".to_owned(), "(no text)"),
    ];
    for (number, (id, _)) in (1..).zip(&ids) {
        let row = Row {
            id: id.clone(),
            ..Row::new(number)
        };
        old.put(&row).await;
    }
    let report = old.import(&import(strict()), &MemoryBackend::new()).await;
    let report = report.unwrap();
    let shown: Vec<_> = report.refused.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(shown, ids.each_ref().map(|(_, shown)| *shown));
    assert!(!format!("{report} {report:?}").contains(&whole));
    let lines = report.to_string();
    assert_eq!(
        lines.lines().next(),
        Some("0 imported, 0 already there, 5 refused")
    );
    assert_eq!(lines.lines().count(), 6);
}
