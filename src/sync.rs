//! Locks, maps and tasks. The tests under `--cfg shuttle` run the same code on shuttle's, which try
//! out schedules that a machine seldom comes upon.

#[cfg(not(all(test, shuttle)))]
mod real {
    use std::hash::{BuildHasher, Hash};

    pub(crate) use dashmap::{DashMap, Entry};
    pub(crate) use std::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    };
    use tokio::runtime::Handle;
    pub(crate) use tokio::{
        sync::watch,
        task::{AbortHandle, JoinHandle},
        time::{sleep, timeout},
    };

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
}

#[cfg(all(test, shuttle))]
mod real {
    pub(crate) use shuttle::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    };
    pub(crate) use shuttle_dashmap::{DashMap, Entry};
    pub(crate) use shuttle_tokio::{
        sync::watch,
        task::{AbortHandle, JoinHandle},
        time::{sleep, timeout},
    };
    use std::{hash::Hash, marker::PhantomData};

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

    pub(crate) fn spawn<F>(future: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Ok(shuttle_tokio::task::spawn(future))
    }
}

pub(crate) use self::real::*;
