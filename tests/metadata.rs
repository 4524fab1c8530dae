//! What a service keeps with a key: made of what serde can write, kept with it, and given back as it was.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use support::{Fixture, USER, id_of};
use tower_api_key::{KeyUpdate, Metadata, NewApiKey, Scopes, StoreError};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Made {
    by: String,
    ticket: u32,
}

fn made() -> Made {
    Made {
        by: "ops \"ü\"\n".to_owned(),
        ticket: 4_711,
    }
}

fn key_with(metadata: Metadata) -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none()).metadata(metadata)
}

#[tokio::test]
async fn a_key_keeps_what_the_service_gives_it_until_that_is_changed() {
    let Fixture { store, .. } = Fixture::new().await;
    let new = key_with(Metadata::new(&made()).unwrap());
    let issued = store.create(new).await.unwrap();
    let id = issued.key().id;
    let metadata = async || store.get(&id).await.unwrap().unwrap().metadata;
    assert_eq!(metadata().await.unwrap().get::<Made>().unwrap(), made());

    store
        .update(&id, KeyUpdate::new().name("CI"))
        .await
        .unwrap();
    assert_eq!(metadata().await.unwrap().get::<Made>().unwrap(), made());
    let other = Metadata::from_json(" [1, 2]\n").unwrap();
    let update = KeyUpdate::new().metadata(other);
    let updated = store.update(&id, update).await.unwrap().unwrap();
    assert_eq!(updated.metadata.unwrap().as_str(), " [1, 2]\n");
    assert_eq!(metadata().await.unwrap().get::<[u8; 2]>().unwrap(), [1, 2]);
    let update = KeyUpdate::new().no_metadata();
    store.update(&id, update).await.unwrap();
    assert_eq!(metadata().await, None);
    assert_eq!(store.get(&id).await.unwrap().unwrap().version, 4);
}

#[test]
fn what_is_no_json_or_too_long_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "{} {}",
        "'a'",
        "{a:1}",
        "\"\u{1}\"",
        "nul",
        "\0",
    ] {
        let error = Metadata::from_json(text).unwrap_err();
        assert_eq!(error.field(), "metadata", "{text}");
    }
    for text in ["null", "0", "\"\\u0000\"", "[[]]", "\r\n\t{}"] {
        assert_eq!(Metadata::from_json(text).unwrap().as_str(), text);
    }
    let of_length = |length: usize| format!("\"{}\"", "é".repeat(length / 2 - 1));
    assert!(Metadata::from_json(of_length(4_096)).is_ok());
    assert!(Metadata::from_json(of_length(4_098)).is_err());
    assert!(Metadata::new(&"x".repeat(4_094)).is_ok());
    assert!(Metadata::new(&"x".repeat(4_095)).is_err());
    // Whatever nests deeper could end the process of who reads it.
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Metadata::from_json(nested(127)).is_ok());
    assert!(Metadata::from_json(nested(1_000)).is_err());
    // A map in JSON has texts as its keys.
    let map = HashMap::from([((1, 2), 3)]);
    assert_eq!(Metadata::new(&map).unwrap_err().field(), "metadata");
}

#[tokio::test]
async fn what_no_database_can_store_changes_nothing() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = id_of(&fixture.token(&[]).await);
    for text in ["", "a\0b", "\u{1b}[2J"] {
        let metadata = Metadata::from_stored(text).unwrap();
        let update = KeyUpdate::new().metadata(metadata.clone()).name("x");
        for error in [
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
}

#[test]
fn what_is_read_as_something_else_is_an_error_with_its_cause() {
    let metadata = Metadata::from_json("{\"by\":1}").unwrap();
    let error = metadata.get::<Made>().unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn metadata_forges_no_line_of_a_log() {
    let Fixture { store, .. } = Fixture::new().await;
    let text = "{\"a\":\n\"\u{2028}\u{202e}x\u{85}\"}";
    let metadata = Metadata::from_stored(text).unwrap();
    let issued = store.create(key_with(Metadata::from_json("[\n1]").unwrap()));
    let key = issued.await.unwrap().key().clone();
    for shown in [format!("{metadata:?}"), format!("{key:?}")] {
        let forges = |char: char| char.is_control() || ('\u{2028}'..='\u{202e}').contains(&char);
        assert!(!shown.chars().any(forges), "{shown}");
    }
    assert!(!format!("{metadata:#?}").contains(['\u{2028}', '\u{202e}', '\u{85}']));
}
