//! Keeping a cache up to date with what the source tells.

use std::{
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use super::ask::{ask, ask_in_time};
use crate::{
    backend::{ChangeSink, DynFeed, DynSource, TakesChanges, Told},
    cache::Cache,
    clock::{Clock, Moment},
    error::BackendError,
    sync::{AbortHandle, AtomicU8, Mutex, MutexGuard, Ordering, in_runtime, sleep, spawn},
    trace,
};

/// Subscribes to a source when the first key is read from it, and follows what it tells.
pub(super) struct Watch {
    followed: Arc<Followed>,
    task: Mutex<Option<AbortHandle>>,
}

struct Followed {
    source: Arc<dyn DynSource>,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    state: AtomicU8,
}

/// Nobody follows: not yet, or a runtime ended and took the task along.
const IDLE: u8 = 0;
const FOLLOWING: u8 = 1;
/// There is nothing to follow: the source tells nothing, or calls by itself. Or nobody is to follow
/// any more.
const SETTLED: u8 = 2;

/// How often within `max_staleness` the source is asked. A read may take as long as two of these.
const READS_PER_STALENESS: u32 = 5;
/// How often it is asked within a heartbeat at the most, where it has nothing to say.
const MAX_READS_PER_HEARTBEAT: u32 = 100;

impl Watch {
    pub(super) fn new(
        source: Arc<dyn DynSource>,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            followed: Arc::new(Followed {
                source,
                cache,
                clock,
                state: AtomicU8::new(IDLE),
            }),
            task: Mutex::default(),
        }
    }

    /// Called before a key is read. It doesn't wait: what a source needs longer for goes on in a task.
    pub(super) fn ensure_started(&self) {
        let state = &self.followed.state;
        let start = || state.compare_exchange(IDLE, FOLLOWING, Ordering::SeqCst, Ordering::SeqCst);
        if state.load(Ordering::SeqCst) != IDLE || !in_runtime() || start().is_err() {
            return;
        }
        let following = Following(self.followed.clone());
        let mut following: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(following.run());
        // A source in this process is subscribed to by now, and needs no task.
        let now = following
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if now.is_pending()
            && let Ok(task) = spawn(following)
        {
            *self.task() = Some(task.abort_handle());
            // Whoever stopped it meanwhile has found no task.
            if state.load(Ordering::SeqCst) == SETTLED {
                task.abort();
            }
        }
    }

    /// Nobody follows from now on.
    pub(super) fn stop(&self) {
        self.followed.state.store(SETTLED, Ordering::SeqCst);
        if let Some(task) = self.task().take() {
            task.abort();
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Following(Arc<Followed>);

impl Following {
    async fn run(self) {
        let heartbeat = self.0.cache.config().max_staleness() / READS_PER_STALENESS;
        let mut failures = 0;
        loop {
            let lost = match ask_in_time(heartbeat * 2, self.subscribe()).await {
                Ok(Told::Nothing) => return self.settle(),
                Ok(Told::Directly) => {
                    self.0.cache.invalidate_all();
                    self.0.cache.extend_lease_for_good();
                    return self.settle();
                }
                Ok(Told::By(mut feed)) => self.follow(&mut *feed, heartbeat, &mut failures).await,
                Err(error) => error,
            };
            failures += 1;
            self.0.cache.count_lost_feed();
            // An outage is one, however often it is tried again.
            if failures == 1 {
                trace::feed_lost(&lost);
            }
            // From a sixteenth of a heartbeat to a whole one.
            sleep(heartbeat / 16 * (1 << failures.min(5_u32) >> 1)).await;
        }
    }

    async fn subscribe(&self) -> Result<Told, BackendError> {
        let sink = ChangeSink::to(&self.0.cache);
        self.0
            .source
            .subscribe(sink)
            .await
            .map(|subscribed| subscribed.0)
    }

    /// Reads until that fails. What was told is applied before it counts as a proof.
    async fn follow(
        &self,
        feed: &mut dyn DynFeed,
        heartbeat: Duration,
        failures: &mut u32,
    ) -> BackendError {
        let mut reads = 0_u32;
        loop {
            let asked_at = Moment::now(&*self.0.clock);
            let changes = match ask_in_time(heartbeat * 2, async { feed.read().await }).await {
                Ok(changes) => changes,
                Err(error) => return error,
            };
            reads = reads.saturating_add(1);
            if reads == 1 {
                // What was read before may have changed before anything could be told. Not when it is
                // subscribed to: where the feed then can't be read, that would forget what may be
                // served stale.
                self.0.cache.invalidate_all();
            }
            let has_changed = !changes.is_empty();
            for change in changes {
                self.0.cache.changed(change);
            }
            self.0.cache.extend_lease(asked_at);
            // One that answers once and breaks hasn't recovered.
            if reads == 2 && mem::take(failures) > 0 {
                trace::feed_found();
            }
            // Either there is something to read, or it is time to ask.
            let mut has_waited = false;
            let waited = ask(heartbeat, async {
                let mut wait = pin!(feed.wait());
                poll_fn(|cx| {
                    let poll = wait.as_mut().poll(cx);
                    has_waited |= poll.is_pending();
                    poll
                })
                .await;
                Ok(())
            });
            if let Some(Err(error)) = waited.await {
                return error;
            }
            // One that never waits, and has nothing to say, isn't asked all the time.
            if !has_waited && !has_changed {
                sleep(heartbeat / MAX_READS_PER_HEARTBEAT).await;
            }
        }
    }

    fn settle(&self) {
        self.0.state.store(SETTLED, Ordering::SeqCst);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let state = &self.0.state;
        let _ = state.compare_exchange(FOLLOWING, IDLE, Ordering::SeqCst, Ordering::SeqCst);
    }
}
