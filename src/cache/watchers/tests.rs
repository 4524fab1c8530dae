//! When watchers look again, where the monitor and they see the feed at different moments.

use super::*;
use crate::clock::SystemClock;

/// Each watcher finds that changes arrive, and the monitor, a moment later, that none do.
struct ArrivingBetweenLooks {
    watchers: Weak<KeyWatchers>,
    attempts: AtomicUsize,
}

impl Revalidate for ArrivingBetweenLooks {
    fn revalidate(self: Arc<Self>, watched: WatchedKey) -> Answer<Revalidation> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let watchers = self.watchers.upgrade().expect("watched");
        watchers.rely_on_changes();
        let (read_at, wait) = (watched.read_at, Duration::MAX);
        Box::pin(async move { Revalidation::Active { read_at, wait } })
    }

    fn is_active(self: Arc<Self>, _: LookupKey, _: KeyId) -> Answer<Result<bool, Unavailable>> {
        Box::pin(async { Ok(true) })
    }

    fn receives_changes(&self) -> bool {
        false
    }

    fn ensure_listening(&self) {}

    fn clock_offset(&self) -> i64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_looks_again_after_changes_that_arrived_between_two_looks() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let schedule = StalenessSchedule::new(Duration::from_secs(5));
    let watchers = Arc::new(KeyWatchers::new(clock.clone(), schedule, 1));
    let source = Arc::new(ArrivingBetweenLooks {
        watchers: Arc::downgrade(&watchers),
        attempts: AtomicUsize::new(0),
    });
    let revalidate: Weak<dyn Revalidate> = Arc::downgrade(&source) as _;
    watchers.revalidate_with(revalidate);
    let (key, id) = (LookupKey::from_bytes([7; 24]), KeyId::from_bytes([7; 24]));
    let read_at = Moment::now(&*clock);
    let until_inactive = until_inactive(Arc::downgrade(&watchers), key, id, read_at);
    let looks = 10_u8;
    let time = u32::from(looks) * schedule.look_every + schedule.look_every / 2;
    let ended = timeout(time, until_inactive).await;
    assert!(ended.is_err());
    // Once at first, and once after each look.
    let attempts = source.attempts.load(Ordering::SeqCst);
    assert_eq!(attempts, 1 + usize::from(looks));
}
