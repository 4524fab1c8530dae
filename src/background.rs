//! Work behind requests: one task, started on demand, and replaced where its runtime stands still.

use std::{
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use crate::{
    clock::{Clock, millis},
    sync::{
        AbortHandle, AtomicU64, Mutex, MutexGuard, Ordering, RuntimeId, TICKS, runtime_id, spawn,
        timeout,
    },
};

/// How often a task notes that its runtime drives it.
const TICK: Duration = Duration::from_millis(250);

/// After how long without a tick the runtime of a task counts as stalled. A caller that waits for
/// a task looks as often whether it has to be replaced.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(1);

/// At most one running task.
///
/// Callers that need it call [`ensure_running`](Self::ensure_running). The task ends by itself
/// when it has nothing left to do, so an idle store has none. A runtime that is dropped, or that
/// stands still, loses the task to the next caller on another runtime: a service may have a
/// runtime per thread, or keep one that nobody drives.
pub(crate) struct BackgroundTask(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts starts: a run with a lower number was replaced.
    starts: u64,
    running: Option<Running>,
    is_stopped: bool,
}

struct Running {
    number: u64,
    runtime: RuntimeId,
    /// When it was last driven, in milliseconds on the monotonic clock.
    progress: Arc<AtomicU64>,
    task: Option<AbortHandle>,
}

/// When a new task is first polled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstPoll {
    /// By the runtime.
    Later,
    /// At once, by the caller: work that is done after it needs no task.
    Inline,
}

impl BackgroundTask {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            state: Mutex::default(),
        }))
    }

    /// Starts `work` in the current runtime, unless it runs already. Replaces a task whose runtime
    /// stands still. Returns whether it started one.
    ///
    /// Add what there is to do before this call, and hold no lock that `work` or
    /// [`Run::finish_if`] takes.
    pub(crate) fn ensure_running<W>(
        &self,
        first_poll: FirstPoll,
        work: impl FnOnce(Run) -> W,
    ) -> bool
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let Some(runtime) = runtime_id() else {
            return false;
        };
        // Before the lock: the clock may be somebody's own.
        let now = self.0.now();
        let (number, progress, replaced) = {
            let mut state = self.0.state();
            let running = state.running.as_ref();
            let is_needed = running.is_none_or(|running| running.is_stalled(runtime, now));
            if state.is_stopped || !is_needed {
                return false;
            }
            let progress = Arc::new(AtomicU64::new(now));
            state.starts += 1;
            let running = Running {
                number: state.starts,
                runtime,
                progress: progress.clone(),
                task: None,
            };
            (state.starts, progress, state.running.replace(running))
        };
        if let Some(task) = replaced.and_then(|running| running.task) {
            task.abort();
        }
        let run = Run {
            shared: self.0.clone(),
            number,
        };
        let end = EndOfRun(run.clone());
        let mut task = Box::pin(drive(work(run), progress, end));
        if first_poll == FirstPoll::Inline
            && Pin::as_mut(&mut task)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        {
            return true;
        }
        // Without a runtime the work comes back and is dropped, which ends the run.
        if let Ok(task) = spawn(task) {
            let abort = task.abort_handle();
            let mut state = self.0.state();
            let running = state.running.as_mut();
            // Somebody may have stopped or replaced it meanwhile, and has found no task.
            if let Some(running) = running.filter(|running| running.number == number) {
                running.task = Some(abort);
            } else {
                drop(state);
                abort.abort();
            }
        }
        true
    }

    /// Whether a task runs, and its runtime stands still.
    pub(crate) fn is_stalled(&self) -> bool {
        let Some(runtime) = runtime_id() else {
            return false;
        };
        let now = self.0.now();
        let state = self.0.state();
        let running = state.running.as_ref();
        running.is_some_and(|running| running.is_stalled(runtime, now))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.0.state().running.is_some()
    }

    /// Ends the task. No other starts.
    pub(crate) fn stop(&self) {
        let running = {
            let mut state = self.0.state();
            state.is_stopped = true;
            state.running.take()
        };
        if let Some(task) = running.and_then(|running| running.task) {
            task.abort();
        }
    }
}

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn now(&self) -> u64 {
        millis(self.clock.coarse_monotonic())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// A caller in the task's own runtime proves that it is driven.
    fn is_stalled(&self, caller: RuntimeId, now: u64) -> bool {
        let driven_at = self.progress.load(Ordering::SeqCst);
        self.runtime != caller && now.saturating_sub(driven_at) >= millis(STALLED_AFTER)
    }
}

/// One run of a task, as its work sees it.
#[derive(Clone)]
pub(crate) struct Run {
    shared: Arc<Shared>,
    number: u64,
}

impl Run {
    /// Ends the run if `is_idle` says so, and returns whether it has ended. What a caller adds
    /// afterwards starts another run.
    pub(crate) fn finish_if(&self, is_idle: impl FnOnce() -> bool) -> bool {
        let mut state = self.shared.state();
        let is_current = |running: &Running| running.number == self.number;
        if !state.running.as_ref().is_some_and(is_current) {
            return true;
        }
        let ends = is_idle();
        if ends {
            state.running = None;
        }
        ends
    }
}

/// Ends the run also where the work panics, or a runtime is dropped with it.
struct EndOfRun(Run);

impl Drop for EndOfRun {
    fn drop(&mut self) {
        self.0.finish_if(|| true);
    }
}

async fn drive(work: impl Future<Output = ()>, progress: Arc<AtomicU64>, end: EndOfRun) {
    if !TICKS {
        work.await;
        return drop(end);
    }
    let mut work = pin!(work);
    while timeout(TICK, work.as_mut()).await.is_err() {
        progress.store(end.0.shared.now(), Ordering::SeqCst);
    }
}
