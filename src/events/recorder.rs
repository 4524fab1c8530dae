//! Keeping events: in a task of its own, in their order, and again where it fails.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    Event, EventKind,
    log::{Log, Reader},
};
use crate::{
    ask::ask_in_time,
    background::{BackgroundTask, FirstPoll, Run},
    clock::Clock,
    error::BackendError,
    sync::{Mutex, MutexGuard, Semaphore, sleep},
    trace,
};

/// Keeps events: in a table, a file, a queue. For
/// [`ApiKeyStoreBuilder::record_events`](crate::ApiKeyStoreBuilder::record_events).
///
/// ```
/// use std::{io::Write, sync::Mutex, time::UNIX_EPOCH};
/// use tower_api_key::{BackendError, Event, EventKind, EventRecorder};
///
/// /// One line of JSON for each event.
/// struct Lines<W>(Mutex<W>);
///
/// impl<W: Write + Send + 'static> EventRecorder for Lines<W> {
///     async fn record(&self, events: &[Event]) -> Result<(), BackendError> {
///         let mut lines = Vec::new();
///         for event in events {
///             let at = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
///             let line = serde_json::json!({
///                 "at": at.as_millis(),
///                 "number": event.number,
///                 "event": event.name(),
///                 "key_id": event.key_id.map(|id| id.to_string()),
///                 "grant_id": event.grant_id.map(|id| id.to_string()),
///                 "user_id": event.user_id.as_deref(),
///                 "reason": event.reason(),
///                 "made_by": event.kind.made_by().map(|id| id.to_string()),
///                 "successor": event.kind.successor().map(|id| id.to_string()),
///                 "peppers": event.kind.peppers().map(|(from, to)| [from.to_string(), to.to_string()]),
///                 "records": event.kind.records(),
///                 "missed": match &event.kind {
///                     EventKind::Missed(missed) => {
///                         let keys = [missed.inactive, missed.changes];
///                         Some([keys, [missed.repeatable, missed.rejections]].concat())
///                     }
///                     _ => None,
///                 },
///             });
///             writeln!(lines, "{line}").map_err(BackendError::unavailable)?;
///         }
///         let mut file = self.0.lock().expect("no writer panics");
///         file.write_all(&lines).map_err(BackendError::unavailable)
///     }
/// }
/// # let recorder = Lines(Mutex::new(Vec::new()));
/// # tower_api_key::ApiKeyStore::builder(tower_api_key::MemoryBackend::new()).record_events(recorder);
/// ```
///
/// # What is promised
///
/// * **No request and no change waits for it.** It is called by one task, for one batch of up to 100 events
///   after the other. A recorder that fails, panics, or takes longer than 10 seconds for a batch is called
///   again with the same batch, after a second and then after up to a minute each time. If the runtime of that
///   task stands still, another task records the same batch again, possibly at the same time.
/// * **At least once, in order, while the process lives**: a batch that was recorded and answered with an
///   error comes again, with the same [numbers](Event::number).
/// * **Not more than the buffer holds.** Where it falls behind by more than
///   [`event_buffer`](crate::ApiKeyStoreBuilder::event_buffer) events of a sort, the oldest of them are lost,
///   and in their place it gets one event that says [how many](crate::EventKind::Missed).
/// * **A process that ends takes along what wasn't recorded yet**, unless it calls
///   [`shutdown`](crate::ApiKeyStore::shutdown) before. So does a crash between a change and its record.
///
/// An audit trail that must not lose anything is made where the change is made: by a trigger in the database.
pub trait EventRecorder: Send + Sync + 'static {
    /// Keeps `events`, all of them or none: where it fails, it gets all of them again. Answer `Ok` for those
    /// that aren't wanted.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where they should come again.
    fn record(&self, events: &[Event]) -> impl Future<Output = Result<(), BackendError>> + Send;
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), BackendError>> + Send + 'a>>;

/// [`EventRecorder`] with a boxed future.
pub(crate) trait DynRecorder: Send + Sync {
    fn record<'a>(&'a self, events: &'a [Event]) -> Answer<'a>;
}

impl<R: EventRecorder> DynRecorder for R {
    fn record<'a>(&'a self, events: &'a [Event]) -> Answer<'a> {
        Box::pin(EventRecorder::record(self, events))
    }
}

const MAX_BATCH: usize = 100;
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Takes events to a recorder.
pub(super) struct Recording {
    recorder: Box<dyn DynRecorder>,
    work: Mutex<Work>,
    /// Records until nothing is left.
    task: BackgroundTask,
}

struct Work {
    reader: Reader,
    /// What was taken, and isn't known to be recorded.
    batch: Option<Arc<[Event]>>,
    /// Lets one batch be recorded at a time. A run whose runtime stands still keeps the one that
    /// it has, and the next gets another.
    turn: Arc<Semaphore>,
    is_shut_down: bool,
}

impl Recording {
    pub(super) fn new(
        recorder: Box<dyn DynRecorder>,
        log: &Arc<Log>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            recorder,
            task: BackgroundTask::new(clock),
            work: Mutex::new(Work {
                reader: log.reader(),
                batch: None,
                turn: Arc::new(Semaphore::new(1)),
                is_shut_down: false,
            }),
        })
    }

    /// There is something to record.
    pub(super) fn ensure_running(self: &Arc<Self>) {
        if self.work().is_shut_down {
            return;
        }
        self.task.ensure_running(FirstPoll::Later, |run| {
            let turn = self.new_turn();
            let recording = self.clone();
            async move { recording.record_all(run, turn).await }
        });
    }

    /// Records until nothing is left, and ends: an idle store has no task.
    async fn record_all(&self, run: Run, turn: Arc<Semaphore>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.record_batch(&turn).await {
                Ok(Some(_)) => pause = FIRST_PAUSE,
                Ok(None) => {
                    if run.finish_if(|| self.work().next_batch().is_none()) {
                        return;
                    }
                }
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Lets a new run record, although the one before may have stopped in the middle of a batch.
    fn new_turn(&self) -> Arc<Semaphore> {
        let turn = Arc::new(Semaphore::new(1));
        self.work().turn = turn.clone();
        turn
    }

    /// Records a batch; returns the number of its last event, or nothing where there is none.
    async fn record_batch(&self, turn: &Semaphore) -> Result<Option<u64>, BackendError> {
        let _turn = turn.acquire().await;
        let Some(batch) = self.work().next_batch() else {
            return Ok(None);
        };
        ask_in_time(RECORD_TIMEOUT, async { self.recorder.record(&batch).await })
            .await
            .inspect_err(|error| trace::not_recorded(batch.len(), error))?;
        let mut work = self.work();
        // Another run may have recorded it, and taken the next one.
        if work
            .batch
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, &batch))
        {
            work.batch = None;
        }
        Ok(batch.last().map(|event| event.number))
    }

    /// Records what there is up to an event, within a time. No more is recorded after that.
    pub(super) async fn shut_down(&self, last: u64) -> Result<(), BackendError> {
        self.work().is_shut_down = true;
        let turn = if self.task.is_stalled() {
            self.new_turn()
        } else {
            self.work().turn.clone()
        };
        let recorded = ask_in_time(SHUTDOWN_TIMEOUT, async {
            while self
                .record_batch(&turn)
                .await?
                .is_some_and(|number| number < last)
            {}
            Ok(())
        });
        let recorded = recorded.await;
        self.stop();
        recorded
    }

    pub(super) fn stop(&self) {
        self.work().is_shut_down = true;
        self.task.stop();
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn next_batch(&mut self) -> Option<Arc<[Event]>> {
        if self.batch.is_none() {
            let events = self.reader.take(MAX_BATCH);
            let missed = |event: &&Event| matches!(event.kind, EventKind::Missed(_));
            events.iter().filter(missed).for_each(trace::events_missed);
            if !events.is_empty() {
                self.batch = Some(events.into());
            }
        }
        self.batch.clone()
    }
}
