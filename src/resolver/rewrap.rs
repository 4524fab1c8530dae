//! Bringing hashes under the current pepper: behind the requests, one after the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{PepperChecks, ask::ask_in_time, write::carry_out_and_tell};
use crate::{
    backend::DynBackend,
    background::{BackgroundTask, FirstPoll, Run},
    cache::{Cache, CachedKey},
    clock::{Clock, Moment, Now},
    context::HasCaller,
    error::BackendError,
    events::{Emitter, Event, EventKind},
    key::ApiKey,
    sync::{Mutex, MutexGuard},
    token::{ApiKeyToken, KeyId, Peppers, SecretHash},
    trace,
};

/// Hashes anew what was verified with a retired pepper, and stores it.
pub(crate) struct Rewrapper {
    shared: Arc<Shared>,
    /// Writes until nothing waits.
    task: BackgroundTask,
}

struct Shared {
    backend: Arc<dyn DynBackend>,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    peppers: Peppers,
    checks: Arc<PepperChecks>,
    emitter: Emitter,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Rewrap>,
    /// Those that wait or are being written, and those that failed: until when they aren't tried again, in
    /// milliseconds on the monotonic clock.
    known: HashMap<KeyId, Option<u64>>,
    /// From when on those that failed may be looked through.
    sweep_from: u64,
    /// How many have failed, one after the other.
    failures: u32,
    /// Until when none is tried, since they fail one after the other.
    closed_until: u64,
    is_shut_down: bool,
}

/// One hash in place of another. There is no secret in it.
struct Rewrap {
    id: KeyId,
    from: SecretHash,
    to: SecretHash,
}

/// How many keys wait to be written, or have failed a moment ago. Others are taken in at a later use.
const MAX_KNOWN: usize = 1_000;
/// For how long one isn't tried again that failed.
const SPARED_MILLIS: u64 = 1_000;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

impl Rewrapper {
    pub(super) fn new(
        backend: Arc<dyn DynBackend>,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
        peppers: Peppers,
        checks: Arc<PepperChecks>,
        emitter: Emitter,
    ) -> Self {
        Self {
            task: BackgroundTask::new(clock.clone()),
            shared: Arc::new(Shared {
                backend,
                cache,
                clock,
                peppers,
                checks,
                emitter,
                queue: Mutex::default(),
            }),
        }
    }

    /// `token` is that of `key`, which works, and whose hash is under a retired pepper.
    pub(super) fn used(&self, token: &ApiKeyToken, key: &CachedKey, now: &Now<'_>) {
        let id = *key.caller().key_id();
        let is_taken_in = self.shared.queue().take_in(id, now.monotonic());
        // Only then, since it is the one HMAC more that a request may cost, and not under the lock.
        let to = is_taken_in.then(|| self.shared.peppers.hash(token).ok());
        let mut queue = self.shared.queue();
        match to {
            Some(Some(to)) => {
                let from = *key.key().secret_hash();
                queue.waiting.push_back(Rewrap { id, from, to });
            }
            Some(None) => drop(queue.known.remove(&id)),
            None => {}
        }
        let is_needed = !queue.is_shut_down && !queue.waiting.is_empty();
        drop(queue);
        if is_needed {
            self.task.ensure_running(FirstPoll::Later, |run| {
                let writer = Writer {
                    shared: self.shared.clone(),
                    run,
                    current: None,
                };
                writer.write_all()
            });
        }
    }

    /// Drops what waits: the next use of such a key, here or elsewhere, has it written. What is being written
    /// is carried through.
    pub(super) fn shut_down(&self) {
        let mut queue = self.shared.queue();
        queue.is_shut_down = true;
        queue.waiting.clear();
        queue.known.clear();
        drop(queue);
        self.task.stop();
    }
}

impl Drop for Rewrapper {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Queue {
    /// Whether the key is to be rewrapped now; then it is known to be.
    fn take_in(&mut self, id: KeyId, now: u64) -> bool {
        let takes = self.has_room_for(&id, now);
        if takes {
            self.known.insert(id, None);
        }
        takes
    }

    fn has_room_for(&mut self, id: &KeyId, now: u64) -> bool {
        if self.is_shut_down || now < self.closed_until {
            return false;
        }
        if self.known.len() >= MAX_KNOWN && now >= self.sweep_from {
            self.known
                .retain(|_, spared_until| spared_until.is_none_or(|until| now < until));
            self.sweep_from = now.saturating_add(SPARED_MILLIS);
        }
        match self.known.get(id) {
            Some(spared_until) => spared_until.is_some_and(|until| now >= until),
            None => self.known.len() < MAX_KNOWN,
        }
    }

    fn is_written(&mut self, id: &KeyId) {
        self.failures = 0;
        self.known.remove(id);
    }

    /// The key is left alone for a while, and so are all, where it would fail most likely for them, too.
    fn has_failed(&mut self, id: KeyId, now: u64) {
        let until = now.saturating_add(SPARED_MILLIS);
        self.failures = self.failures.saturating_add(1);
        if self.failures > 1 {
            self.closed_until = until;
            self.known.clear();
            self.waiting.clear();
        } else {
            self.known.insert(id, Some(until));
        }
    }
}

impl Shared {
    /// Stores the new hash where the record still has the old one, and wasn't revoked.
    async fn rewrap(&self, rewrap: Rewrap) -> Result<(), BackendError> {
        let Rewrap { id, from, to } = rewrap;
        self.check_pepper(&to).await?;
        // Read first: where there is no answer, what is cached is all there is.
        let read = async { self.backend.get(&id).await };
        let found = ask_in_time(WRITE_TIMEOUT, read).await?;
        let is_as_cached =
            |key: &ApiKey| key.secret_hash.is_same(&from) && key.revoked_at.is_none();
        let Some(mut key) = found.filter(is_as_cached) else {
            self.cache.invalidate(&from.lookup_key(&id));
            return Ok(());
        };
        let expected = key.version;
        key.secret_hash = to;
        key.version = key.next_version()?;
        let kinds = (from.pepper().copied(), to.pepper().copied());
        let rewrapped = match kinds {
            (Some(from), Some(to)) => EventKind::PepperRewrapped { from, to },
            _ => return Ok(()),
        };
        let rewrapped = Event::about(rewrapped, &key);
        let (backend, place) = (self.backend.clone(), key.lookup_key());
        let write = async move { backend.update(&key, expected).await };
        let tell = self.emitter.if_done(rewrapped);
        // Where another was first, the next use tries again, with what is there then.
        let write = carry_out_and_tell(&self.cache, place, write, tell);
        ask_in_time(WRITE_TIMEOUT, write).await?;
        Ok(())
    }

    /// # Errors
    ///
    /// If other instances may have other bytes under the pepper: the key would be lost to them.
    async fn check_pepper(&self, hash: &SecretHash) -> Result<(), BackendError> {
        let compared = self.checks.check_current().await;
        compared.map_err(BackendError::unavailable)?;
        match hash.pepper() {
            Some(pepper) if !self.checks.may_rehash(pepper) => Err(BackendError::unavailable(
                "the current pepper is not verified yet: no key under it was used",
            )),
            _ => Ok(()),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until nothing waits, and ends: an idle store has no task.
struct Writer {
    shared: Arc<Shared>,
    run: Run,
    /// What is being written.
    current: Option<KeyId>,
}

impl Writer {
    async fn write_all(mut self) {
        loop {
            let next = self.shared.queue().waiting.pop_front();
            let Some(next) = next else {
                let is_idle = || self.shared.queue().waiting.is_empty();
                if self.run.finish_if(is_idle) {
                    return;
                }
                continue;
            };
            let id = next.id;
            self.current = Some(id);
            let outcome = self.shared.rewrap(next).await;
            self.current = None;
            match outcome {
                Ok(()) => self.shared.queue().is_written(&id),
                Err(error) => {
                    trace::rewrap_failed(id, &error);
                    let now = Moment::coarse(&*self.shared.clock).monotonic;
                    self.shared.queue().has_failed(id, now);
                }
            }
        }
    }
}

/// A runtime that ends takes the task along. The next use of the key has it written.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(id) = self.current {
            self.shared.queue().known.remove(&id);
        }
    }
}

// Shuttle has tasks of its own.
#[cfg(all(test, not(shuttle)))]
mod tests;
