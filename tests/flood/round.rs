//! One flood, and one revocation in the middle of it.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_api_key::{ApiKeyStore, KeyFilter, NewApiKey, PageRequest, Scopes, StoreError};

use super::{
    database::Instances,
    holder::{CREATIONS, Holder, Operation, Task, unknown_token},
    operator::Revocation,
    times::{Outcome, Times},
};
use crate::support::outcome;

/// How long a revocation, or the lookup of a stranger, may take.
pub(crate) const BOUND: Duration = Duration::from_secs(5);
/// The default `max_staleness`.
const MAX_STALENESS: Duration = Duration::from_secs(5);
/// How many tasks the holder has on each instance.
const TASKS: usize = 32;
/// How many keys each instance may give to the holder while a revocation waits: those that it was
/// already writing, and a few that overtake it before it waits for the record.
const KEYS_MEANWHILE: usize = 12;
/// After how long a flood counts as stuck that answers nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two lookups of one stranger: all instances share the machine.
const PACE: Duration = Duration::from_millis(2);

pub(crate) struct Round<'a> {
    pub(crate) instances: &'a Instances,
    pub(crate) operations: &'static [Operation],
    pub(crate) revocation: Revocation,
    pub(crate) times: &'a Times,
}

/// What the tasks of a flood share.
struct Shared {
    holder: Arc<Holder>,
    operations: &'static [Operation],
    is_over: AtomicBool,
    /// When the operator's call had succeeded.
    revoked: OnceLock<Instant>,
    /// How many keys the holder has got with the key.
    keys: AtomicUsize,
    /// A permit for each answered call, for each instance.
    answered: Vec<Semaphore>,
    calls: Mutex<Vec<(String, Duration, Outcome)>>,
    problems: Mutex<Vec<String>>,
}

impl Round<'_> {
    /// Runs it, and returns what went wrong.
    pub(crate) async fn run(self) -> Vec<String> {
        let setup = &self.instances.setup;
        let tasks_in_total = TASKS * self.instances.all.len();
        let holder = Holder::new(setup, unique("holder"), tasks_in_total).await;
        let holder = Arc::new(holder);
        let stranger = NewApiKey::for_user(unique("stranger"), Scopes::none());
        let stranger = setup.create(stranger).await.unwrap();
        let count = self.instances.all.len();
        let shared = Arc::new(Shared {
            holder,
            operations: self.operations,
            is_over: AtomicBool::new(false),
            revoked: OnceLock::new(),
            keys: AtomicUsize::new(0),
            answered: (0..count).map(|_| Semaphore::new(0)).collect(),
            calls: Mutex::default(),
            problems: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (at, store) in self.instances.all.iter().enumerate() {
            let caller = store.verify(&shared.holder.token).await.unwrap();
            for number in 0..TASKS {
                let number = number + at * TASKS;
                let task = Task::new(store.clone(), caller.clone(), shared.holder.clone(), number);
                tasks.spawn(shared.clone().flood(at, task));
            }
            let token = stranger.token().expose().to_owned();
            tasks.spawn(shared.clone().look_up(at, store.clone(), token));
        }
        // What is written queues by then.
        let first = u32::try_from(8 + 4 * self.operations.len()).unwrap();
        for answered in &shared.answered {
            let calls = timeout(PATIENCE, answered.acquire_many(first)).await;
            calls.expect("the flood is under way").unwrap().forget();
        }
        self.revoke(&shared).await;
        shared.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        if shared.revoked.get().is_some() {
            self.check_afterwards(&shared).await;
        }
        for (name, time, outcome) in shared.calls().drain(..) {
            self.times.add(&name, time, outcome);
        }
        shared.problems().drain(..).collect()
    }

    /// Revokes while the flood goes on, on the first instance.
    async fn revoke(&self, shared: &Shared) {
        let Self { revocation, .. } = self;
        let (here, others) = self.instances.all.split_first().unwrap();
        let (began, keys) = (Instant::now(), shared.keys.load(Ordering::SeqCst));
        let revoked = revocation.run(here, &shared.holder).await;
        let took = began.elapsed();
        let meanwhile = shared.keys.load(Ordering::SeqCst) - keys;
        // Locks are granted in the order of the requests.
        let is_late = meanwhile > KEYS_MEANWHILE * self.instances.all.len();
        if is_late && self.operations == CREATIONS {
            shared.problem(format!(
                "{meanwhile} keys were given while {revocation} waited"
            ));
        }
        let name = format!("operator: {revocation}");
        let is_done = match revoked {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Unavailable,
        };
        shared.count(&name, took, is_done);
        if took > BOUND {
            shared.problem(format!("{revocation} took {took:?}"));
        }
        if let Err(error) = revoked {
            let still = shared.verify(here).await;
            return shared.problem(format!(
                "{revocation} failed after {took:?}, and the key is {still}: {error}"
            ));
        }
        let since = Instant::now();
        shared.revoked.set(since).unwrap();
        for _ in 0..5 {
            let answer = shared.verify(here).await;
            if answer != revocation.answer() {
                shared.problem(format!("G1: {answer} after {revocation}"));
            }
        }
        for other in others {
            while shared.verify(other).await != revocation.answer() {
                if since.elapsed() > MAX_STALENESS {
                    return shared.problem(format!("G2: another instance after {revocation}"));
                }
                sleep(PACE).await;
            }
            let name = format!("elsewhere: {revocation}");
            shared.count(&name, since.elapsed(), Outcome::Done);
        }
    }

    /// Looks for what the flood has left behind.
    async fn check_afterwards(&self, shared: &Shared) {
        let Self { revocation, .. } = self;
        for store in self.instances.all.iter().chain([&self.instances.setup]) {
            let fresh = outcome(&store.verify_fresh(&shared.holder.token).await);
            for answer in [shared.verify(store).await, fresh] {
                if answer != revocation.answer() {
                    shared.problem(format!("G1: {answer} when the flood has ended"));
                }
            }
        }
        let store = &self.instances.setup;
        for _ in 0..10 {
            let Some(grant) = shared.holder.take_grant() else {
                break;
            };
            if store.claim(&grant).await.is_ok() {
                shared.problem(format!("G11: a claim succeeds after {revocation}"));
            }
        }
        if *revocation == Revocation::RevokeAllForUser {
            let filter = KeyFilter::new().user(&shared.holder.user);
            let left = store.list(filter, PageRequest::new()).await.unwrap();
            if !left.keys.is_empty() {
                shared.problem(format!("G1: keys are left after {revocation}"));
            }
        }
    }
}

impl Shared {
    /// Calls one operation after the other until the flood is over.
    async fn flood(self: Arc<Self>, at: usize, mut task: Task) {
        while !self.is_over.load(Ordering::SeqCst) {
            let operation = task.next(self.operations);
            let was_revoked = self.revoked.get().is_some();
            let began = Instant::now();
            let answer = task.call(operation).await;
            let took = began.elapsed();
            if operation.delegates() && answer.is_ok() {
                self.keys.fetch_add(1, Ordering::SeqCst);
            }
            if was_revoked && operation.delegates() && answer.is_ok() {
                self.problem(format!("G11: {operation:?} with a key that is revoked"));
            }
            match ended(&answer) {
                Some(outcome) => self.count(&format!("{operation:?}"), took, outcome),
                None => self.problem(format!("{operation:?}: {answer:?}")),
            }
            self.answered[at].add_permits(1);
        }
    }

    /// Looks up keys of strangers, which aren't cached, until the flood is over.
    async fn look_up(self: Arc<Self>, at: usize, store: ApiKeyStore, token: String) {
        static UNKNOWN: AtomicUsize = AtomicUsize::new(0);
        while !self.is_over.load(Ordering::SeqCst) {
            let unknown = unknown_token(99_999_999, UNKNOWN.fetch_add(1, Ordering::SeqCst));
            let began = Instant::now();
            let cold = outcome(&store.verify(&unknown).await);
            self.looked_up(at, began.elapsed(), cold, "unknown");
            let began = Instant::now();
            let fresh = outcome(&store.verify_fresh(&token).await);
            self.looked_up(at, began.elapsed(), fresh, "good");
            sleep(PACE).await;
        }
    }

    fn looked_up(&self, at: usize, took: Duration, answer: &str, expected: &str) {
        if answer != expected || took > BOUND {
            self.problem(format!("a stranger is {answer} on {at} after {took:?}"));
        }
        self.count("stranger: cold lookup", took, Outcome::Done);
    }

    async fn verify(&self, store: &ApiKeyStore) -> &'static str {
        outcome(&store.verify(&self.holder.token).await)
    }

    fn count(&self, name: &str, took: Duration, outcome: Outcome) {
        self.calls().push((name.to_owned(), took, outcome));
    }

    fn problem(&self, what: String) {
        self.problems().push(what);
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<(String, Duration, Outcome)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problems(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sorts the answers that a holder may get; any other is a bug.
fn ended(answer: &Result<(), StoreError>) -> Option<Outcome> {
    match answer {
        Ok(()) => Some(Outcome::Done),
        Err(StoreError::Unavailable(_)) => Some(Outcome::Unavailable),
        Err(
            StoreError::NotHeld(_)
            | StoreError::NotClaimable(_)
            | StoreError::Conflict(_)
            | StoreError::Rotation { .. }
            | StoreError::UserGrantsFull { .. },
        ) => Some(Outcome::Refused),
        Err(_) => None,
    }
}

fn unique(name: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{name}_{}", COUNT.fetch_add(1, Ordering::SeqCst))
}
