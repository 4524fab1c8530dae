//! Keeping a cache up to date with what the source tells.

use std::{future::poll_fn, mem, pin::pin, sync::Arc};

use super::ask::{ask, ask_in_time};
use crate::{
    backend::{ChangeSink, DynFeed, DynSource, TakesChanges, Told},
    background::{BackgroundTask, FirstPoll},
    cache::Cache,
    clock::{Clock, Moment},
    error::BackendError,
    sync::{AtomicBool, Ordering, sleep},
    trace,
};

/// Subscribes to a source when the first key is read from it, and follows what it tells.
pub(super) struct Watch {
    followed: Arc<Followed>,
    task: BackgroundTask,
}

struct Followed {
    source: Arc<dyn DynSource>,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    /// Nobody is needed: the source tells nothing, or calls by itself.
    is_settled: AtomicBool,
}

/// How often the source is read within a heartbeat at most, where it has nothing to say.
const MAX_READS_PER_HEARTBEAT: u32 = 100;

impl Watch {
    pub(super) fn new(
        source: Arc<dyn DynSource>,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            task: BackgroundTask::new(clock.clone()),
            followed: Arc::new(Followed {
                source,
                cache,
                clock,
                is_settled: AtomicBool::new(false),
            }),
        }
    }

    /// Called before a key is read, and by those who wait for changes. It doesn't wait: what a
    /// source needs longer for goes on in a task. A source in this process is subscribed to when
    /// this returns, and needs no task.
    pub(super) fn ensure_started(&self) {
        if !self.followed.is_settled.load(Ordering::SeqCst) {
            self.task.ensure_running(FirstPoll::Inline, |_| {
                let followed = self.followed.clone();
                async move { followed.run().await }
            });
        }
    }

    /// Nobody follows from now on.
    pub(super) fn stop(&self) {
        self.task.stop();
    }
}

impl Followed {
    async fn run(&self) {
        let schedule = self.cache.config().schedule();
        let mut failures = 0;
        loop {
            let lost = match ask_in_time(schedule.feed_timeout, self.subscribe()).await {
                Ok(Told::Nothing) => return self.settle(),
                Ok(Told::Directly) => {
                    self.cache.invalidate_all();
                    self.cache.extend_lease_for_good();
                    return self.settle();
                }
                Ok(Told::By(mut feed)) => self.follow(&mut *feed, &mut failures).await,
                Err(error) => error,
            };
            failures += 1;
            self.cache.count_lost_feed();
            // An outage is one, however often it is tried again.
            if failures == 1 {
                trace::feed_lost(&lost);
            }
            // From a sixteenth of a heartbeat to a whole one.
            sleep(schedule.heartbeat / 16 * (1 << failures.min(5_u32) >> 1)).await;
        }
    }

    async fn subscribe(&self) -> Result<Told, BackendError> {
        let sink = ChangeSink::to(&self.cache);
        self.source
            .subscribe(sink)
            .await
            .map(|subscribed| subscribed.0)
    }

    /// Reads until that fails. What was told is applied before it counts as a proof.
    async fn follow(&self, feed: &mut dyn DynFeed, failures: &mut u32) -> BackendError {
        let schedule = self.cache.config().schedule();
        let heartbeat = schedule.heartbeat;
        let mut reads = 0_u32;
        loop {
            let asked_at = Moment::now(&*self.clock);
            let read = async { feed.read().await };
            let changes = match ask_in_time(schedule.feed_timeout, read).await {
                Ok(changes) => changes,
                Err(error) => return error,
            };
            reads = reads.saturating_add(1);
            if reads == 1 {
                // What was read before may have changed before anything could be told. Not when it is
                // subscribed to: where the feed then can't be read, that would forget what may be
                // served stale.
                self.cache.invalidate_all();
            }
            let has_changed = !changes.is_empty();
            for change in changes {
                self.cache.changed(change);
            }
            self.cache.extend_lease(asked_at);
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
        self.is_settled.store(true, Ordering::SeqCst);
    }
}
