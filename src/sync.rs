//! Locks, maps and tasks. The tests under `--cfg shuttle` run the same code on shuttle's, which try
//! out schedules that a machine seldom comes upon.

#[cfg(not(all(test, shuttle)))]
mod real {
    use std::hash::{BuildHasher, Hash};

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
