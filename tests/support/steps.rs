//! A backend that stops at every step that a test names, and goes on as the test says.

use std::{
    collections::VecDeque,
    future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::oneshot;
use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, ChangeSink, ClaimHash, GrantId, GrantPageRequest,
    KeyFilter, KeyGrant, KeyId, KeySource, LookupKey, MemoryBackend, PageRequest, RevocationReason,
    RevokedKey, Subscription, forward_to_backend,
};

use super::outage;

/// Where a call can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `get_many` or `get_by_id` was called, and hasn't looked yet.
    ReadAsked,
    /// `get_many` or `get_by_id` has looked, and hasn't answered yet.
    ReadTaken,
    /// `list_for_user` or `list` has looked, and hasn't answered yet.
    ListTaken,
    /// `get_grant`, `get_grant_by_id` or `list_grants` has looked, and hasn't answered yet.
    GrantRead,
    /// `insert`, `update`, `delete`, `rotate`, `revoke`, `revoke_for_user` or `claim` was called, and nothing is written
    /// yet.
    WriteAsked,
    /// One of these has written, and hasn't answered yet.
    WriteDone,
}

/// A memory backend that does what it is told at each step. Clones are one backend.
///
/// It tells caches of no changes, unless it is [`telling`](Self::telling): so nothing invalidates
/// but what is tested. Calls that nobody has said anything about pass.
#[derive(Clone, Default)]
pub struct Steps(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: MemoryBackend,
    tells: bool,
    plans: Mutex<VecDeque<(Step, Plan)>>,
    reads: AtomicUsize,
    keys_read: AtomicUsize,
    writes: AtomicUsize,
}

/// What is to become of the next call that comes to a step.
enum Plan {
    Stop(oneshot::Sender<Stopped>),
    Do(Order),
}

enum Order {
    GoOn,
    Fail,
    Panic,
    Hang,
}

impl Steps {
    /// One that tells of changes directly, as the memory backend does.
    pub fn telling() -> Self {
        Self(Arc::new(Shared {
            tells: true,
            ..Shared::default()
        }))
    }

    /// The records themselves: who writes here is another node.
    pub fn inner(&self) -> &MemoryBackend {
        &self.0.inner
    }

    /// Stops the next call that comes to `step`, from this moment on. The answer waits until one has
    /// come.
    pub fn stop_next(&self, step: Step) -> impl Future<Output = Stopped> + Send + use<> {
        let (sender, stopped) = oneshot::channel();
        self.plan(step, Plan::Stop(sender));
        async move { stopped.await.unwrap() }
    }

    /// The next call that comes to `step` ends there with an error.
    pub fn fail_next(&self, step: Step) {
        self.plan(step, Plan::Do(Order::Fail));
    }

    /// The next call that comes to `step` panics there.
    pub fn panic_next(&self, step: Step) {
        self.plan(step, Plan::Do(Order::Panic));
    }

    /// The next call that comes to `step` never gets any further.
    pub fn hang_next(&self, step: Step) {
        self.plan(step, Plan::Do(Order::Hang));
    }

    /// From here on all calls pass that nobody says anything else about.
    pub fn forget_plans(&self) {
        self.0.plans.lock().unwrap().clear();
    }

    /// How often `get_many` or `get_by_id` was called.
    pub fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    /// How many keys they were asked for.
    pub fn keys_read(&self) -> usize {
        self.0.keys_read.load(Ordering::SeqCst)
    }

    /// How often one of the methods that [`Step::WriteAsked`] names was called.
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    fn plan(&self, step: Step, plan: Plan) {
        self.0.plans.lock().unwrap().push_back((step, plan));
    }

    fn take_plan(&self, step: Step) -> Option<Plan> {
        let mut plans = self.0.plans.lock().unwrap();
        let at = plans.iter().position(|(planned, _)| *planned == step)?;
        plans.remove(at).map(|(_, plan)| plan)
    }

    async fn at(&self, step: Step) -> Result<(), BackendError> {
        let order = match self.take_plan(step) {
            None => Order::GoOn,
            Some(Plan::Do(order)) => order,
            Some(Plan::Stop(sender)) => {
                let (order, ordered) = oneshot::channel();
                drop(sender.send(Stopped { order }));
                // Nobody gives orders any more.
                ordered.await.unwrap_or(Order::GoOn)
            }
        };
        match order {
            Order::GoOn => Ok(()),
            Order::Fail => Err(outage()),
            Order::Panic => panic!("the backend was told to panic"),
            Order::Hang => future::pending().await,
        }
    }

    async fn read<T>(
        &self,
        keys: usize,
        read: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        self.0.keys_read.fetch_add(keys, Ordering::SeqCst);
        self.at(Step::ReadAsked).await?;
        let found = read.await;
        self.at(Step::ReadTaken).await?;
        found
    }

    async fn write<T>(
        &self,
        write: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        self.at(Step::WriteAsked).await?;
        let written = write.await;
        self.at(Step::WriteDone).await?;
        written
    }
}

/// A call that stands still. Dropped, it goes on.
#[must_use = "a call that stands still has to be told what to do"]
pub struct Stopped {
    order: oneshot::Sender<Order>,
}

impl Stopped {
    pub fn go_on(self) {
        self.tell(Order::GoOn);
    }

    /// Ends the call with an error, whatever it has done already.
    pub fn fail(self) {
        self.tell(Order::Fail);
    }

    pub fn panic(self) {
        self.tell(Order::Panic);
    }

    /// Returns when the call was dropped by its caller.
    pub async fn given_up(mut self) {
        self.order.closed().await;
    }

    fn tell(self, order: Order) {
        // The caller may have gone away.
        drop(self.order.send(order));
    }
}

impl KeySource for Steps {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.read(keys.len(), self.0.inner.get_many(keys)).await
    }

    async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
        if self.0.tells {
            self.0.inner.subscribe(sink).await
        } else {
            Ok(Subscription::none())
        }
    }
}

/// Passes every method on: those that the trait provides are not what is under test.
impl ApiKeyBackend for Steps {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        self.write(self.0.inner.insert(key)).await
    }

    async fn insert_made_by(
        &self,
        key: &ApiKey,
        maker: (KeyId, u64),
    ) -> Result<bool, BackendError> {
        self.write(self.0.inner.insert_made_by(key, maker)).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        self.write(self.0.inner.update(key, expected)).await
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        self.write(self.0.inner.delete(id)).await
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let found = self.0.inner.list_for_user(user_id, page).await;
        self.at(Step::ListTaken).await?;
        found
    }

    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        self.read(ids.len(), self.0.inner.get_by_id(ids)).await
    }

    async fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: u64,
    ) -> Result<bool, BackendError> {
        let rotate = self.0.inner.rotate(successor, old, expected);
        self.write(rotate).await
    }

    async fn revoke(
        &self,
        id: &KeyId,
        at: SystemTime,
        reason: Option<&RevocationReason>,
    ) -> Result<bool, BackendError> {
        self.write(self.0.inner.revoke(id, at, reason)).await
    }

    async fn revoke_for_user(
        &self,
        user_id: &str,
        at: SystemTime,
        reason: Option<&RevocationReason>,
        at_most: usize,
    ) -> Result<Vec<RevokedKey>, BackendError> {
        let inner = &self.0.inner;
        let revoke = inner.revoke_for_user(user_id, at, reason, at_most);
        self.write(revoke).await
    }

    async fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let found = self.0.inner.list(filter, page).await;
        self.at(Step::ListTaken).await?;
        found
    }

    async fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Result<bool, BackendError> {
        self.write(self.0.inner.claim(grant, key, maker)).await
    }

    async fn get_grant(&self, hash: &ClaimHash) -> Result<Option<KeyGrant>, BackendError> {
        let found = self.0.inner.get_grant(hash).await;
        self.at(Step::GrantRead).await?;
        found
    }

    async fn get_grant_by_id(&self, id: &GrantId) -> Result<Option<KeyGrant>, BackendError> {
        let found = self.0.inner.get_grant_by_id(id).await;
        self.at(Step::GrantRead).await?;
        found
    }

    async fn list_grants(&self, page: &GrantPageRequest) -> Result<Vec<KeyGrant>, BackendError> {
        let found = self.0.inner.list_grants(page).await;
        self.at(Step::GrantRead).await?;
        found
    }

    forward_to_backend!(self => self.0.inner; all of backend but insert, insert_made_by, update, delete, list_for_user, get_by_id, rotate, revoke, revoke_for_user, list, claim, get_grant, get_grant_by_id, list_grants);
}
