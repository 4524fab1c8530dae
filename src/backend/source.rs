//! A table of keys that is read.

use super::{ChangeSink, Subscription};
use crate::{error::BackendError, key::ApiKey, token::LookupKey};

/// A table of keys that something else writes: a file, a directory service, another team's database.
///
/// One method: give back the records that are stored under some look-up keys. A resolver is made
/// from a source with [`CachedResolver::builder`](crate::CachedResolver::builder), and an
/// [`ApiKeyLayer`](crate::ApiKeyLayer) from that. The example `custom_source` reads keys from a file.
///
/// ```
/// use std::collections::HashMap;
/// use tower_api_key::{ApiKey, BackendError, KeySource, LookupKey};
///
/// struct Fixed(HashMap<LookupKey, ApiKey>);
///
/// impl KeySource for Fixed {
///     async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
///         Ok(keys.iter().filter_map(|key| self.0.get(key).cloned()).collect())
///     }
/// }
/// ```
///
/// # What a source must see to
///
/// * **An error is never "not found".** Where the table can't be asked, return
///   [`BackendError::unavailable`], and the caller gets 503. A list without the key says that there
///   is no such key, and the caller gets 401.
/// * **A row that can't be read is an error**, [`BackendError::corrupt`], and never skipped.
/// * **Read from where writes go.** A replica that lags hands out keys that were revoked.
/// * **A wrapper passes every method on**, those with a default among them.
/// * **One record under a look-up key.** Two are an error, since one may be revoked.
/// * The order is free, and what is not there is left out. Records that weren't asked for are
///   ignored.
/// * **A call doesn't block** its thread: others are read on it, too. It may be dropped at any `.await`.
/// * Where changes can be told, tell them: see [`subscribe`](Self::subscribe). Otherwise a record is
///   read again every few seconds while its key is in use.
///
/// # Making records
///
/// [`ApiKey::new`](crate::ApiKey::new) takes what every key has. The hash of the secret comes from
/// [`Peppers::hash`](crate::Peppers::hash) when the key is made, is kept as
/// [`SecretHash::to_hex`](crate::SecretHash::to_hex) beside the id of its pepper, and is read with
/// [`SecretHash::from_hex`](crate::SecretHash::from_hex). The token itself is kept nowhere.
pub trait KeySource: Send + Sync + 'static {
    /// The records that are stored under `keys`, in any order, without those that aren't there.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known whether a record is there, or what it says.
    fn get_many(
        &self,
        keys: &[LookupKey],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send;

    /// How a cache over this source learns that a record came, changed or went: whoever wrote it,
    /// here or elsewhere.
    ///
    /// Every change that is made after this has returned has to be told. A source that doesn't say
    /// tells nothing, and each of its records is believed for
    /// [`max_staleness`](crate::CacheConfig::max_staleness), 5 seconds, before it is read again.
    ///
    /// # Errors
    ///
    /// Where nothing can be told now. It is called again later.
    fn subscribe(
        &self,
        sink: ChangeSink,
    ) -> impl Future<Output = Result<Subscription, BackendError>> + Send {
        let _ = sink;
        async { Ok(Subscription::none()) }
    }
}

/// The record under `wanted` among what a source gave; two of them are an error, since one may be
/// revoked and the other not.
pub(crate) fn only_record<'a>(
    found: &'a [ApiKey],
    wanted: &LookupKey,
) -> Result<Option<&'a ApiKey>, BackendError> {
    let mut found = found.iter().filter(|key| key.lookup_key() == *wanted);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(BackendError::corrupt("two records of one key")),
        (record, None) => Ok(record),
    }
}
