//! Notifies contexts when their key may be inactive.

#[cfg(all(test, not(shuttle)))]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    sync::{Arc, OnceLock, PoisonError, Weak},
    task::{Poll, Waker},
    time::Duration,
};

use super::{lease::LeaseEnd, schedule::StalenessSchedule};
use crate::{
    background::{BackgroundTask, FirstPoll, Run},
    clock::{Clock, Moment, millis},
    context::Answer,
    error::Unavailable,
    sync::{
        AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, RuntimeId, Semaphore,
        runtime_id, sleep, timeout,
    },
    token::{KeyId, LookupKey},
};

/// Which keys are watched, and by whom.
///
/// While changes arrive, a watcher waits for nothing but the change of its key. In each runtime
/// with watchers, one task looks whether changes still arrive.
pub(crate) struct KeyWatchers {
    watchers: Mutex<BTreeMap<(LookupKey, u64), Arc<Watcher>>>,
    /// Most caches have no watchers, and invalidate without taking the lock.
    count: AtomicUsize,
    /// Counts registrations.
    next: AtomicU64,
    runtimes: Mutex<HashMap<RuntimeId, Arc<RuntimeState>>>,
    revalidate: OnceLock<Weak<dyn Revalidate>>,
    /// Somebody waits for changes since a monitor has last found that none arrive.
    relies_on_changes: AtomicBool,
    clock: Arc<dyn Clock>,
    schedule: StalenessSchedule,
    max_reads: usize,
}

/// What watchers in one runtime share. Another one may stand still, and keep what it has.
struct RuntimeState {
    monitor: BackgroundTask,
    reads: Arc<Semaphore>,
}

/// Reads the key of a watcher.
pub(crate) trait Revalidate: Send + Sync {
    /// Says whether the watched key is active.
    fn revalidate(self: Arc<Self>, watched: WatchedKey) -> Answer<Revalidation>;

    /// Returns whether the key is active now.
    fn is_active(self: Arc<Self>, key: LookupKey, id: KeyId) -> Answer<Result<bool, Unavailable>>;

    /// Returns whether every change will arrive that is made while a key is read.
    fn receives_changes(&self) -> bool;

    /// Restarts the change listener if its runtime stands still.
    fn ensure_listening(&self);

    /// By how many milliseconds the wall clock is ahead of the monotonic one. This stays the same
    /// unless the wall clock is set, or the machine is suspended.
    fn clock_offset(&self) -> i64;
}

/// What is known of a watched key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchedKey {
    pub(crate) key: LookupKey,
    pub(crate) id: KeyId,
    /// The key was active when a read began at this time.
    pub(crate) read_at: Moment,
    /// Until when a change that arrived since, and was not read yet, may be ignored.
    pub(crate) unread: Option<LeaseEnd>,
}

/// What came of reading a watched key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Revalidation {
    /// It was active when a read began at `read_at`. Read it again after `wait`.
    Active { read_at: Moment, wait: Duration },
    /// It could not be read, and may still be used. Try again after `wait`.
    Retry { wait: Duration },
    /// It is inactive, or could not be read for too long.
    Inactive,
}

impl KeyWatchers {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        schedule: StalenessSchedule,
        max_reads: usize,
    ) -> Self {
        Self {
            watchers: Mutex::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            runtimes: Mutex::default(),
            revalidate: OnceLock::new(),
            relies_on_changes: AtomicBool::new(false),
            clock,
            schedule,
            max_reads,
        }
    }

    /// Called once, before there is a key.
    pub(crate) fn revalidate_with(&self, revalidate: Weak<dyn Revalidate>) {
        let _ = self.revalidate.set(revalidate);
    }

    pub(crate) fn revalidate(&self) -> Option<Arc<dyn Revalidate>> {
        self.revalidate.get()?.upgrade()
    }

    /// Called before a watcher looks whether changes arrive, and then waits for one.
    pub(crate) fn rely_on_changes(&self) {
        self.relies_on_changes.store(true, Ordering::SeqCst);
    }

    /// Limits how many watched keys are read at a time in this runtime: requests come first.
    pub(crate) fn read_permits(&self) -> Option<Arc<Semaphore>> {
        Some(self.runtime_state()?.reads.clone())
    }

    /// Notifies the watchers of `key` that it may have changed. `lease` is from before the proof
    /// that came with the change: the change was made less than `max_staleness` before its end.
    pub(super) fn changed(&self, key: &LookupKey, lease: LeaseEnd) {
        self.notify(Some(key), Some(lease));
    }

    /// The same for all keys.
    pub(super) fn all_changed(&self, lease: LeaseEnd) {
        self.notify(None, Some(lease));
    }

    /// Has all watchers look again: changes may not arrive, or the clock was set.
    fn notify_all(&self) {
        self.notify(None, None);
    }

    fn notify(&self, key: Option<&LookupKey>, lease: Option<LeaseEnd>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let unread = lease.map(|lease| {
            // A source that tells directly has a lease without end.
            lease.min(self.ends_after(self.schedule.max_staleness))
        });
        // A waker may drop a task with a watcher in it, so none is called under the lock.
        let watchers: Vec<_> = match key {
            Some(key) => {
                let watchers = self.watchers();
                let of_key = watchers.range((*key, 0)..=(*key, u64::MAX));
                of_key.map(|(_, watcher)| watcher.clone()).collect()
            }
            None => self.watchers().values().cloned().collect(),
        };
        for watcher in watchers {
            watcher.notify(unread);
        }
    }

    fn ends_after(&self, limit: Duration) -> LeaseEnd {
        LeaseEnd::after(Moment::now(&*self.clock), millis(limit))
    }

    fn register(self: &Arc<Self>, key: LookupKey) -> Registered {
        let watcher = Arc::new(Watcher::default());
        let id = (key, self.next.fetch_add(1, Ordering::SeqCst));
        {
            let mut watchers = self.watchers();
            watchers.insert(id, watcher.clone());
            self.count.store(watchers.len(), Ordering::SeqCst);
        }
        Registered {
            watchers: Arc::downgrade(self),
            id,
            watcher,
        }
    }

    fn runtime_state(&self) -> Option<Arc<RuntimeState>> {
        let id = runtime_id()?;
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = runtimes.get(&id) {
            return Some(here.clone());
        }
        // Those without watchers, and those that were dropped.
        runtimes.retain(|_, runtime| runtime.monitor.is_running());
        let here = Arc::new(RuntimeState {
            monitor: BackgroundTask::new(self.clock.clone()),
            reads: Arc::new(Semaphore::new(self.max_reads)),
        });
        runtimes.insert(id, here.clone());
        Some(here)
    }

    fn ensure_monitored(self: &Arc<Self>) {
        let Some(here) = self.runtime_state() else {
            return;
        };
        here.monitor.ensure_running(FirstPoll::Later, |run| {
            // Before any watcher computes how long it is until its key expires.
            let offset = self.revalidate().map_or(0, |it| it.clock_offset());
            let monitor = FeedMonitor {
                watchers: Arc::downgrade(self),
                offset,
            };
            monitor.run(self.schedule.look_every, run)
        });
    }

    fn watchers(&self) -> MutexGuard<'_, BTreeMap<(LookupKey, u64), Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store is gone: its watchers end.
impl Drop for KeyWatchers {
    fn drop(&mut self) {
        self.notify_all();
    }
}

/// The longest wait before a watcher looks again without any notification.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// Returns when the key is inactive: it was revoked, disabled or deleted, it has expired, or
/// nobody could say so in time.
pub(crate) async fn until_inactive(
    watchers: Weak<KeyWatchers>,
    key: LookupKey,
    id: KeyId,
    read_at: Moment,
) {
    let Some((watch, first)) = watchers.upgrade().map(|watchers| {
        let first = watchers.ends_after(watchers.schedule.read_for);
        (watchers.register(key), first)
    }) else {
        return;
    };
    let mut watched = WatchedKey {
        key,
        id,
        read_at,
        // Nobody has watched until now, so it may have changed. The first read has time, still.
        unread: Some(first),
    };
    loop {
        let revalidate = watchers.upgrade().and_then(|watchers| {
            watchers.ensure_monitored();
            watchers.revalidate()
        });
        // Without a store, nobody would notice a revocation.
        let Some(revalidate) = revalidate else {
            return;
        };
        // The oldest change counts. Those that arrive from here on are taken after this attempt.
        let unread = watch.watcher.take_unread();
        watched.unread = watched.unread.or(unread);
        let wait = match revalidate.revalidate(watched).await {
            Revalidation::Inactive => return,
            Revalidation::Retry { wait } => wait,
            Revalidation::Active { read_at, wait } => {
                watched.read_at = read_at;
                watched.unread = None;
                wait
            }
        };
        drop(timeout(wait.min(MAX_WAIT), watch.watcher.notified()).await);
    }
}

/// One waiter for a key to become inactive.
#[derive(Default)]
struct Watcher(Mutex<WatchState>);

#[derive(Default)]
struct WatchState {
    /// Of the oldest change since the last attempt to read the key.
    unread: Option<LeaseEnd>,
    is_notified: bool,
    waker: Option<Waker>,
}

impl Watcher {
    fn notify(&self, unread: Option<LeaseEnd>) {
        let waker = {
            let mut state = self.state();
            state.unread = state.unread.or(unread);
            state.is_notified = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take_unread(&self) -> Option<LeaseEnd> {
        let mut state = self.state();
        state.is_notified = false;
        state.unread.take()
    }

    async fn notified(&self) {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = self.state();
            if state.is_notified {
                return Poll::Ready(());
            }
            let before = state.waker.replace(waker);
            drop(state);
            drop(before);
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Registered {
    watchers: Weak<KeyWatchers>,
    id: (LookupKey, u64),
    watcher: Arc<Watcher>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Some(watchers) = self.watchers.upgrade() else {
            return;
        };
        let mut registered = watchers.watchers();
        registered.remove(&self.id);
        watchers.count.store(registered.len(), Ordering::SeqCst);
    }
}

/// Looks whether changes arrive, and whether the wall clock goes as the timers do, while somebody
/// in this runtime may watch a key.
struct FeedMonitor {
    watchers: Weak<KeyWatchers>,
    /// Between the clocks, when the watchers last looked.
    offset: i64,
}

/// The drift of the wall clock after which watchers look again. The two clocks are not read at
/// once.
const MAX_DRIFT: Duration = Duration::from_secs(1);

impl FeedMonitor {
    async fn run(mut self, look_every: Duration, run: Run) {
        let mut arrived = true;
        loop {
            sleep(look_every).await;
            let Some(watchers) = self.watchers.upgrade() else {
                return;
            };
            let is_idle = || watchers.count.load(Ordering::SeqCst) == 0;
            if run.finish_if(is_idle) {
                return;
            }
            let Some(revalidate) = watchers.revalidate() else {
                return;
            };
            revalidate.ensure_listening();
            let (arrive, offset) = (revalidate.receives_changes(), revalidate.clock_offset());
            let drift = Duration::from_millis(offset.abs_diff(self.offset));
            let is_set = drift > MAX_DRIFT.min(2 * look_every);
            // Where changes do not arrive, each watcher reads its key until they do.
            let is_lost =
                !arrive && (watchers.relies_on_changes.swap(false, Ordering::SeqCst) || arrived);
            if is_set || is_lost {
                watchers.notify_all();
            }
            if is_set {
                self.offset = offset;
            }
            arrived = arrive;
        }
    }
}

/// Wakes the watchers when this task ends, also with its runtime: those left start another.
impl Drop for FeedMonitor {
    fn drop(&mut self) {
        if let Some(watchers) = self.watchers.upgrade() {
            watchers.notify_all();
        }
    }
}
