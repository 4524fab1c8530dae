//! A record is verified with a token of its own kind alone, and by all of its digest.

use std::sync::Arc;

use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyToken, BackendError, Brand, CachedResolver, DigestFormat, KeyId,
    KeyResolver, KeySource, LookupKey, MemoryBackend, Peppers, SecretHash, TokenAlphabet,
    TokenFormat, VerifyError,
};

use super::{Old, old, pepper, pylon, record, store_on};
use crate::support::{USER, outcome};

#[tokio::test]
async fn a_key_is_verified_by_its_token_and_by_no_other() {
    let backend = MemoryBackend::new();
    let Old { raw_key, key_hash } = old();
    assert!(backend.insert(&record(&key_hash)).await.unwrap());
    let (store, _) = store_on(backend).await;
    for _ in 0..3 {
        let auth = store.verify(&raw_key).await.unwrap();
        assert_eq!(
            (auth.user_id(), auth.key_id()),
            (USER, &KeyId::from_bytes([7; 24]))
        );
        assert!(store.verify_fresh(&raw_key).await.is_ok());
        assert!(store.is_active(&raw_key).await.unwrap());
        assert!(store.has_scope(&raw_key, "notes:read").await.unwrap());
        assert!(!store.has_scope(&raw_key, "notes:write").await.unwrap());
        for wrong in other_tokens(&raw_key) {
            assert_eq!(outcome(&store.verify(&wrong).await), "unknown", "{wrong}");
            assert!(!store.is_active(&wrong).await.unwrap());
        }
    }
}

/// The same text, but for one digit.
fn other_tokens(token: &str) -> Vec<String> {
    let change = |at: usize| {
        let digit = if &token[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &token[..at], &token[at + 1..])
    };
    (6..token.len()).map(change).collect()
}

/// Has the records whatever it is asked for.
#[derive(Clone)]
struct Fixed(Arc<[ApiKey]>);

impl KeySource for Fixed {
    async fn get_many(&self, _: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        Ok(self.0.to_vec())
    }
}

async fn resolver(records: impl Into<Arc<[ApiKey]>>) -> CachedResolver {
    let resolver = CachedResolver::builder(Fixed(records.into()));
    let resolver = resolver
        .peppers(Peppers::new(pepper()))
        .digest_format(pylon());
    resolver.build().await.unwrap()
}

async fn resolved(resolver: &CachedResolver, token: &str) -> &'static str {
    let token = resolver.token_format().parse(token).unwrap();
    let first = outcome(&resolver.resolve(&token).await);
    // And once more from memory.
    let cached = resolver.resolve_now(&token).map(|result| outcome(&result));
    assert!(cached.is_none_or(|cached| cached == first));
    first
}

#[tokio::test]
async fn a_wrong_byte_anywhere_in_the_digest_lets_nobody_in() {
    let Old { raw_key, key_hash } = old();
    assert_eq!(
        resolved(&resolver([record(&key_hash)]).await, &raw_key).await,
        "good"
    );
    for digit in 0..64 {
        let mut digits = key_hash.clone().into_bytes();
        digits[digit] = if digits[digit] == b'0' { b'1' } else { b'0' };
        let wrong = resolver([record(str::from_utf8(&digits).unwrap())]).await;
        // The look-up key is the first 24 bytes. Those are compared with the others all the same, which
        // the tests within the crate look at.
        let expected = if digit < 48 {
            "unknown"
        } else {
            "wrong secret"
        };
        assert_eq!(resolved(&wrong, &raw_key).await, expected, "digit {digit}");
    }
}

#[tokio::test]
async fn g4_a_token_of_one_kind_is_the_wrong_secret_for_a_record_of_the_other() {
    // A digest that leaked, presented as the id of a new token.
    let Old { raw_key, key_hash } = old();
    let opaque = resolver([record(&key_hash)]).await;
    let leaked = opaque.token_format().parse(&raw_key).unwrap().lookup_key();
    let forged = format!(
        "pk.{}.{}",
        KeyId::from_bytes(*leaked.as_bytes()),
        "A".repeat(43)
    );
    assert_eq!(resolved(&opaque, &forged).await, "wrong secret");
    assert_eq!(resolved(&opaque, &raw_key).await, "good");

    // A record of our own kind whose id is the digest of an opaque token.
    let mut native = record(&key_hash);
    native.id = KeyId::from_bytes(*leaked.as_bytes());
    for pepper_id in ["v1", "unknown"] {
        native.secret_hash = SecretHash::from_hex(pepper_id.parse().unwrap(), &key_hash).unwrap();
        let native = resolver([native.clone()]).await;
        assert_eq!(resolved(&native, &raw_key).await, "wrong secret");
    }
}

#[tokio::test]
async fn a_token_that_another_stores_format_has_parsed_is_unknown() {
    let Old { raw_key, key_hash } = old();
    let (with, without) = (MemoryBackend::new(), MemoryBackend::new());
    for backend in [&with, &without] {
        assert!(backend.insert(&record(&key_hash)).await.unwrap());
    }
    let (store, _) = store_on(with).await;
    let token = store.token_format().parse(&raw_key).unwrap();
    assert!(store.resolve(&token).await.is_ok());
    let other = CachedResolver::builder(without).peppers(Peppers::new(pepper()));
    let other = other.build().await.unwrap();
    assert_eq!(outcome(&other.resolve(&token).await), "unknown");
    assert!(matches!(
        other.resolve_fresh(&token).await,
        Err(VerifyError::Unknown)
    ));

    // A text with our brand, which another store has read as an opaque one, and of which we have a digest.
    let native = ApiKeyToken::generate(&Brand::default()).unwrap();
    let digests = DigestFormat::new("pk.key_", 39, TokenAlphabet::Base64Url).unwrap();
    let acme = TokenFormat::new(Brand::new("acme").unwrap());
    let opaque = acme.with_digests(digests).unwrap();
    let opaque = opaque.parse(&native.expose()[..39]).unwrap();
    let hash = Peppers::new(pepper()).hash(&opaque).unwrap().to_hex();
    let store = resolver([record(&hash)]).await;
    assert_eq!(outcome(&store.resolve(&opaque).await), "unknown");
    assert!(store.resolve_now(&opaque).is_none());
}
