//! Locks, maps and tasks. The tests under `--cfg shuttle` run the same code on shuttle's, which try
//! out schedules that a machine seldom comes upon.

#[cfg(not(all(test, shuttle)))]
mod real {
    use std::hash::{BuildHasher, Hash};
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    use std::{
        sync::mpsc::{Sender, channel},
        time::{Duration, Instant},
    };

    pub(crate) use dashmap::{DashMap, Entry, OccupiedEntry};
    pub(crate) use std::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    };
    use tokio::runtime::Handle;
    pub(crate) use tokio::runtime::Id as RuntimeId;
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) use tokio::sync::SemaphorePermit;
    pub(crate) use tokio::{
        sync::{OwnedSemaphorePermit, Semaphore, watch},
        task::{AbortHandle, JoinHandle},
        time::{sleep, timeout},
    };

    /// Whether background tasks note that their runtime drives them.
    pub(crate) const TICKS: bool = true;

    /// The runtime that tasks start in, and timers run on.
    pub(crate) fn runtime_id() -> Option<RuntimeId> {
        Handle::try_current().ok().map(|runtime| runtime.id())
    }

    /// A map with a hasher of one's own.
    pub(crate) type Map<K, V, S> = DashMap<K, V, S>;

    pub(crate) fn map<K: Eq + Hash, V, S: BuildHasher + Clone>(hasher: S) -> Map<K, V, S> {
        Map::with_hasher(hasher)
    }

    /// Whether tasks can be started, and timers.
    pub(crate) fn in_runtime() -> bool {
        Handle::try_current().is_ok()
    }

    /// Starts a task, or gives the future back where no runtime is entered.
    pub(crate) fn spawn<F>(future: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match Handle::try_current() {
            Ok(runtime) => Ok(runtime.spawn(future)),
            Err(_) => Err(future),
        }
    }

    /// Keeps a paused clock from moving until it is dropped.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) struct HeldClock {
        #[allow(dead_code, reason = "dropping it ends the wait of a thread")]
        release: Sender<()>,
    }

    /// Keeps tokio's clock from moving, if a test has paused it.
    ///
    /// A paused clock moves on to the next timer whenever all tasks wait, also for a server or for a
    /// thread of SQLite's: time limits would end before any answer comes. It doesn't move while a
    /// blocking task runs, so one waits until the answer is there. Sleeps don't end meanwhile. After
    /// 30 seconds the clock may move, so that limits end a call that nobody answers.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn hold_paused_clock() -> Option<HeldClock> {
        const MAX_HOLD: Duration = Duration::from_secs(30);

        let runtime = Handle::try_current().ok()?;
        // A clock that isn't paused is the system's.
        let before = Instant::now();
        let clock = tokio::time::Instant::now().into_std();
        if (before..=Instant::now()).contains(&clock) {
            return None;
        }
        let (release, released) = channel();
        drop(runtime.spawn_blocking(move || released.recv_timeout(MAX_HOLD).is_ok()));
        Some(HeldClock { release })
    }

    /// Drops `value` now, with everything in it: what its `Drop` would go on with in a task isn't
    /// done.
    #[cfg(feature = "postgres")]
    pub(crate) fn drop_without_tasks<T>(value: T) {
        // Tasks are started in a runtime that never runs one.
        let Ok(nowhere) = tokio::runtime::Builder::new_current_thread().build() else {
            return drop(value);
        };
        let handle = nowhere.handle().clone();
        let _entered = handle.enter();
        drop(value);
        nowhere.shutdown_background();
    }
}

#[cfg(all(test, shuttle))]
mod real {
    pub(crate) use shuttle::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    };
    pub(crate) use shuttle_dashmap::{DashMap, Entry, OccupiedEntry};
    pub(crate) use shuttle_tokio::{
        sync::{OwnedSemaphorePermit, Semaphore, watch},
        task::{AbortHandle, JoinHandle},
        time::{sleep, timeout},
    };
    use std::{cell::Cell, hash::Hash, marker::PhantomData};

    /// Time stands still, so no runtime does.
    pub(crate) const TICKS: bool = false;

    pub(crate) type RuntimeId = ();

    pub(crate) fn runtime_id() -> Option<RuntimeId> {
        Some(())
    }

    /// Shuttle's map has a hasher of its own.
    pub(crate) type Map<K, V, S> = <PhantomData<S> as Hashed>::Map<K, V>;

    pub(crate) trait Hashed {
        type Map<K: Eq + Hash, V>;
    }

    impl<S> Hashed for PhantomData<S> {
        type Map<K: Eq + Hash, V> = DashMap<K, V>;
    }

    pub(crate) fn map<K: Eq + Hash, V, S>(_: S) -> DashMap<K, V> {
        DashMap::new()
    }

    pub(crate) fn in_runtime() -> bool {
        true
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) struct HeldClock;

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn hold_paused_clock() -> Option<HeldClock> {
        None
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn drop_without_tasks<T>(value: T) {
        drop(value);
    }

    thread_local! {
        /// How many tasks that were started here haven't ended. Shuttle runs all of them on one thread.
        static TASKS: Cell<usize> = const { Cell::new(0) };
    }

    struct Counted;

    impl Drop for Counted {
        fn drop(&mut self) {
            TASKS.set(TASKS.get().saturating_sub(1));
        }
    }

    pub(crate) fn spawn<F>(future: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        TASKS.set(TASKS.get() + 1);
        let counted = Counted;
        Ok(shuttle_tokio::task::spawn(async move {
            let _counted = counted;
            future.await
        }))
    }

    /// Those of an execution before this one don't count.
    pub(crate) fn forget_tasks() {
        TASKS.set(0);
    }

    pub(crate) async fn all_tasks_have_ended() {
        while TASKS.get() > 0 {
            shuttle_tokio::task::yield_now().await;
        }
    }
}

pub(crate) use self::real::*;
