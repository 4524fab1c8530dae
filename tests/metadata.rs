//! What a service keeps with a key: a JSON text, kept with it, and given back as it was.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[cfg(feature = "json")]
#[path = "metadata/made.rs"]
mod made;

use std::time::Duration;

use proptest::{prelude::*, sample::select};
use support::{Fixture, USER, id_of};
use tower_api_key::{KeyUpdate, Metadata, NewApiKey, Scopes, StoreError};

fn key_with(metadata: Metadata) -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none()).metadata(metadata)
}

/// Read by a parser that others use, as anything.
fn is_read(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

#[test]
fn what_is_no_json_or_too_long_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "{} {}",
        "'a'",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":1,}",
        "[1,]",
        "[,]",
        "[1 2]",
        "[}",
        "\"a",
        "\"\u{1}\"",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\udc00\"",
        "nul",
        "nulll",
        "\0",
        "\u{a0}1",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e400",
        "NaN",
        "a",
    ] {
        assert!(!is_read(text), "{text}");
        let error = Metadata::from_json(text).unwrap_err();
        assert_eq!(error.field(), "metadata", "{text}");
    }
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1.5e+3",
        "1E-400",
        "18446744073709551616",
        "1.7976931348623157e308",
        "\"\\u0000\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\ud83d\\uDD11 ü 🔑\"",
        // Control characters that JSON doesn't mind, and what could pass for the end of a line.
        "\"\u{7f}\u{80}\u{9f}\u{85}\u{2028}\u{202e}\"",
        "[[]]",
        "{\"\":{}}",
        "[ 1 , \"a\" , {\"b\" : null , \"c\":[]} ]",
        "\r\n\t {} \n",
    ] {
        assert!(is_read(text), "{text}");
        assert_eq!(Metadata::from_json(text).unwrap().as_str(), text);
    }
    let of_length = |length: usize| format!("\"{}\"", "é".repeat(length / 2 - 1));
    assert!(Metadata::from_json(of_length(4_096)).is_ok());
    assert!(Metadata::from_json(of_length(4_098)).is_err());
    // Whatever nests deeper could end the process of who reads it.
    let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let objects = |depth: usize| "{\"\":".repeat(depth) + "1" + &"}".repeat(depth);
    for depth in [126, 127, 128, 129, 500] {
        for nested in [arrays(depth), objects(depth)] {
            assert_eq!(is_read(&nested), depth < 128);
            assert_eq!(Metadata::from_json(nested).is_ok(), depth < 128);
        }
    }
}

/// Texts that are JSON, or not far from it.
fn texts() -> impl Strategy<Value = String> {
    let pieces = [
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "\\", "\\u", "d83d", "\\ud83d",
        "\\udd11", "\\n", "0", "7", "-", "+", ".", "e", "E", "e9", "true", "false", "null", " ",
        "\n", "\t", "\u{b}", "\u{1}", "\u{7f}", "\u{85}", "\u{2028}", "é", "🔑", "1.5", "12",
    ];
    let pieces = prop::collection::vec(select(pieces.to_vec()), 0..8);
    let brackets = select(vec![("", ""), ("[", "]"), ("{\"a\":", "}"), ("\"", "\"")]);
    (pieces, brackets)
        .prop_map(|(pieces, (open, close))| format!("{open}{}{close}", pieces.concat()))
}

#[test]
fn what_is_json_is_what_others_read() {
    let mut config = ProptestConfig::with_cases(20_000);
    config.failure_persistence = None;
    proptest!(config, |(text in texts())| {
        prop_assert_eq!(Metadata::from_json(text.clone()).is_ok(), is_read(&text), "{}", text);
    });
}

#[tokio::test]
async fn what_is_no_json_is_kept_with_no_key_whoever_has_made_it() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = id_of(&fixture.token(&[]).await);
    for text in ["", "a\0b", "\u{1b}[2J", "ops", "{\"by\":ops}", "{} {}"] {
        let metadata = Metadata::from_stored(text).unwrap();
        let update = KeyUpdate::new().metadata(metadata.clone()).name("x");
        let handed_off = store.hand_off(key_with(metadata.clone()), Duration::from_secs(1));
        for error in [
            handed_off.await.map(drop).unwrap_err(),
            store
                .create(key_with(metadata))
                .await
                .map(drop)
                .unwrap_err(),
            store.update(&id, update).await.map(drop).unwrap_err(),
        ] {
            let StoreError::InvalidKey(invalid) = error else {
                panic!("{error}");
            };
            assert_eq!(invalid.field(), "metadata");
        }
    }
    assert_eq!(store.get(&id).await.unwrap().unwrap().version, 1);
    let legal = Metadata::from_stored("\"\u{7f}\u{80}\u{85}\u{9f}\"").unwrap();
    let issued = store.create(key_with(legal.clone())).await.unwrap();
    assert_eq!(issued.key().metadata.as_ref(), Some(&legal));
}

#[tokio::test]
async fn metadata_forges_no_line_of_a_log() {
    let Fixture { store, .. } = Fixture::new().await;
    let text = "{\"a\":\n\"\u{2028}\u{202e}x\u{85}\"}";
    let metadata = Metadata::from_json(text).unwrap();
    let issued = store.create(key_with(metadata.clone()));
    let key = issued.await.unwrap().key().clone();
    for shown in [format!("{metadata:?}"), format!("{key:?}")] {
        let forges = |char: char| char.is_control() || ('\u{2028}'..='\u{202e}').contains(&char);
        assert!(!shown.chars().any(forges), "{shown}");
    }
    assert!(!format!("{metadata:#?}").contains(['\u{2028}', '\u{202e}', '\u{85}']));
}
