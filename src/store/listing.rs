//! Lists of everybody's keys, and removing those that ended long ago.

use std::time::SystemTime;

use super::{
    ApiKeyStore,
    concurrency::{read_in_time, with_permit},
    write::detached,
};
use crate::{
    backend::{Cursor, KeyFilter, Page, PageRequest, check_list},
    clock::storable,
    error::{BackendError, StoreError},
    events::{Event, EventKind},
    key::ApiKey,
};

/// How many records are removed at once.
const BATCH: usize = 1_000;

impl ApiKeyStore {
    /// The keys that [fit](KeyFilter::fits) `filter`, the newest first: those that end within a window, those
    /// that nobody has used since a date, those of a user.
    ///
    /// ```
    /// # async fn run(store: tower_api_key::ApiKeyStore) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::{Duration, SystemTime};
    /// use tower_api_key::{KeyFilter, PageRequest};
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let now = SystemTime::now();
    /// let forgotten = KeyFilter::new().unused_since(now - 90 * day);
    /// let mut page = PageRequest::new();
    /// loop {
    ///     let found = store.list(forgotten.clone(), page).await?;
    ///     for key in found.keys {
    ///         println!("{} of {}", key.id, key.user_id);
    ///     }
    ///     match found.next {
    ///         Some(next) => page = page.after(next),
    ///         None => break,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A use that is still to be written by this store counts as one. What another node has still to write, a
    /// few seconds' worth, doesn't.
    ///
    /// A page may have fewer keys than were asked for, or none, where another follows: go by
    /// [`next`](Page::next).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Unsupported`] where the backend has no such lists.
    pub async fn list(&self, filter: KeyFilter, page: PageRequest) -> Result<Page, StoreError> {
        let permit = self.limits.read().await?;
        let (wanted, one_more) = (filter.clone(), page.and_one_more());
        let listed = self.detached_with(permit, |store| async move {
            let list = async { store.backend.list(&wanted, &one_more).await };
            Ok(read_in_time(list).await?)
        });
        self.page_of(listed.await?, &filter, &page)
    }

    /// The page that was asked for, from what the backend has listed with one key more.
    pub(super) fn page_of(
        &self,
        mut keys: Vec<ApiKey>,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Page, StoreError> {
        check_list(&keys, filter, page)?;
        let has_more = keys.len() > page.max_keys();
        keys.truncate(page.max_keys());
        let next = keys.last().filter(|_| has_more).map(Cursor::of);
        for key in &mut keys {
            self.resolver.overlay(key);
        }
        keys.retain(|key| filter.fits(key));
        Ok(Page { keys, next })
    }

    /// Removes the records of keys that were revoked, or whose end has come, before `before`, and of handed off
    /// keys that were claimed, revoked or not claimed in time by then; returns how many. Their tokens are refused
    /// as before, and unknown as after [`delete`](Self::delete) once the caches are told.
    ///
    /// A key that works is never removed: a date in the future counts as now, suspended keys stay, and so does
    /// one that is renewed while it is looked at. All nodes' caches are told of each. Where the database has a clock
    /// of its own, as PostgreSQL has, nothing goes that hasn't ended by that one, too.
    ///
    /// Keys that were [imported](Self::import) by a digest stay, whatever became of them: one that was revoked
    /// would come back to life where the import is run again. Only [`delete`](Self::delete) removes their records.
    ///
    /// 1,000 records go at once, each batch whole or not at all. What was removed before an error stays removed;
    /// so it does where the caller goes away. Call it again to go on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Unsupported`] where the backend can't purge.
    pub async fn purge(&self, before: SystemTime) -> Result<usize, StoreError> {
        let before = storable(before).min(self.resolver.now());
        let mut removed = 0;
        loop {
            let permit = self.limits.change().await?;
            let (backend, emitter) = (self.backend.clone(), self.resolver.emitter().clone());
            let purge = async move {
                let removed = backend.purge(before, BATCH).await?;
                if let 1..=BATCH = removed {
                    let records = removed as u64;
                    emitter.emit(Event::of(EventKind::Purged { records }));
                }
                Ok::<_, BackendError>(removed)
            };
            match detached(with_permit(permit, purge)).await? {
                0 => return Ok(removed),
                more @ 1..=BATCH => removed += more,
                _ => {
                    let error = BackendError::corrupt("a purge of more records than were to go");
                    return Err(error.into());
                }
            }
        }
    }
}
