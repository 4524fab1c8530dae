//! Taking over keys that another program has made.

use super::ApiKeyStore;
use crate::{
    error::{BackendError, StoreError},
    events::EventKind,
    import::{ImportReport, Imported, Known, OldKey, OldScopes},
    resolver::KeyResolver,
};

impl ApiKeyStore {
    /// Takes over a key that another program has made, of which its SHA-256 or an HMAC was kept. The token
    /// that its owner holds works from then on as that of any other key does.
    ///
    /// A key whose digest or id is there already is left as it is, whatever became of it since: an import may
    /// be run again. One whose record was deleted here comes back then, and so does one that was imported by its
    /// HMAC and [purged](Self::purge).
    ///
    /// What missing scopes and patterns in `scopes` mean has to be said: the programs that have written them
    /// don't agree.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_api_key::{
    ///     ApiKeyStore, DigestFormat, Imported, MemoryBackend, MissingScopes, OldKey, OldPatterns,
    ///     OldScopes, OldWildcard, Pepper, Peppers, TokenAlphabet,
    /// };
    ///
    /// let store = ApiKeyStore::builder(MemoryBackend::new())
    ///     .peppers(Peppers::new(Pepper::random("v1")?))
    ///     .digest_format(DigestFormat::new("pylon_", 54, TokenAlphabet::LowerHex)?)
    ///     .build()
    ///     .await?;
    ///
    /// let meaning = OldScopes {
    ///     missing: MissingScopes::Refuse,
    ///     wildcard: OldWildcard::Refuse,
    ///     patterns: OldPatterns::Ours,
    /// };
    /// let hash = "d78e54e63c5632796697bf55383eadee954f9a6c39f85f4f7d6d78dda806de92";
    /// let old = OldKey::by_digest(hash, "user_1").name("CI").scopes(["notes:read"]);
    /// let imported = store.import(old, &meaning).await?;
    /// assert!(matches!(imported, Imported::Stored(_)));
    ///
    /// let token = "pylon_afeb07edffef95fd562a499593f4c80c965bdabb64d42bf9";
    /// assert!(store.has_scope(token, "notes:read").await?);
    /// assert!(store.revoke_token(token).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] (it may have been stored or not; import it again); [`StoreError::Unsupported`]
    /// where the backend [can't keep](crate::ApiKeyBackend::get_by_id) keys with a digest; [`StoreError::Random`].
    /// A key that can't be taken over is no error, but [`Imported::Refused`].
    pub async fn import(&self, old: OldKey, scopes: &OldScopes) -> Result<Imported, StoreError> {
        self.import_one(old, scopes, 1, true).await
    }

    /// Takes over many keys, as [`import`](Self::import) does each. Those that can't be taken over are listed
    /// in the report, and the others go on.
    ///
    /// # Errors
    ///
    /// The first error; see [`import`](Self::import). What was imported before stays: import all of them
    /// again.
    pub async fn import_all(
        &self,
        old: impl IntoIterator<Item = OldKey, IntoIter: Send>,
        scopes: &OldScopes,
    ) -> Result<ImportReport, StoreError> {
        let mut report = ImportReport::default();
        for (before, old) in old.into_iter().enumerate() {
            let is_first = report.imported == 0;
            let imported = self.import_one(old, scopes, before + 1, is_first).await?;
            report.count(imported);
        }
        Ok(report)
    }

    async fn import_one(
        &self,
        old: OldKey,
        scopes: &OldScopes,
        number: usize,
        is_first: bool,
    ) -> Result<Imported, StoreError> {
        let known = Known {
            peppers: self.resolver.peppers(),
            format: self.resolver.token_format(),
            now: self.resolver.now(),
        };
        let key = match old.into_key(scopes, &known, number)? {
            Ok(key) => key,
            Err(refused) => return Ok(Imported::Refused(refused)),
        };
        let permit = self.limits.change().await?;
        if !self
            .insert(key.clone(), None, EventKind::Imported, permit)
            .await?
        {
            return Ok(Imported::AlreadyThere);
        }
        // Of a backend that finds no such key by its id, none could be revoked.
        if is_first && self.get(&key.id).await?.is_none() {
            return Err(
                BackendError::unsupported("find keys by their id that have a digest").into(),
            );
        }
        Ok(Imported::Stored(Box::new(key)))
    }
}
