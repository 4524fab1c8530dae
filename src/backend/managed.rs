//! A table of keys that is written, too.

use std::time::SystemTime;

use super::{
    GrantInsertion, GrantLimits, GrantPageRequest, KeyFilter, KeySource, PageRequest, PepperUsage,
    RevokedKey, revocation,
};
use crate::{
    error::BackendError,
    key::{ApiKey, ClaimHash, GrantId, KeyGrant, RevocationReason},
    token::{KeyId, PepperCheck},
};

/// A source that can be written, too: keys that [`ApiKeyStore`](crate::ApiKeyStore) manages, in a
/// database of one's own.
///
/// Five methods more than [`KeySource`], and [`ApiKeyStore::builder`](crate::ApiKeyStore::builder)
/// takes it. The example `custom_backend` is one, whole. One that wraps another passes on what it doesn't do itself
/// by [`forward_to_backend!`](crate::forward_to_backend).
///
/// # What a backend must see to
///
/// All of what a [`KeySource`] must, and each write has to be atomic against every other writer of
/// the same database:
///
/// * [`insert`](Self::insert) never overwrites. It is not an upsert.
/// * [`update`](Self::update) compares the version in the statement that writes
///   (`UPDATE … WHERE id = ? AND version = ?`). Id, owner, time of creation, and the ids of
///   predecessor and maker of a key never change, whatever it is given.
/// * [`list_for_user`](Self::list_for_user) goes by keyset and not by offset, so that keys created meanwhile neither
///   repeat nor hide others: `WHERE user_id = ? AND (created_at, id) < (?, ?) ORDER BY created_at
///   DESC, id DESC LIMIT ?`.
///   User ids are compared byte by byte: beware of collations that ignore case. The store refuses a
///   list with another user's key, or out of order.
/// * [`list`](Self::list), [`purge`](Self::purge) and [`pepper_usage`](Self::pepper_usage) are there for whoever looks
///   after keys. Without them, the store answers [`StoreError::Unsupported`](crate::StoreError::Unsupported).
/// * [`touch`](Self::touch) never moves `last_used_at` back, and leaves the version alone.
/// * A write that changes no row isn't yet "not there": a trigger, rule or policy of the database may have
///   ignored it. Read what the write compared, and return an error if it is still there, unchanged.
/// * Data that a constraint refuses is [`BackendError::constraint`], with the constraint's name. Only the
///   unique indexes of the id and the lookup key mean that a key is taken.
///
/// # Keys that are handed off
///
/// The seven methods from [`insert_grant`](Self::insert_grant) on are for
/// [`ApiKeyStore::hand_off`](crate::ApiKeyStore::hand_off). Without them there is none, as without the other three, and
/// everything else is as usual. Written, they are as strict as the others:
///
/// * [`claim`](Self::claim) is one transaction, in which the grant is compared and marked by the
///   statement that writes (`UPDATE … WHERE id = ? AND claimed_at IS NULL AND revoked_at IS NULL AND
///   expires_at > ?`), and which holds the record of the maker until it commits (`SELECT … FOR NO KEY
///   UPDATE`), so that no revocation of it comes in between. A shared lock isn't enough: a stream of
///   claims would keep a revocation waiting without end. It announces the new key as
///   [`insert`](Self::insert) does.
/// * [`insert_grant`](Self::insert_grant) counts and stores under a lock that others who insert wait for.
/// * A grant that was claimed or revoked stays so. It stays in the lists, too, until it is purged.
///
/// # What to store
///
/// Every field of [`ApiKey`], the display prefix as text. Times have whole milliseconds between 1970 and the end
/// of 9999. Ids sort by their bytes ([`KeyId::as_bytes`](crate::KeyId::as_bytes)). An empty list of
/// scopes and [`Scopes::unrestricted`](crate::Scopes::unrestricted) must not be mistaken for one
/// another: the one allows nothing, the other everything.
///
/// # Testing one
///
/// Call `conformance::check_backend` in a test, with the feature `test-util`. It checks all that is
/// said here, with many writers at once, and names each rule that is broken (for one without grants, see
/// `conformance::Checks::without_grants`):
///
#[cfg_attr(feature = "test-util", doc = "```")]
#[cfg_attr(not(feature = "test-util"), doc = "```ignore")]
/// # use tower_api_key::{MemoryBackend, conformance};
/// # #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
/// # async fn main() {
/// let backend = MemoryBackend::new();
/// // Called twice: better two pools on one database than one.
/// conformance::check_backend(async || Ok(backend.clone())).await;
/// # }
/// ```
pub trait ApiKeyBackend: KeySource {
    /// Stores `key` unless its id or its [look-up key](ApiKey::lookup_key) is taken; returns whether it was
    /// stored. No two records may have the same id or the same look-up key, nor may the look-up key of one be the
    /// id of another: of two records under one look-up key, neither works.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was stored. It may have been.
    fn insert(&self, key: &ApiKey) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Returns what an operator should change, found when the backend was opened: it is no error,
    /// and yet unsafe. A store logs and records each as an event `backend.warning` when it is built.
    ///
    /// # Errors
    ///
    /// If it can't be said.
    fn warnings(&self) -> impl Future<Output = Result<Vec<String>, BackendError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Stores `key` as [`insert`](Self::insert) does, and only where the record of `maker.0` has
    /// the version `maker.1` at that moment and isn't revoked; returns whether it was stored. A
    /// change of that record that was answered before the key is stored is always seen: nothing is
    /// made with a key whose revocation was answered before.
    ///
    /// One statement compares and stores, and holds the record of the maker until it commits, under
    /// the lock of an update and not a shared one. Without this method, the key is
    /// [inserted](Self::insert), and [deleted](Self::delete) where the maker's record, read after
    /// that, has another version: it is there between the two, and what a crash leaves behind
    /// between them is a key whose token nobody was given.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was stored. It may have been.
    fn insert_made_by(
        &self,
        key: &ApiKey,
        maker: (KeyId, u64),
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        async move {
            if !self.insert(key).await? {
                return Ok(false);
            }
            let found = self.get_by_id(&[maker.0]).await?;
            let is_as_it_was = found
                .iter()
                .find(|found| found.id == maker.0)
                .is_some_and(|found| found.version == maker.1 && found.revoked_at.is_none());
            if !is_as_it_was {
                self.delete(&key.id).await?;
            }
            Ok(is_as_it_was)
        }
    }

    /// Replaces the record of `key.id` by `key` if it is there with the version `expected`;
    /// returns whether it was replaced. `key` comes with its new version.
    ///
    /// The stored `last_used_at` stays where it is later than the given one, and the stored `revoked_at`, with
    /// its reason, where there is one: nothing takes a revocation back.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was replaced. It may have been.
    fn update(
        &self,
        key: &ApiKey,
        expected: u64,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Removes the record; returns whether it was there.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it is gone. It may be.
    fn delete(&self, id: &KeyId) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// The keys of `user_id` from the newest to the oldest (by `created_at`, then by id, both
    /// falling), as many as `page` asks for, beginning after its cursor.
    ///
    /// # Errors
    ///
    /// Whenever the list isn't known to be right.
    fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send;

    /// Notes when keys were used. A key that isn't there, or was used later, is left as it is. Of two
    /// uses of one key, the later counts.
    ///
    /// It is called every few seconds with the keys that were used whose last use was over a minute
    /// old, up to 1,000 at once. No request waits for it. It is not a change that a cache has to be
    /// told of.
    ///
    /// # Errors
    ///
    /// Where not all of it was noted: the same and what has come since is tried again later.
    fn touch(&self, touches: &[Touch]) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// The records with these ids, in any order, without those that aren't there.
    ///
    /// An id is the look-up key of all keys but those that were imported by a digest. Without this method
    /// they are looked for so, and a backend can't keep those others: its [`insert`](Self::insert) refuses what has
    /// another [look-up key](ApiKey::lookup_key) as [unsupported](BackendError::unsupported).
    ///
    /// # Errors
    ///
    /// As [`get_many`](KeySource::get_many).
    fn get_by_id(
        &self,
        ids: &[KeyId],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        async {
            let wanted: Vec<_> = ids.iter().map(KeyId::lookup_key).collect();
            self.get_many(&wanted).await
        }
    }

    /// Stores `successor` and replaces the record of `old.id` by `old` where it has the version
    /// `expected`: both, or neither. Returns whether both were done. Refuse a revoked key as well:
    /// a revocation leaves the largest version as it is.
    ///
    /// Without this method, it is an [`insert`](Self::insert), an [`update`](Self::update), and a
    /// [`delete`](Self::delete) of what was inserted where another was first. What a crash leaves behind
    /// between them is a successor whose token nobody was given.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was done. It may have been.
    fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        async move {
            if !self.insert(successor).await? {
                return Ok(false);
            }
            let is_replaced = self.update(old, expected).await?;
            if !is_replaced {
                self.delete(&successor.id).await?;
            }
            Ok(is_replaced)
        }
    }

    /// Marks the key as revoked at `at`, for `reason`, and raises its version, where it isn't revoked already;
    /// returns whether it did.
    ///
    /// One statement does it, which compares no version and reads no other column: nobody who changes the key all
    /// the time, and nothing that stands in its record, must keep it from ending. Without this method, it is
    /// [read](Self::get_by_id) and [updated](Self::update), and tried again where others come in between.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it is revoked. It may be.
    fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        revocation::by_update(self, id, at, reason)
    }

    /// The same for `at_most` so many keys of `user_id`; says which. None only where the user has none left that isn't
    /// revoked. It is called until then, so that a user with a million keys is not one statement, and best takes the
    /// oldest first: they have made the others.
    ///
    /// Without this method, they are [listed](Self::list_for_user) and [updated](Self::update), and where one can't be
    /// read, all that are on its page stay as they are.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known which of them are revoked. Some may be.
    fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> impl Future<Output = Result<Vec<RevokedKey>, BackendError>> + Send {
        revocation::by_list(self, user_id, at, reason, at_most)
    }

    /// The keys that [fit](KeyFilter::fits) `filter`, in the order of
    /// [`list_for_user`](Self::list_for_user), as many as `page` asks for, beginning after its cursor.
    ///
    /// # Errors
    ///
    /// Whenever the list isn't known to be right.
    fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        let _ = (filter, page);
        async { Err(BackendError::unsupported("list keys by a filter")) }
    }

    /// Removes at most `at_most` records of keys that were revoked, or whose end has come, before `before`,
    /// and of grants that were claimed, revoked or past their end by then; returns how many, and 0 only where
    /// there is no such record any more, also where others purge at the same time.
    ///
    /// What one call removes goes at once, or stays where it fails: remove keys by one statement, and grants by
    /// another only where it was none, since the next call comes anyway.
    ///
    /// Records stay that are looked up by a [digest](crate::SecretHash) and not by their id: a key that was
    /// revoked would come back to life where the import is run again. [`delete`](Self::delete) removes one.
    ///
    /// What is removed is decided by the statement that removes it: a key that was renewed meanwhile stays.
    /// `before` isn't in the future; a database with a clock of its own goes by the earlier of the two.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known how many are gone.
    fn purge(
        &self,
        before: SystemTime,
        at_most: usize,
    ) -> impl Future<Output = Result<usize, BackendError>> + Send {
        let _ = (before, at_most);
        async { Err(BackendError::unsupported("purge")) }
    }

    /// How many keys each pepper has that a record names, and how many of them work at `now`.
    ///
    /// # Errors
    ///
    /// Whenever they can't be counted.
    fn pepper_usage(
        &self,
        now: SystemTime,
    ) -> impl Future<Output = Result<Vec<PepperUsage>, BackendError>> + Send {
        let _ = now;
        async { Err(BackendError::unsupported("count keys by pepper")) }
    }

    /// Returns the check values of peppers that are stored.
    ///
    /// A store compares them with its own when it is built, so that an instance with other bytes
    /// under the same id is refused. Without these two methods, nothing is compared.
    ///
    /// # Errors
    ///
    /// Whenever they can't be read.
    fn pepper_checks(&self) -> impl Future<Output = Result<Vec<PepperCheck>, BackendError>> + Send {
        async { Err(BackendError::unsupported("keep check values of peppers")) }
    }

    /// Stores the check value of a pepper that has none; returns whether it was stored. A stored
    /// value is never replaced.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was stored.
    fn insert_pepper_check(
        &self,
        check: &PepperCheck,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        let _ = check;
        async { Err(BackendError::unsupported("keep check values of peppers")) }
    }

    /// Stores `grant` unless its id or its hash is taken, or as many are [pending](crate::GrantStatus::Pending) at
    /// its `made_at` as may be, whoever else inserts one at the same moment. Where both bounds are reached, either
    /// answer is right.
    ///
    /// Where there is no room, grants that were [made with](KeyGrant::made_by) a key that is deleted or revoked are
    /// marked as revoked first, at that time: they can't be claimed any more, and must neither take up room nor pile up.
    /// Where the user has no room, those of that user alone. By no clock: a key that is suspended or has expired may go on,
    /// so its grants stay, and count.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was stored. It may have been.
    fn insert_grant(
        &self,
        grant: &KeyGrant,
        limits: &GrantLimits,
    ) -> impl Future<Output = Result<GrantInsertion, BackendError>> + Send {
        let _ = (grant, limits);
        async { Err(BackendError::unsupported("hand off keys")) }
    }

    /// The grant that a token with this hash claims, whatever has become of it.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known whether there is one.
    fn get_grant(
        &self,
        hash: &ClaimHash,
    ) -> impl Future<Output = Result<Option<KeyGrant>, BackendError>> + Send {
        let _ = hash;
        async { Err(BackendError::unsupported("hand off keys")) }
    }

    /// The grant with this id, whatever has become of it.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known whether there is one.
    fn get_grant_by_id(
        &self,
        id: &GrantId,
    ) -> impl Future<Output = Result<Option<KeyGrant>, BackendError>> + Send {
        let _ = id;
        async { Err(BackendError::unsupported("hand off keys")) }
    }

    /// Marks the grant as claimed at `key.created_at`, and stores `key`: both, or neither, and of
    /// all who try, one. Returns whether it was done: `false` where the grant isn't
    /// [pending](crate::GrantStatus::Pending) at that moment, where `key.id` is taken, or where the
    /// record of `maker` is gone, revoked, or has another version. A change of that record that has
    /// been answered before the key is stored is always seen.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known that it was done. It may have been.
    fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        let _ = (grant, key, maker);
        async { Err(BackendError::unsupported("hand off keys")) }
    }

    /// Marks a grant as revoked at `at` that was neither claimed nor revoked before; returns whether it did. No
    /// clock is asked: one that is past its end is marked, too, since another node's clock may be behind.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known whether it was revoked.
    fn revoke_grant(
        &self,
        grant: &GrantId,
        at: SystemTime,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send {
        let _ = (grant, at);
        async { Err(BackendError::unsupported("hand off keys")) }
    }

    /// Does the same to all grants for keys of `user_id`; returns how many were marked.
    ///
    /// # Errors
    ///
    /// Whenever it isn't known whether they were revoked.
    fn revoke_grants_of_user(
        &self,
        user_id: &str,
        at: SystemTime,
    ) -> impl Future<Output = Result<usize, BackendError>> + Send {
        let _ = (user_id, at);
        async { Err(BackendError::unsupported("hand off keys")) }
    }

    /// The grants that [fit](GrantPageRequest::fits) `page`, from the newest to the oldest (by `made_at`, then
    /// by id, both falling), as many as it asks for, beginning after its cursor.
    ///
    /// # Errors
    ///
    /// Whenever the list isn't known to be right.
    fn list_grants(
        &self,
        page: &GrantPageRequest,
    ) -> impl Future<Output = Result<Vec<KeyGrant>, BackendError>> + Send {
        let _ = page;
        async { Err(BackendError::unsupported("hand off keys")) }
    }
}

/// A key was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Touch {
    /// Which key.
    pub id: KeyId,
    /// When.
    pub used_at: SystemTime,
}

impl Touch {
    /// The key `id` was used at `used_at`.
    #[must_use]
    pub const fn new(id: KeyId, used_at: SystemTime) -> Self {
        Self { id, used_at }
    }
}
