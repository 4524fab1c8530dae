//! With the feature `json`: made of what serde can write, and read as what it was.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tower_api_key::{KeyUpdate, Metadata};

use super::{key_with, support::Fixture};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Made {
    by: String,
    ticket: u32,
}

fn made() -> Made {
    Made {
        by: "ops \"ü\"\n\0\u{7f}\u{85}".to_owned(),
        ticket: 4_711,
    }
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

#[tokio::test]
async fn whatever_serde_writes_can_be_kept() {
    let Fixture { store, .. } = Fixture::new().await;
    for char in '\0'..'\u{300}' {
        let metadata = Metadata::new(&char).unwrap();
        assert_eq!(metadata.get::<char>().unwrap(), char);
        drop(store.create(key_with(metadata)).await.unwrap());
    }
    for number in [0.0, -1.5, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::NAN] {
        let metadata = Metadata::new(&number).unwrap();
        drop(store.create(key_with(metadata)).await.unwrap());
    }
}

#[test]
fn what_is_no_json_or_too_long_is_not_made() {
    assert!(Metadata::new(&"x".repeat(4_094)).is_ok());
    assert!(Metadata::new(&"x".repeat(4_095)).is_err());
    let nested =
        |depth| (0..depth).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
    assert!(Metadata::new(&nested(127)).is_ok());
    assert!(Metadata::new(&nested(128)).is_err());
    // A map in JSON has texts as its keys.
    let map = HashMap::from([((1, 2), 3)]);
    assert_eq!(Metadata::new(&map).unwrap_err().field(), "metadata");
}

#[test]
fn what_is_read_as_something_else_is_an_error_with_its_cause() {
    let metadata = Metadata::from_json("{\"by\":1}").unwrap();
    let error = metadata.get::<Made>().unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}
