//! Reading keys from the source: together, a few reads at a time, and apart from the requests that
//! wait for them.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::{Arc, PoisonError},
};

use super::ask::{ask, too_slow};
use crate::{
    backend::{DynSource, only_record},
    background::{BackgroundTask, FirstPoll, Run, STALLED_AFTER},
    cache::{Cache, Flight, Outcome, Waiter},
    clock::{Clock, Moment},
    error::{BackendError, Unavailable},
    key::ApiKey,
    sync::{AtomicUsize, Mutex, MutexGuard, Ordering, in_runtime, timeout},
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
    /// Made when they are needed, up to `max_loads`.
    readers: Mutex<Vec<Arc<Reader>>>,
    waiting: Mutex<VecDeque<Arc<Flight>>>,
    /// How many reads failed since one was answered.
    failed: AtomicUsize,
}

struct Reader {
    task: BackgroundTask,
    /// What the current run reads. Who replaces that run takes it over.
    batch: Mutex<Arc<Batch>>,
}

/// What one run reads, in so far as it hasn't landed: read together what stands together.
#[derive(Default)]
struct Batch(Mutex<VecDeque<Vec<Arc<Flight>>>>);

impl Batch {
    fn parts(&self) -> MutexGuard<'_, VecDeque<Vec<Arc<Flight>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loader {
    pub(super) fn new(
        source: Arc<dyn DynSource>,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            readers: Mutex::default(),
            source,
            cache,
            clock,
            waiting: Mutex::default(),
            failed: AtomicUsize::new(0),
        })
    }

    /// Sees to it that the flight lands, whatever becomes of the caller. An urgent one goes before
    /// all others, and is never refused.
    pub(super) fn load(self: &Arc<Self>, flight: &Arc<Flight>, is_urgent: bool) {
        let is_full = {
            let mut waiting = self.waiting();
            let is_full = waiting.len() >= self.cache.config().max_waiting_loads();
            match is_urgent {
                true => waiting.push_front(flight.clone()),
                false if !is_full => waiting.push_back(flight.clone()),
                false => {}
            }
            is_full && !is_urgent
        };
        if is_full {
            let why = Unavailable::load_failed("too many keys wait to be read already");
            self.fail(flight, why);
            return;
        }
        self.ensure_read();
    }

    /// Waits for what a load brings. Reads it again, where it was begun on a runtime that has
    /// ended, or stands still.
    pub(super) async fn outcome(self: &Arc<Self>, waiter: &mut Waiter) -> Outcome {
        loop {
            if let Ok(outcome) = timeout(STALLED_AFTER, waiter.outcome()).await {
                return outcome;
            }
            self.replace_stalled();
            self.ensure_read();
        }
    }

    /// Starts one more reader, or replaces one whose runtime stands still, unless there are
    /// enough.
    fn ensure_read(self: &Arc<Self>) {
        for index in 0..self.cache.config().max_loads() {
            if self.ensure_running(&self.reader(index)) || !in_runtime() {
                return;
            }
        }
    }

    /// Reads again what is being read on runtimes that stand still.
    fn replace_stalled(self: &Arc<Self>) {
        let readers = self.readers().clone();
        for reader in readers.iter().filter(|reader| reader.task.is_stalled()) {
            self.ensure_running(reader);
        }
    }

    fn ensure_running(self: &Arc<Self>, reader: &Reader) -> bool {
        let loader = self.clone();
        reader.task.ensure_running(FirstPoll::Later, |run| {
            let parts = reader.take_over();
            async move { Reading { loader, parts, run }.run().await }
        })
    }

    /// Returns the reader in that place, where there is one before it.
    fn reader(&self, index: usize) -> Arc<Reader> {
        let mut readers = self.readers();
        if let Some(reader) = readers.get(index) {
            return reader.clone();
        }
        let reader = Arc::new(Reader {
            task: BackgroundTask::new(self.clock.clone()),
            batch: Mutex::default(),
        });
        readers.push(reader.clone());
        reader
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Flight>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, keys: &[LookupKey]) -> Option<Result<Vec<ApiKey>, BackendError>> {
        self.cache.count_read();
        let limit = self.cache.config().load_timeout();
        ask(limit, async { self.source.get_many(keys).await }).await
    }
}

impl Reader {
    /// What the run before hasn't landed, for a new one.
    fn take_over(&self) -> Arc<Batch> {
        let mut current = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = mem::take(&mut *current.parts());
        *current = Arc::new(Batch(Mutex::new(parts)));
        current.clone()
    }
}

/// One run of a reader, until nothing waits.
struct Reading {
    loader: Arc<Loader>,
    parts: Arc<Batch>,
    run: Run,
}

impl Reading {
    async fn run(self) {
        loop {
            self.read_parts().await;
            // One that was replaced takes nothing more.
            if self.run.finish_if(|| false) {
                return;
            }
            if self.take_batch() {
                continue;
            }
            let is_idle = || self.loader.waiting().is_empty();
            if self.run.finish_if(is_idle) {
                return;
            }
        }
    }

    /// Reads what was taken: as one, where that fails in halves, and so on. One key that can't be read
    /// must not take the others along.
    async fn read_parts(&self) {
        let mut failed = 0;
        loop {
            let Some(part) = self.parts.parts().front().cloned() else {
                return;
            };
            for flight in &part {
                flight.begin();
            }
            let read_at = self.loader.now();
            let found = self.loader.read(&keys(&part)).await;
            // Another run may have taken it over, and reads it again.
            let Some(part) = self.parts.parts().pop_front() else {
                return;
            };
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

    fn halve(&self, mut part: Vec<Arc<Flight>>, error: &BackendError, failed: usize) {
        let is_down = self.loader.failed.load(Ordering::Relaxed) > MAX_FAILED_PARTS;
        let most = if is_down {
            MAX_WHILE_DOWN
        } else {
            MAX_FAILED_PARTS
        };
        if failed >= most {
            let others = mem::take(&mut *self.parts.parts());
            let others = others.into_iter().flatten();
            fail(&self.loader, part.into_iter().chain(others), error);
        } else if part.len() == 1 {
            fail(&self.loader, part, error);
        } else {
            let half = part.split_off(part.len() / 2);
            self.parts.parts().extend([part, half]);
        }
    }

    /// Returns whether there was anything to take.
    fn take_batch(&self) -> bool {
        let batch: Vec<_> = {
            let mut waiting = self.loader.waiting();
            let count = waiting.len().min(MAX_BATCH);
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            return false;
        }
        // Those who have waited for too long are gone.
        let is_wanted = |flight: &Arc<Flight>| self.loader.cache.is_wanted(flight);
        let (wanted, given_up): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_wanted);
        for flight in given_up {
            let why = Unavailable::load_failed("nobody has waited for it");
            self.loader.fail(&flight, why);
        }
        if !wanted.is_empty() {
            self.parts.parts().push_back(wanted);
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
impl Drop for Reading {
    fn drop(&mut self) {
        let parts = mem::take(&mut *self.parts.parts());
        for flight in parts.into_iter().flatten() {
            let why = Unavailable::load_failed("the runtime ended that the key was read on");
            // It may be a clock that panics.
            self.loader.cache.land(&flight, Err(why), Moment::ZERO);
        }
    }
}
