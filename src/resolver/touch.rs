//! Noting when keys were last used: behind the requests, together, and at most once a minute each.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use super::ask::ask_in_time;
use crate::{
    backend::{DynBackend, Touch},
    cache::{CachedKey, USE_IS_OLD_AFTER},
    clock::{Now, from_unix_millis, saturating_add},
    context::HasCaller,
    error::BackendError,
    key::ApiKey,
    sync::{AbortHandle, AtomicU64, Mutex, MutexGuard, Ordering, sleep, spawn},
    token::KeyId,
    trace,
};

/// Gathers uses and writes them every few seconds.
pub(crate) struct Toucher {
    gathered: Arc<Gathered>,
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
    has_flusher: bool,
    flusher: Option<AbortHandle>,
    is_shut_down: bool,
}

/// How many keys wait to be written. The uses of others aren't noted then.
const MAX_WAITING: usize = 1_000_000;
const MAX_BATCH: usize = 1_000;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

impl Toucher {
    pub(super) const EVERY: Duration = Duration::from_secs(5);

    pub(super) fn new(backend: Arc<dyn DynBackend>, every: Duration) -> Self {
        Self {
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
        let has_flusher = {
            let mut uses = self.gathered.uses();
            if !uses.take_in(id, used_at) {
                return;
            }
            mem::replace(&mut uses.has_flusher, true)
        };
        if has_flusher {
            return;
        }
        let flusher = Flusher {
            gathered: self.gathered.clone(),
            is_done: false,
        };
        // Without a runtime the flusher comes back and is dropped, and the next one to be noted tries again.
        if let Ok(task) = spawn(flusher.run()) {
            let mut uses = self.gathered.uses();
            if uses.is_shut_down {
                task.abort();
            } else {
                uses.flusher = Some(task.abort_handle());
            }
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
        let flusher = {
            let mut uses = self.gathered.uses();
            uses.is_shut_down = true;
            uses.flusher.take()
        };
        if let Some(flusher) = flusher {
            flusher.abort();
        }
        self.gathered.flush().await
    }

    /// How many times something couldn't be written.
    pub(super) fn failures(&self) -> u64 {
        self.gathered.failures.load(Ordering::Relaxed)
    }
}

impl Drop for Toucher {
    fn drop(&mut self) {
        let mut uses = self.gathered.uses();
        uses.is_shut_down = true;
        if let Some(flusher) = uses.flusher.take() {
            flusher.abort();
        }
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

/// Writes until nothing is left, and ends: an idle store has no task.
struct Flusher {
    gathered: Arc<Gathered>,
    is_done: bool,
}

impl Flusher {
    async fn run(mut self) {
        loop {
            sleep(self.gathered.every).await;
            // A failure was counted and logged, and what failed is tried again.
            drop(self.gathered.flush().await);
            let mut uses = self.gathered.uses();
            if uses.last.is_empty() || uses.is_shut_down {
                uses.has_flusher = false;
                self.is_done = true;
                return;
            }
        }
    }
}

/// A runtime that ends takes the task along, and the next use that is to be noted starts another.
impl Drop for Flusher {
    fn drop(&mut self) {
        if !self.is_done {
            self.gathered.uses().has_flusher = false;
        }
    }
}
