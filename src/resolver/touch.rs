//! Noting when keys were last used: behind the requests, together, and at most once a minute each.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use super::ask::ask_in_time;
use crate::{
    backend::{DynBackend, Touch},
    background::{BackgroundTask, FirstPoll, Run},
    cache::{CachedKey, USE_IS_OLD_AFTER},
    clock::{Clock, Now, from_unix_millis, saturating_add},
    context::HasCaller,
    error::BackendError,
    key::ApiKey,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, sleep},
    token::KeyId,
    trace,
};

/// Gathers uses and writes them every few seconds.
pub(crate) struct Toucher {
    gathered: Arc<Gathered>,
    /// Writes until nothing is left.
    task: BackgroundTask,
}

struct Gathered {
    backend: Arc<dyn DynBackend>,
    every: Duration,
    failures: AtomicU64,
    uses: Mutex<Uses>,
}

#[derive(Default)]
struct Uses {
    /// What isn't known to be written.
    last: HashMap<KeyId, SystemTime>,
    is_shut_down: bool,
}

/// How many keys wait to be written. The uses of others aren't noted then.
const MAX_WAITING: usize = 1_000_000;
const MAX_BATCH: usize = 1_000;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

impl Toucher {
    pub(super) const EVERY: Duration = Duration::from_secs(5);

    pub(super) fn new(
        backend: Arc<dyn DynBackend>,
        every: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            task: BackgroundTask::new(clock),
            gathered: Arc::new(Gathered {
                backend,
                every,
                failures: AtomicU64::new(0),
                uses: Mutex::default(),
            }),
        }
    }

    /// Notes that `key` is used now.
    pub(super) fn used(&self, key: &CachedKey, now: &Now<'_>) {
        if key.is_use_to_be_noted(now.monotonic()) {
            self.gather(*key.caller().key_id(), now.wall());
        }
    }

    #[cold]
    fn gather(&self, id: KeyId, now: u64) {
        let Some(used_at) = from_unix_millis(now) else {
            return;
        };
        if self.gathered.uses().take_in(id, used_at) {
            self.task.ensure_running(FirstPoll::Later, |run| {
                let gathered = self.gathered.clone();
                async move { gathered.write_all(run).await }
            });
        }
    }

    /// Puts into `key` what isn't written yet.
    pub(crate) fn overlay(&self, key: &mut ApiKey) {
        if let Some(used_at) = self.gathered.uses().last.get(&key.id) {
            key.last_used_at = key.last_used_at.max(Some(*used_at));
        }
    }

    /// Writes what has been gathered. No more is gathered.
    pub(super) async fn shut_down(&self) -> Result<(), BackendError> {
        self.gathered.uses().is_shut_down = true;
        self.task.stop();
        self.gathered.flush().await
    }

    /// How many times something couldn't be written.
    pub(super) fn failures(&self) -> u64 {
        self.gathered.failures.load(Ordering::Relaxed)
    }
}

impl Drop for Toucher {
    fn drop(&mut self) {
        self.gathered.uses().is_shut_down = true;
    }
}

impl Uses {
    /// Whether there is something new to write. A record that was read anew may not show yet what is
    /// about to be written.
    fn take_in(&mut self, id: KeyId, used_at: SystemTime) -> bool {
        if self.is_shut_down {
            return false;
        }
        let is_full = self.last.len() >= MAX_WAITING;
        match self.last.entry(id) {
            Entry::Occupied(mut last)
                if used_at
                    > saturating_add(*last.get(), Duration::from_millis(USE_IS_OLD_AFTER)) =>
            {
                last.insert(used_at);
                true
            }
            Entry::Vacant(last) if !is_full => {
                last.insert(used_at);
                true
            }
            _ => false,
        }
    }
}

impl Gathered {
    /// Writes until nothing is left, and ends: an idle store has no task.
    async fn write_all(&self, run: Run) {
        loop {
            sleep(self.every).await;
            // A failure was counted and logged, and what failed is tried again.
            drop(self.flush().await);
            if run.finish_if(|| self.uses().last.is_empty()) {
                return;
            }
        }
    }

    /// Writes all that was gathered when it began. What fails stays.
    async fn flush(&self) -> Result<(), BackendError> {
        let touches: Vec<_> = {
            let uses = self.uses();
            let touch = |(id, used_at): (&KeyId, &SystemTime)| Touch::new(*id, *used_at);
            uses.last.iter().map(touch).collect()
        };
        let mut outcome = Ok(());
        for batch in touches.chunks(MAX_BATCH) {
            match ask_in_time(WRITE_TIMEOUT, async { self.backend.touch(batch).await }).await {
                Ok(()) => self.forget(batch),
                Err(error) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    trace::touch_failed(batch.len(), &error);
                    outcome = Err(error);
                    // It would most likely fail for the others, too.
                    break;
                }
            }
        }
        outcome
    }

    /// A key that was used again meanwhile is written again.
    fn forget(&self, written: &[Touch]) {
        let mut uses = self.uses();
        for touch in written {
            if uses.last.get(&touch.id) == Some(&touch.used_at) {
                uses.last.remove(&touch.id);
            }
        }
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
