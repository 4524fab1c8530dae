//! Keys with contexts that somebody holds on to, and that are to end with the key.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, OnceLock, PoisonError, Weak},
    time::Duration,
};

use crate::{
    clock::Moment,
    context::Answer,
    error::Unavailable,
    sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, sleep, spawn, timeout, watch},
    token::LookupKey,
};

/// Which keys have open contexts, and how these hear that their key may have changed.
///
/// While changes arrive, an open context waits for nothing but the change of its key. One task for all of
/// them looks whether changes arrive still.
pub(crate) struct OpenKeys {
    keys: Mutex<HashMap<LookupKey, watch::Sender<Told>>>,
    /// How many there are: most caches have none, and invalidate without taking the lock.
    count: AtomicUsize,
    is_guarded: AtomicBool,
    knower: OnceLock<Weak<dyn KnowsKeys>>,
}

/// What an open context hears, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    /// The key may have changed.
    changes: u64,
    /// It may have changed untold.
    doubts: u64,
}

/// Who can be asked how a key stands.
pub(crate) trait KnowsKeys: Send + Sync {
    /// How the key stands that was good when it was read at `read_at`. `has_changed` says whether a change was
    /// told since.
    fn standing(
        self: Arc<Self>,
        key: LookupKey,
        read_at: Moment,
        has_changed: bool,
    ) -> Answer<Standing>;

    /// Whether the key is good now.
    fn is_active(self: Arc<Self>, key: LookupKey) -> Answer<Result<bool, Unavailable>>;

    /// Whether every change will arrive that is made within the time that it takes to read keys anew.
    fn hears_of_changes(&self) -> bool;

    /// By how many milliseconds the time of day is ahead of the monotonic clock. It stays as it is unless the time
    /// of day is set, or the machine is suspended.
    fn clocks_apart(&self) -> i64;

    /// How often to look.
    fn heartbeat(&self) -> Duration;
}

/// How a key stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standing {
    /// It was good when it was read at `read_at`, and is for `wait` unless a change is told.
    Active {
        read_at: Moment,
        wait: Duration,
    },
    /// It couldn't be asked, and needn't have been yet; ask again after `wait`.
    Unavailable {
        wait: Duration,
    },
    Ended,
}

impl OpenKeys {
    pub(super) fn new() -> Self {
        Self {
            keys: Mutex::default(),
            count: AtomicUsize::new(0),
            is_guarded: AtomicBool::new(false),
            knower: OnceLock::new(),
        }
    }

    /// Called once, before there is a key.
    pub(crate) fn ask(&self, knower: Weak<dyn KnowsKeys>) {
        let _ = self.knower.set(knower);
    }

    pub(crate) fn knower(&self) -> Option<Arc<dyn KnowsKeys>> {
        self.knower.get()?.upgrade()
    }

    /// The key may have changed. Called when what was cached of it is gone.
    pub(super) fn changed(&self, key: &LookupKey) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(sender) = self.keys().get(key)
        {
            sender.send_modify(|told| told.changes = told.changes.wrapping_add(1));
        }
    }

    pub(super) fn all_changed(&self) {
        self.tell_all(|told| told.changes = told.changes.wrapping_add(1));
    }

    fn doubt_all(&self) {
        self.tell_all(|told| told.doubts = told.doubts.wrapping_add(1));
    }

    fn tell_all(&self, tell: impl Fn(&mut Told)) {
        if self.count.load(Ordering::SeqCst) > 0 {
            for sender in self.keys().values() {
                sender.send_modify(&tell);
            }
        }
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<LookupKey, watch::Sender<Told>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Self>, key: LookupKey) -> Opened {
        let heard = {
            let mut keys = self.keys();
            let heard = match keys.entry(key) {
                Entry::Occupied(sender) => sender.get().subscribe(),
                Entry::Vacant(place) => place.insert(watch::channel(Told::default()).0).subscribe(),
            };
            self.count.store(keys.len(), Ordering::SeqCst);
            heard
        };
        Opened {
            keys: Arc::downgrade(self),
            key,
            heard,
        }
    }

    fn ensure_guarded(self: &Arc<Self>) {
        if self.is_guarded.swap(true, Ordering::SeqCst) {
            return;
        }
        // Before anybody reckons how long it is until a key ends.
        let apart = self.knower().map_or(0, |knower| knower.clocks_apart());
        let guard = Guard {
            keys: Arc::downgrade(self),
            apart,
        };
        // Without a runtime it comes back and is dropped, and the next one to ask starts another.
        drop(spawn(guard.run()));
    }
}

/// How long a context waits at the most before it looks again, whatever it was told.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// Returns when the key has ended: it was revoked, suspended or deleted, it has expired, or nobody can say
/// any more in time.
pub(crate) async fn ended(keys: Weak<OpenKeys>, key: LookupKey, mut read_at: Moment) {
    let Some(mut opened) = keys.upgrade().map(|keys| keys.open(key)) else {
        return;
    };
    // A change that is told stays one until the key was read after it. Before this, nobody has listened.
    let mut changes = None;
    loop {
        // What is told from here on counts, also while it is asked.
        let told = opened.heard.borrow_and_update().changes;
        let asked = keys.upgrade().and_then(|keys| {
            keys.ensure_guarded();
            keys.knower()
        });
        // Nobody is there any more who would hear of a revocation.
        let Some(knower) = asked else { return };
        let wait = match knower.standing(key, read_at, changes != Some(told)).await {
            Standing::Ended => return,
            Standing::Unavailable { wait } => wait,
            Standing::Active { read_at: at, wait } => {
                read_at = at;
                changes = Some(told);
                wait
            }
        };
        if let Ok(Err(_)) = timeout(wait.min(MAX_WAIT), opened.heard.changed()).await {
            return;
        }
    }
}

/// An open context.
struct Opened {
    keys: Weak<OpenKeys>,
    key: LookupKey,
    heard: watch::Receiver<Told>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(keys) = self.keys.upgrade() else {
            return;
        };
        let mut open = keys.keys();
        // This one is still among them.
        if let Entry::Occupied(sender) = open.entry(self.key)
            && sender.get().receiver_count() <= 1
        {
            sender.remove();
        }
        keys.count.store(open.len(), Ordering::SeqCst);
    }
}

/// Looks whether changes arrive, and whether the time of day goes on as the timers do, while there are open
/// contexts.
struct Guard {
    keys: Weak<OpenKeys>,
    /// By how much the clocks were apart when those that wait have reckoned.
    apart: i64,
}

/// By how many milliseconds the time of day may be off before those that wait for the end of their key look again.
/// The two clocks are read one after the other.
const MAX_DRIFT: Duration = Duration::from_secs(1);

impl Guard {
    async fn run(mut self) {
        let mut arrived = true;
        loop {
            let Some(knower) = self.keys.upgrade().and_then(|keys| keys.knower()) else {
                return;
            };
            let heartbeat = knower.heartbeat();
            drop(knower);
            sleep(heartbeat).await;
            let Some(keys) = self.keys.upgrade() else {
                return;
            };
            if keys.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            let Some(knower) = keys.knower() else { return };
            let (arrive, now_apart) = (knower.hears_of_changes(), knower.clocks_apart());
            let drift = Duration::from_millis(now_apart.abs_diff(self.apart));
            let is_set = drift > MAX_DRIFT.min(2 * heartbeat);
            // Where changes don't arrive, each looks by itself from here on, until they arrive again.
            if is_set || arrived && !arrive {
                keys.doubt_all();
            }
            if is_set {
                self.apart = now_apart;
            }
            arrived = arrive;
        }
    }
}

/// Also where a runtime ends and takes the task along: then those that are open start another.
impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(keys) = self.keys.upgrade() {
            keys.is_guarded.store(false, Ordering::SeqCst);
            keys.doubt_all();
        }
    }
}
