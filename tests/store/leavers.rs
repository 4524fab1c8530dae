//! Callers who leave while the backend is asked: the call goes on, holds its permit, and breaks off
//! no statement, which would close the connection that it runs on.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};
use tower_api_key::{
    ApiKeyStore, AuthContext, GrantId, GrantPageRequest, HandoffToken, KeyFilter, KeyId, NewApiKey,
    PageRequest, Peppers, RevocationReason, Scopes,
};

use crate::support::{
    USER, outcome,
    steps::{Step, Steps},
};

const MINUTE: Duration = Duration::from_secs(60);

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Called {
    store: ApiKeyStore,
    caller: AuthContext,
    id: KeyId,
    claim: HandoffToken,
    grant: GrantId,
}

fn new_key() -> NewApiKey {
    NewApiKey::for_user(USER, Scopes::none())
}

impl Called {
    async fn new() -> (Arc<Self>, Steps) {
        let backend = Steps::default();
        let store = super::store_on(backend.clone(), Peppers::new(super::pepper("v1"))).await;
        let issued = store.create(new_key()).await.unwrap();
        let caller = store.verify(issued.token().expose()).await.unwrap();
        let granted = store.hand_off(new_key(), MINUTE).await.unwrap();
        let this = Self {
            id: issued.key().id,
            claim: granted.token().clone(),
            grant: granted.grant().id,
            caller,
            store,
        };
        (Arc::new(this), backend)
    }

    /// Every call that begins with a read, and what it reads first.
    fn reading(self: &Arc<Self>) -> Vec<(&'static str, Step, Call)> {
        macro_rules! calls {
            ($it:ident => $($step:ident: $($name:ident($($argument:expr),*)),*;)*) => {
                vec![$($((stringify!($name), Step::$step, {
                    let $it = self.clone();
                    Box::pin(async move { drop($it.store.$name($($argument),*).await) }) as Call
                })),*),*]
            };
        }
        calls! { it =>
            ReadTaken: get(&it.id), rotation(&it.id), rotate(&it.id, MINUTE),
                create_as(&it.caller, new_key()), hand_off_as(&it.caller, new_key(), MINUTE),
                rotate_as(&it.caller, &it.id, MINUTE), cancel_rotation(&it.id),
                finish_rotation(&it.id), disable(&it.id), enable(&it.id), revoke(&it.id),
                revoke_because(&it.id, RevocationReason::Leaked), delete(&it.id);
            ListTaken: list(KeyFilter::new(), PageRequest::new()),
                list_for_user(USER, PageRequest::new());
            GrantRead: claim(&it.claim), claimable(&it.claim), grant_of(&it.claim),
                grant(&it.grant), grants(GrantPageRequest::new());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_breaks_off_no_read_of_the_backend() {
    let count = Called::new().await.0.reading().len();
    for index in 0..count {
        let (called, backend) = Called::new().await;
        let (name, step, reading) = called.reading().swap_remove(index);
        let asked = backend.stop_next(step);
        let leaving = tokio::spawn(reading);
        let stopped = timeout(MINUTE, asked).await;
        let stopped = stopped.unwrap_or_else(|_| panic!("{name} doesn't read"));
        leaving.abort();
        assert!(leaving.await.unwrap_err().is_cancelled());
        let broken_off = timeout(Duration::from_secs(1), stopped.given_up()).await;
        assert!(broken_off.is_err(), "{name} was broken off");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_for_ever_gives_its_permit_back() {
    let (called, backend) = Called::new().await;
    for _ in 0..8 {
        backend.hang_next(Step::ReadAsked);
    }
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let called = called.clone();
        callers.spawn(async move { called.store.get(&called.id).await.is_err() });
    }
    assert_eq!(callers.join_all().await, [true; 8]);
    backend.forget_plans();
    assert!(called.store.get(&called.id).await.unwrap().is_some());
}

/// Concurrent lists take no more than their share of the backend.
#[tokio::test(start_paused = true)]
async fn lists_without_number_keep_no_request_and_no_revocation_waiting() {
    let (called, backend) = Called::new().await;
    let token = called.store.create(new_key()).await.unwrap();
    let mut stops = Vec::new();
    let mut lists = JoinSet::new();
    for _ in 0..1_000 {
        stops.push(Box::pin(backend.stop_next(Step::ListTaken)));
        let store = called.store.clone();
        lists.spawn(async move { store.list_for_user(USER, PageRequest::new()).await.is_ok() });
    }
    for _ in 0..10_000 {
        yield_now().await;
    }
    let mut in_progress = 0;
    for stop in &mut stops {
        let has_come = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready()));
        in_progress += usize::from(has_come.await);
    }
    assert!(
        (1..=8).contains(&in_progress),
        "{in_progress} lists at once"
    );
    called.store.invalidate_all();
    let verified = called.store.verify(token.token().expose()).await;
    assert_eq!(outcome(&verified), "good");
    assert!(called.store.revoke(&called.id).await.unwrap());
    drop(stops);
    backend.forget_plans();
    lists.abort_all();
}

/// Each time that it is read, its holder changes it before it can be disabled.
#[tokio::test(start_paused = true)]
async fn a_holder_who_changes_their_key_all_the_time_does_not_keep_it_enabled() {
    let (called, backend) = Called::new().await;
    let disabling = {
        let called = called.clone();
        tokio::spawn(async move { called.store.disable(&called.id).await })
    };
    for change in 0..100 {
        let stop = backend.stop_next(Step::WriteAsked);
        let stopped = timeout(MINUTE, stop).await.expect("it was given up");
        let records = backend.inner();
        let mut key = tower_api_key::ApiKeyBackend::get_by_id(records, &[called.id])
            .await
            .unwrap()
            .remove(0);
        let version = key.version;
        key.name = Some(change.to_string());
        key.version += 1;
        let updated = tower_api_key::ApiKeyBackend::update(records, &key, version).await;
        assert!(updated.unwrap());
        stopped.go_on();
    }
    assert!(disabling.await.unwrap().unwrap());
}
