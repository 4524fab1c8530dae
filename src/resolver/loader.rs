//! Reading keys from the source: together, a few reads at a time, and apart from the requests that
//! wait for them.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, PoisonError},
};

use super::ask::{ask, too_slow};
use crate::{
    backend::{DynSource, only_record},
    cache::{Cache, Flight},
    clock::{Clock, Moment},
    error::{BackendError, Unavailable},
    key::ApiKey,
    sync::{AtomicUsize, Mutex, MutexGuard, Ordering, spawn},
    token::LookupKey,
};

/// How many keys are asked for in one read.
const MAX_BATCH: usize = 256;

/// After how many reads in a row that failed, of the parts of a batch that had failed as a whole, the
/// source is taken to be down, and the rest isn't tried. Enough for two keys that can't be read.
const MAX_FAILED_PARTS: usize = 5;
/// The same where as many reads had failed before: enough to find out by one of two halves that it is up
/// again.
const MAX_WHILE_DOWN: usize = 3;

/// Takes loads to the source.
pub(super) struct Loader {
    source: Arc<dyn DynSource>,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    /// How many reads failed since one was answered.
    failed: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Flight>>,
    /// How many tasks read.
    readers: usize,
}

impl Loader {
    pub(super) fn new(
        source: Arc<dyn DynSource>,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            cache,
            clock,
            queue: Mutex::default(),
            failed: AtomicUsize::new(0),
        })
    }

    /// Sees to it that the flight lands, whatever becomes of the caller.
    pub(super) fn load(self: &Arc<Self>, flight: Arc<Flight>) {
        let config = self.cache.config();
        let mut queue = self.queue();
        if queue.waiting.len() >= config.max_waiting_loads() {
            drop(queue);
            let why = Unavailable::load_failed("too many keys wait to be read already");
            self.fail(&flight, why);
            return;
        }
        queue.waiting.push_back(flight);
        if queue.readers < config.max_loads() {
            queue.readers += 1;
            drop(queue);
            let reader = Reader {
                loader: self.clone(),
                parts: VecDeque::new(),
                is_done: false,
            };
            drop(spawn(reader.run()));
        }
    }

    fn land(&self, flight: &Arc<Flight>, found: &[ApiKey], read_at: Moment) {
        match only_record(found, flight.key()) {
            Ok(record) => self.cache.land(flight, Ok(record), read_at),
            Err(error) => self.fail(flight, error.into()),
        }
    }

    fn fail(&self, flight: &Arc<Flight>, why: Unavailable) {
        self.cache.land(flight, Err(why), self.now());
    }

    fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, keys: &[LookupKey]) -> Option<Result<Vec<ApiKey>, BackendError>> {
        self.cache.count_read();
        let limit = self.cache.config().load_timeout();
        ask(limit, async { self.source.get_many(keys).await }).await
    }
}

/// One of the tasks that read, until nothing waits any more.
struct Reader {
    loader: Arc<Loader>,
    /// What it reads, in so far as it hasn't landed: read together what stands together.
    parts: VecDeque<Vec<Arc<Flight>>>,
    is_done: bool,
}

impl Reader {
    async fn run(mut self) {
        while self.take_batch() {
            self.read_parts().await;
        }
    }

    /// Reads what was taken: as one, where that fails in halves, and so on. One key that can't be read
    /// must not take the others along.
    async fn read_parts(&mut self) {
        let mut failed = 0;
        while let Some(part) = self.parts.front() {
            for flight in part {
                flight.begin();
            }
            let read_at = self.loader.now();
            let found = self.loader.read(&keys(part)).await;
            let part = self.parts.pop_front().unwrap_or_default();
            match found {
                Some(Ok(found)) => {
                    failed = 0;
                    self.loader.failed.store(0, Ordering::Relaxed);
                    for flight in part {
                        self.loader.land(&flight, &found, read_at);
                    }
                }
                Some(Err(error)) => {
                    // What can't be understood was answered all the same.
                    if error.is_corrupt() {
                        failed = 0;
                        self.loader.failed.store(0, Ordering::Relaxed);
                    } else {
                        failed += 1;
                        self.loader.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    self.halve(part, &error, failed);
                }
                // Halves would take as long, and nobody waits that long.
                None => fail(&self.loader, part, &too_slow()),
            }
        }
    }

    fn halve(&mut self, mut part: Vec<Arc<Flight>>, error: &BackendError, failed: usize) {
        let is_down = self.loader.failed.load(Ordering::Relaxed) > MAX_FAILED_PARTS;
        let most = if is_down {
            MAX_WHILE_DOWN
        } else {
            MAX_FAILED_PARTS
        };
        if failed >= most {
            let others = self.parts.drain(..).flatten();
            fail(&self.loader, part.into_iter().chain(others), error);
        } else if part.len() == 1 {
            fail(&self.loader, part, error);
        } else {
            let half = part.split_off(part.len() / 2);
            self.parts.extend([part, half]);
        }
    }

    /// Whether there was anything to take. Otherwise this reader isn't counted any more.
    fn take_batch(&mut self) -> bool {
        let mut queue = self.loader.queue();
        let count = queue.waiting.len().min(MAX_BATCH);
        if count == 0 {
            queue.readers -= 1;
            self.is_done = true;
            return false;
        }
        let batch: Vec<_> = queue.waiting.drain(..count).collect();
        drop(queue);
        // Those who have waited for too long are gone.
        let is_wanted = |flight: &Arc<Flight>| self.loader.cache.is_wanted(flight);
        let (wanted, given_up): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_wanted);
        for flight in given_up {
            let why = Unavailable::load_failed("nobody has waited for it");
            self.loader.fail(&flight, why);
        }
        if !wanted.is_empty() {
            self.parts.push_back(wanted);
        }
        true
    }
}

fn fail(loader: &Loader, flights: impl IntoIterator<Item = Arc<Flight>>, error: &BackendError) {
    for flight in flights {
        loader.fail(&flight, error.clone().into());
    }
}

/// Each once. Where a key was invalidated while it waited, there are several flights for it.
fn keys(flights: &[Arc<Flight>]) -> Vec<LookupKey> {
    let keys = flights.iter().map(|flight| *flight.key());
    keys.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A runtime that ends drops its tasks: nobody may wait for them.
impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut queue = self.loader.queue();
        queue.readers -= 1;
        if queue.readers == 0 {
            self.parts.push_back(queue.waiting.drain(..).collect());
        }
        drop(queue);
        // It may be a clock that panics.
        let now = Moment::ZERO;
        for flight in self.parts.drain(..).flatten() {
            let why = Unavailable::load_failed("the runtime ended that the key was read on");
            self.loader.cache.land(&flight, Err(why), now);
        }
    }
}
