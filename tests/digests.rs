//! Keys of another kind: opaque tokens of other issuers, of which only SHA-256 was ever kept.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

#[path = "digests/formats.rs"]
mod formats;
#[path = "digests/guarantees.rs"]
mod guarantees;
#[path = "digests/import.rs"]
mod import;
#[path = "digests/issuers.rs"]
mod issuers;
#[path = "digests/kinds.rs"]
mod kinds;
#[path = "digests/layer.rs"]
mod layer;
#[path = "digests/life.rs"]
mod life;
#[path = "digests/purged.rs"]
mod purged;
#[path = "digests/refused.rs"]
mod refused;

use serde::Deserialize;
use support::{PEPPER, USER, start};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, DigestFormat, KeyId, ManualClock, MissingScopes,
    OldPatterns, OldScopes, OldWildcard, Pepper, Peppers, Scopes, SecretHash, TokenAlphabet,
    TokenFormat,
};

/// A token that somebody holds, and what was kept of it.
#[derive(Deserialize)]
struct Old {
    raw_key: String,
    key_hash: String,
}

fn vectors() -> Vec<Old> {
    #[derive(Deserialize)]
    struct Vectors {
        digest: Vec<Old>,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert!(vectors.digest.len() >= 3);
    vectors.digest
}

/// The first of them.
fn old() -> Old {
    vectors().swap_remove(0)
}

/// `pylon_` and 48 digits. Its sessions begin with `pylon_`, too.
fn pylon() -> DigestFormat {
    DigestFormat::new("pylon_", 54, TokenAlphabet::LowerHex).unwrap()
}

/// A token that looks right, another one for each number.
fn token(number: u64) -> String {
    format!("pylon_{number:048x}")
}

/// What was kept of it. That it is SHA-256 is for the vectors to show.
fn hash_of(token: &str) -> String {
    let format = TokenFormat::default().with_digests(pylon()).unwrap();
    let token = format.parse(token).unwrap();
    Peppers::new(pepper()).hash(&token).unwrap().to_hex()
}

/// Nothing is explained: what has no one meaning is refused.
fn strict() -> OldScopes {
    OldScopes {
        missing: MissingScopes::Refuse,
        wildcard: OldWildcard::Refuse,
        patterns: OldPatterns::Refuse,
    }
}

fn pepper() -> Pepper {
    Pepper::new("v1", PEPPER).unwrap()
}

/// A record that is found by this digest.
fn record(key_hash: &str) -> ApiKey {
    let hash = SecretHash::from_digest_hex(key_hash).unwrap();
    let scopes = Scopes::of(["notes:read"]).unwrap();
    let mut key = ApiKey::new(KeyId::from_bytes([7; 24]), USER, scopes, hash);
    key.display_prefix = "pylon_".parse().unwrap();
    key.created_at = start();
    key
}

async fn store_on(backend: impl ApiKeyBackend) -> (ApiKeyStore, ManualClock) {
    let clock = ManualClock::new(start());
    let store = ApiKeyStore::builder(backend)
        .peppers(Peppers::new(pepper()))
        .digest_format(pylon())
        .clock(clock.clone());
    (store.build().await.unwrap(), clock)
}
