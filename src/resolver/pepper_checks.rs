//! Compares this instance's peppers with those that the stored keys were hashed with.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::ask::ask_in_time;
use crate::{
    backend::DynBackend,
    clock::{Clock, storable},
    error::{BackendError, PepperMismatch, Unavailable},
    events::{Emitter, Event, EventKind},
    sync::{AtomicBool, Mutex, MutexGuard, Ordering, sleep, spawn},
    token::{PepperCheck, PepperId, Peppers},
};

/// How long one read of the check values, or a count of all records, may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a check value couldn't be stored in the background.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Knows which peppers have the bytes that the stored keys were hashed with.
pub(crate) struct PepperChecks {
    backend: Arc<dyn DynBackend>,
    peppers: Peppers,
    clock: Arc<dyn Clock>,
    emitter: Emitter,
    states: Mutex<Vec<(PepperCheck, State)>>,
    /// A background task stores a check value.
    is_storing: AtomicBool,
}

/// What is known of a pepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The backend couldn't be read.
    Unknown,
    /// Keys are under it, and no check value is stored: the first verification under it stores one.
    Unconfirmed,
    /// Its check value is the stored one, or the backend keeps none.
    Verified,
    /// The stored check value is another one.
    Mismatch,
}

impl PepperChecks {
    pub(crate) fn new(
        backend: Arc<dyn DynBackend>,
        peppers: Peppers,
        clock: Arc<dyn Clock>,
        emitter: Emitter,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend,
            peppers,
            clock,
            emitter,
            states: Mutex::default(),
            is_storing: AtomicBool::new(false),
        })
    }

    /// Reads the stored check values, stores those of peppers without keys, and compares.
    ///
    /// # Errors
    ///
    /// If the backend can't be read, and if a pepper has other bytes than the stored keys' one.
    pub(crate) async fn compare(&self) -> Result<(), Unavailable> {
        let own = self.peppers.checks();
        {
            // A pepper that was drawn since then has no state yet.
            let mut states = self.states();
            for check in &own {
                if states
                    .iter()
                    .all(|(known, _)| known.pepper() != check.pepper())
                {
                    states.push((*check, State::Unknown));
                }
            }
        }
        let stored = match self.read().await {
            Err(error) if error.is_unsupported() => {
                self.set_all(State::Verified);
                return Ok(());
            }
            stored => stored?,
        };
        self.apply(&stored);
        let absent = |check: &&PepperCheck| !stored.iter().any(|it| it.pepper() == check.pepper());
        let absent: Vec<_> = own.iter().filter(absent).collect();
        if !absent.is_empty() {
            let used = self.used().await?;
            for check in absent {
                let is_used = used
                    .as_ref()
                    .is_none_or(|used| used.contains(check.pepper()));
                if is_used {
                    self.set(check.pepper(), State::Unconfirmed);
                } else {
                    self.insert(check).await?;
                }
            }
            // Another instance may have been first, with other bytes.
            self.apply(&self.read().await?);
        }
        let mismatch = self.find(|state| state == State::Mismatch);
        mismatch.map_or(Ok(()), |id| Err(PepperMismatch(id).into()))
    }

    /// Returns at once if the current pepper was verified, and otherwise compares.
    ///
    /// # Errors
    ///
    /// If keys must not be created under it: it is known not to be the stored keys' one, or the
    /// backend can't be read.
    pub(crate) async fn check_current(&self) -> Result<(), Unavailable> {
        let Some(current) = self.peppers.current_id() else {
            return Ok(());
        };
        match self.state(&current) {
            Some(State::Mismatch) => Err(PepperMismatch(current).into()),
            Some(State::Unknown) => self.compare().await,
            // It was drawn after the store was built.
            None if self.own(&current).is_some() => self.compare().await,
            // A weak pepper has no check value.
            Some(State::Verified | State::Unconfirmed) | None => Ok(()),
        }
    }

    /// Whether hashes may be replaced by ones under this pepper: only if other instances surely have
    /// the same bytes.
    pub(crate) fn may_rehash(&self, pepper: &PepperId) -> bool {
        self.state(pepper) == Some(State::Verified)
    }

    fn own(&self, pepper: &PepperId) -> Option<PepperCheck> {
        let checks = self.peppers.checks();
        checks.into_iter().find(|check| check.pepper() == pepper)
    }

    /// Whether other instances have the same bytes, as far as it is known.
    pub(crate) fn state(&self, pepper: &PepperId) -> Option<State> {
        let states = self.states();
        let known = states.iter().find(|(check, _)| check.pepper() == pepper);
        known.map(|(_, state)| *state)
    }

    /// Stores the check value of a pepper in the background, if it has none: a token was verified
    /// under it, so the stored keys are under these very bytes. Compares them first if that failed
    /// before.
    pub(crate) fn confirmed(self: &Arc<Self>, pepper: Option<&PepperId>) {
        let Some(&id) = pepper else {
            return;
        };
        let is_due = matches!(self.state(&id), Some(State::Unconfirmed | State::Unknown));
        if !is_due || self.is_storing.swap(true, Ordering::Relaxed) {
            return;
        }
        let storing = Storing(self.clone());
        // Without a runtime, the next one tries again.
        let _ = spawn(async move {
            if storing.0.confirm(&id).await.is_err() {
                sleep(RETRY_AFTER).await;
            }
        });
    }

    async fn confirm(&self, pepper: &PepperId) -> Result<(), Unavailable> {
        if self.state(pepper) == Some(State::Unknown) {
            self.compare().await?;
        }
        if self.state(pepper) == Some(State::Unconfirmed)
            && let Some(check) = self.own(pepper)
        {
            self.insert(&check).await?;
            self.apply(&self.read().await?);
        }
        Ok(())
    }

    /// Sets the states of those that have a stored check value.
    fn apply(&self, stored: &[PepperCheck]) {
        let mut differs = Vec::new();
        {
            let mut states = self.states();
            for (own, state) in &mut *states {
                let Some(stored) = stored.iter().find(|it| it.pepper() == own.pepper()) else {
                    continue;
                };
                let before = *state;
                *state = if own.matches(stored) {
                    State::Verified
                } else {
                    State::Mismatch
                };
                if *state == State::Mismatch && before != State::Mismatch {
                    differs.push(*own.pepper());
                }
            }
        }
        for id in differs {
            let warning = PepperMismatch(id).to_string();
            self.emitter
                .emit(Event::of(EventKind::BackendWarning { warning }));
        }
    }

    async fn read(&self) -> Result<Vec<PepperCheck>, BackendError> {
        ask_in_time(READ_TIMEOUT, async { self.backend.pepper_checks().await }).await
    }

    async fn insert(&self, check: &PepperCheck) -> Result<bool, BackendError> {
        let insert = async { self.backend.insert_pepper_check(check).await };
        ask_in_time(READ_TIMEOUT, insert).await
    }

    /// Returns the peppers that stored keys are under; none if the backend can't say it.
    async fn used(&self) -> Result<Option<Vec<PepperId>>, BackendError> {
        let now = storable(self.clock.now());
        let usage = async { self.backend.pepper_usage(now).await };
        match ask_in_time(READ_TIMEOUT, usage).await {
            Ok(usage) => Ok(Some(usage.iter().filter_map(|it| it.pepper).collect())),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn find(&self, is_wanted: impl Fn(State) -> bool) -> Option<PepperId> {
        let states = self.states();
        let found = states.iter().find(|(_, state)| is_wanted(*state));
        found.map(|(check, _)| *check.pepper())
    }

    fn set(&self, pepper: &PepperId, to: State) {
        let mut states = self.states();
        let of_it = states.iter_mut().filter(|(it, _)| it.pepper() == pepper);
        of_it.for_each(|(_, state)| *state = to);
    }

    fn set_all(&self, to: State) {
        let mut states = self.states();
        states.iter_mut().for_each(|(_, state)| *state = to);
    }

    fn states(&self) -> MutexGuard<'_, Vec<(PepperCheck, State)>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another may store when this one is done, or its runtime has ended.
struct Storing(Arc<PepperChecks>);

impl Drop for Storing {
    fn drop(&mut self) {
        self.0.is_storing.store(false, Ordering::Relaxed);
    }
}
