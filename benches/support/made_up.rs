//! A source that holds nothing: it makes the records up when it is asked.

use std::{
    future::{self, Future},
    time::SystemTime,
};

use tower_api_key::{
    ApiKey, ApiKeyToken, BackendError, CachedResolver, CachedResolverBuilder, ChangeSink, KeyId,
    KeySource, LookupKey, Pepper, Peppers, Scopes, SecretHash, Subscription, TokenFormat,
};

use super::{Outcome, random::Random};

/// One secret serves all ids.
const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A source with the keys `0..keys`, at once and from no memory.
pub struct MadeUp {
    keys: u64,
    hash: SecretHash,
    created_at: SystemTime,
}

impl MadeUp {
    /// A builder of a resolver over such a source.
    pub fn resolver(keys: u64) -> Outcome<CachedResolverBuilder> {
        let peppers = Peppers::new(Pepper::random("v1")?);
        let source = Self {
            keys,
            hash: peppers.hash(&token(known_id(0))?)?,
            created_at: SystemTime::now(),
        };
        Ok(CachedResolver::builder(source).peppers(peppers))
    }

    fn record(&self, key: &LookupKey) -> Option<Result<ApiKey, BackendError>> {
        let number = number_of(key.as_bytes())?;
        if number >= self.keys {
            return None;
        }
        // Nothing is shared between records, as in those that come from a database.
        let scopes = match Scopes::of(["notes:read", "notes:write"]) {
            Ok(scopes) => scopes,
            Err(error) => return Some(Err(BackendError::corrupt(error))),
        };
        let id = KeyId::from_bytes(*key.as_bytes());
        let mut record = ApiKey::new(id, format!("user_{number:06}"), scopes, self.hash);
        record.name = Some("CI deploys".to_owned());
        record.created_at = self.created_at;
        Some(Ok(record))
    }
}

impl KeySource for MadeUp {
    fn get_many(
        &self,
        keys: &[LookupKey],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        future::ready(keys.iter().filter_map(|key| self.record(key)).collect())
    }

    /// Nothing ever changes.
    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        Ok(Subscription::direct())
    }
}

/// The id of a key that the source has: its number, and what looks random but follows from it.
pub fn known_id(number: u64) -> KeyId {
    let mut bytes = [0; KeyId::LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&tail_of(number));
    KeyId::from_bytes(bytes)
}

/// The id of no key.
pub fn unknown_id(random: &mut Random) -> KeyId {
    KeyId::from_bytes(random.bytes())
}

/// A well-formed token with this id; a good one, where the source has the key.
pub fn token(id: KeyId) -> Outcome<ApiKeyToken> {
    Ok(TokenFormat::default().parse(format!("pk.{id}.{SECRET}"))?)
}

fn number_of(bytes: &[u8; KeyId::LEN]) -> Option<u64> {
    let (number, tail) = bytes.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    (tail == tail_of(number)).then_some(number)
}

fn tail_of(number: u64) -> [u8; KeyId::LEN - 8] {
    Random::from_seed(number).bytes()
}
