//! Reads the keys of contexts that somebody holds.

use std::{sync::Arc, time::Duration};

use super::{CachedResolver, Inner};
use crate::{
    cache::{CachedKey, Found, Freshness, Revalidate, Revalidation, StalenessSchedule, WatchedKey},
    clock::{Moment, Now, signed_difference},
    context::{Answer, HasCaller},
    error::Unavailable,
    key::KeyStatus,
    sync::{spawn, timeout},
    token::{KeyId, LookupKey},
};

impl Revalidate for Inner {
    fn revalidate(self: Arc<Self>, watched: WatchedKey) -> Answer<Revalidation> {
        Box::pin(CachedResolver(self).revalidate(watched))
    }

    fn is_active(self: Arc<Self>, key: LookupKey, id: KeyId) -> Answer<Result<bool, Unavailable>> {
        Box::pin(async move {
            let resolver = CachedResolver(self);
            let limit = resolver.0.cache.config().load_timeout();
            let found = timeout(limit, resolver.for_context(&key)).await;
            let found = found.unwrap_or_else(|_| Err(Unavailable::too_slow()))?;
            Ok(active(&found, &id, &resolver.coarse()).is_some())
        })
    }

    fn receives_changes(&self) -> bool {
        let now = Now::of(&*self.clock);
        self.cache.is_leased_for(self.schedule().read_after, &now)
    }

    fn ensure_listening(&self) {
        self.watch.ensure_started();
    }

    fn clock_offset(&self) -> i64 {
        let now = Now::of(&*self.clock);
        signed_difference(now.wall(), now.monotonic())
    }
}

/// Returns the key where it has that id, and is active. Another key may have the same digest: it
/// was deleted, and imported again.
fn active<'a>(found: &'a Found, id: &KeyId, now: &Now<'_>) -> Option<&'a Arc<CachedKey>> {
    match found {
        Found::Key(known) => {
            let is_it = known.caller().key_id() == id;
            (is_it && known.key().status(now) == KeyStatus::Active).then_some(known)
        }
        Found::Unknown => None,
    }
}

impl Inner {
    fn schedule(&self) -> StalenessSchedule {
        self.cache.config().schedule()
    }

    /// The same as `receives_changes`, and has the monitor notify this watcher once they are lost:
    /// so it looks again after it has said so. Without changes it says nothing, or every look of
    /// the monitor would wake every watcher.
    fn may_rely_on_changes(&self) -> bool {
        self.receives_changes() && {
            self.cache.watchers().rely_on_changes();
            self.receives_changes()
        }
    }

    /// Returns how long it is until a key has to be read again, where changes do not arrive.
    fn until_read(&self, read_at: Moment, now: &Now<'_>) -> Duration {
        let age = now.monotonic().saturating_sub(read_at.monotonic);
        let after = self.schedule().read_after;
        after.saturating_sub(Duration::from_millis(age))
    }
}

impl CachedResolver {
    async fn revalidate(self, watched: WatchedKey) -> Revalidation {
        let resolver = &self.0;
        let schedule = resolver.schedule();
        let left = || {
            let now = Now::of(&*resolver.clock);
            resolver.cache.remaining_validity(&watched, &now)
        };
        let limit = schedule.read_for.min(left());
        let found = timeout(limit, self.for_context(&watched.key)).await;
        let now = self.coarse();
        let Ok(Ok(found)) = found else {
            return match left() {
                Duration::ZERO => Revalidation::Inactive,
                left => Revalidation::Retry {
                    wait: left.min(schedule.look_every),
                },
            };
        };
        let Some(known) = active(&found, &watched.id, &now) else {
            return Revalidation::Inactive;
        };
        let until_expiry = known.caller().expires_at().map_or(Duration::MAX, |end| {
            // A timer may be early by less than a millisecond.
            let left = end.saturating_sub(now.wall()).saturating_add(1);
            Duration::from_millis(left)
        });
        let until_read = if resolver.may_rely_on_changes() {
            Duration::MAX
        } else {
            let until_read = resolver.until_read(known.read_at(), &now);
            until_read.max(schedule.look_every)
        };
        Revalidation::Active {
            read_at: known.read_at(),
            wait: until_expiry.min(until_read),
        }
    }

    /// From memory where changes arrive, or if it was read a short while ago.
    async fn for_context(&self, key: &LookupKey) -> Result<Found, Unavailable> {
        let now = self.coarse();
        let freshness = match self.0.cache.get(key, &now) {
            Some(Found::Key(known)) => {
                let has_time = !self.0.until_read(known.read_at(), &now).is_zero();
                if has_time || self.0.receives_changes() {
                    return Ok(Found::Key(known));
                }
                Freshness::Fresh
            }
            Some(Found::Unknown) => return Ok(Found::Unknown),
            None => Freshness::Cached,
        };
        let Some(permits) = self.0.cache.watchers().read_permits() else {
            return self.load(key, freshness).await;
        };
        // In a task of its own: nobody may poll this, as the body of a response that its client
        // doesn't read, and nobody else could have the permit then.
        let (resolver, key) = (self.clone(), *key);
        let read = spawn(async move {
            let _permit = permits.acquire().await;
            resolver.load(&key, freshness).await
        });
        match read {
            Ok(read) => read.await.unwrap_or_else(|_| Err(Unavailable::too_slow())),
            Err(_) => Err(Unavailable::too_slow()),
        }
    }
}
