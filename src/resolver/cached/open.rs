//! How a key stands that somebody holds an open context of.

use std::{sync::Arc, time::Duration};

use super::{CachedResolver, Inner};
use crate::{
    cache::{CachedKey, Found, Freshness, KnowsKeys, Standing},
    clock::{Moment, Now, signed_difference},
    context::{Answer, HasCaller},
    error::Unavailable,
    key::KeyStatus,
    sync::timeout,
    token::LookupKey,
};

/// Of `max_staleness`, where changes don't arrive: after how much of it a key is read anew. What is left
/// is for reading, and for trying again.
const READ_AFTER: f64 = 0.5;
/// How long that may take. A change has been told after three fifths at the most, or the feed is lost.
const READ_FOR: f64 = 0.3;
/// After how much of it a read that has failed is tried again.
const TRY_AFTER: f64 = 0.1;

impl KnowsKeys for Inner {
    fn standing(
        self: Arc<Self>,
        key: LookupKey,
        read_at: Moment,
        has_changed: bool,
    ) -> Answer<Standing> {
        Box::pin(CachedResolver(self).standing_of(key, read_at, has_changed))
    }

    fn is_active(self: Arc<Self>, key: LookupKey) -> Answer<Result<bool, Unavailable>> {
        Box::pin(async move {
            let resolver = CachedResolver(self);
            let limit = resolver.0.cache.config().load_timeout();
            let found = timeout(limit, resolver.for_context(&key)).await;
            Ok(
                match found.unwrap_or_else(|_| Err(Unavailable::too_slow()))? {
                    Found::Key(known) => {
                        known.key().status(&resolver.coarse()) == KeyStatus::Active
                    }
                    Found::Unknown => false,
                },
            )
        })
    }

    fn hears_of_changes(&self) -> bool {
        let now = Now::of(&*self.clock);
        self.cache.is_leased_for(self.staleness(READ_AFTER), &now)
    }

    fn clocks_apart(&self) -> i64 {
        let now = Now::of(&*self.clock);
        signed_difference(now.wall(), now.monotonic())
    }

    fn heartbeat(&self) -> Duration {
        self.staleness(TRY_AFTER)
    }
}

impl Inner {
    fn staleness(&self, part: f64) -> Duration {
        self.cache.config().max_staleness().mul_f64(part)
    }

    /// How long it is until a key has to be read anew that was read then.
    fn until_read(&self, known: &CachedKey, now: &Now<'_>) -> Duration {
        let age = now.monotonic().saturating_sub(known.read_at().monotonic);
        let after = self.staleness(READ_AFTER);
        after.saturating_sub(Duration::from_millis(age))
    }
}

impl CachedResolver {
    async fn standing_of(self, key: LookupKey, read_at: Moment, has_changed: bool) -> Standing {
        let resolver = &self.0;
        let believed_for = || {
            let now = Now::of(&*resolver.clock);
            resolver.cache.believed_for(read_at, has_changed, &now)
        };
        let limit = resolver.staleness(READ_FOR);
        let limit = if has_changed {
            limit
        } else {
            limit.min(believed_for())
        };
        let found = timeout(limit, self.for_context(&key)).await;
        let now = self.coarse();
        match found {
            Ok(Ok(Found::Key(known))) if known.key().status(&now) == KeyStatus::Active => {
                let until_end = known.caller().expires_at().map(|end| {
                    // A timer may be early by less than a millisecond.
                    let left = end.saturating_sub(now.wall()).saturating_add(1);
                    Duration::from_millis(left)
                });
                let until_read = if resolver.hears_of_changes() {
                    Duration::MAX
                } else {
                    let until_read = resolver.until_read(&known, &now);
                    until_read.max(resolver.staleness(TRY_AFTER))
                };
                Standing::Active {
                    read_at: known.read_at(),
                    wait: until_end.map_or(until_read, |end| end.min(until_read)),
                }
            }
            Ok(Ok(_)) => Standing::Ended,
            Ok(Err(_)) | Err(_) => match believed_for() {
                Duration::ZERO => Standing::Ended,
                left => Standing::Unavailable {
                    wait: left.min(resolver.staleness(TRY_AFTER)),
                },
            },
        }
    }

    /// From memory where changes arrive, or it was read a short while ago.
    async fn for_context(&self, key: &LookupKey) -> Result<Found, Unavailable> {
        let now = self.coarse();
        let freshness = match self.0.cache.get(key, &now) {
            Some(Found::Key(known)) => {
                let has_time = !self.0.until_read(&known, &now).is_zero();
                if has_time || self.0.hears_of_changes() {
                    return Ok(Found::Key(known));
                }
                Freshness::Fresh
            }
            Some(Found::Unknown) => return Ok(Found::Unknown),
            None => Freshness::Cached,
        };
        let _turn = self.0.held_reads.acquire().await;
        self.load(key, freshness).await
    }
}
