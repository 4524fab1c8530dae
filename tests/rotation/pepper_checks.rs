//! Each pepper has a check value in the database: an instance with other bytes is refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, BackendError, ConfigError, KeySource, MemoryBackend, NewApiKey,
    Pepper, PepperCheck, PepperId, PepperStatus, Peppers, Scopes, forward_to_backend,
};

use crate::support::{
    USER,
    databases::{Database, clock},
    outcome,
};

fn pepper(id: &str, byte: u8) -> Pepper {
    Pepper::new(id, [byte; 32]).unwrap()
}

async fn build(database: &Database, peppers: Peppers) -> Result<ApiKeyStore, ConfigError> {
    let builder = database.builder().await.peppers(peppers);
    builder.clock(clock()).build().await
}

async fn created(store: &ApiKeyStore) -> String {
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = store.create(new).await.unwrap();
    issued.token().expose().to_owned()
}

fn is_mismatch<T>(answer: Result<T, ConfigError>, id: &str) {
    match answer {
        Err(ConfigError::PepperMismatch(error)) if error.pepper().as_str() == id => {
            let text = error.to_string();
            assert!(text.contains(id) && text.contains("same pepper"), "{text}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("the pepper was taken"),
    }
}

async fn statuses(store: &ApiKeyStore) -> Vec<Option<PepperStatus>> {
    let usage = store.pepper_usage().await.unwrap();
    usage.iter().map(|usage| usage.status).collect()
}

/// The database is as an older version of the crate has left it: without check values.
async fn forget_checks(database: &Database) {
    let delete = "DELETE FROM tower_api_key_peppers";
    database.operator(delete, delete).await;
}

/// The file of the pepper was lost, and another one was created in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_other_bytes_under_the_id_of_a_pepper_are_refused_at_start() {
    for (name, database) in Database::all("g13-pepper-mismatch") {
        let first = build(&database, Peppers::new(pepper("v1", 1)))
            .await
            .unwrap();
        // Before there is a key, another instance already has to have the same one.
        is_mismatch(build(&database, Peppers::new(pepper("v1", 2))).await, "v1");
        let token = created(&first).await;
        is_mismatch(build(&database, Peppers::new(pepper("v1", 2))).await, "v1");
        // Also under a retired one.
        let retired = Peppers::new(pepper("v2", 3)).with_retired(pepper("v1", 2));
        is_mismatch(build(&database, retired.unwrap()).await, "v1");

        let second = build(&database, Peppers::new(pepper("v1", 1)))
            .await
            .unwrap();
        assert_eq!(outcome(&second.verify(&token).await), "good", "{name}");
        assert_eq!(
            statuses(&second).await,
            [Some(PepperStatus::Verified)],
            "{name}"
        );
        let other = build(&database, Peppers::new(pepper("v3", 4)))
            .await
            .unwrap();
        assert_eq!(
            statuses(&other).await,
            [Some(PepperStatus::Missing)],
            "{name}"
        );
    }
}

/// Of two instances that start on an empty database with different bytes, one is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_of_two_instances_with_different_peppers_one_starts() {
    let mut all = Database::all("g13-pepper-race");
    let memory = || ("memory", Database::Memory(MemoryBackend::new()));
    all.extend(std::iter::repeat_with(memory).take(20));
    for (name, database) in all {
        let [one, other] = [1, 2].map(|byte| build(&database, Peppers::new(pepper("v1", byte))));
        let (one, other) = tokio::join!(one, other);
        assert!(one.is_ok() != other.is_ok(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_the_first_verification_stores_a_check_value_that_is_missing() {
    for (name, database) in Database::all("g13-pepper-upgrade") {
        if matches!(database, Database::Memory(_)) {
            continue;
        }
        let before = build(&database, Peppers::new(pepper("v1", 1)))
            .await
            .unwrap();
        let token = created(&before).await;
        forget_checks(&database).await;
        // Wrong bytes can't be noticed yet, and are never stored.
        let wrong = build(&database, Peppers::new(pepper("v1", 2)))
            .await
            .unwrap();
        assert_eq!(
            statuses(&wrong).await,
            [Some(PepperStatus::Unverified)],
            "{name}"
        );
        assert_eq!(
            outcome(&wrong.verify(&token).await),
            "wrong secret",
            "{name}"
        );
        let right = build(&database, Peppers::new(pepper("v1", 1)))
            .await
            .unwrap();
        assert_eq!(
            statuses(&right).await,
            [Some(PepperStatus::Unverified)],
            "{name}"
        );
        assert_eq!(outcome(&right.verify(&token).await), "good", "{name}");
        // In the background.
        let stored = async {
            while statuses(&right).await != [Some(PepperStatus::Verified)] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), stored)
            .await
            .expect(name);
        is_mismatch(build(&database, Peppers::new(pepper("v1", 2))).await, "v1");
        // An instance that was running with it creates nothing more.
        assert_eq!(
            statuses(&wrong).await,
            [Some(PepperStatus::Mismatch)],
            "{name}"
        );
        let new = NewApiKey::for_user(USER, Scopes::none());
        let error = wrong.create(new).await.map(drop).unwrap_err();
        assert!(
            format!("{error:?}").contains("other bytes"),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weak_pepper_has_no_check_value() {
    for (name, database) in Database::all("weak-pepper") {
        let weak = |bytes: &[u8]| Pepper::weak_for_import("old", bytes).unwrap();
        for bytes in [b"a", b"b"] {
            let peppers = Peppers::new(pepper("v1", 1))
                .with_retired(weak(bytes))
                .unwrap();
            build(&database, peppers).await.expect(name);
        }
        let (Database::Sqlite(_) | Database::Postgres(_)) = &database else {
            continue;
        };
        let Database::Postgres(server) = &database else {
            continue;
        };
        let mut connection = server.connection().await;
        let ids = "SELECT array_agg(id::text) FROM tower_api_key_peppers";
        let ids = tower_api_key::sqlx::query_scalar(ids).fetch_one(&mut connection);
        let ids: Vec<String> = ids.await.unwrap();
        assert_eq!(ids, ["v1"]);
    }
}

/// A backend whose check values can't be read, or which keeps none.
#[derive(Clone)]
struct Unread {
    inner: MemoryBackend,
    error: fn() -> BackendError,
    reads: Arc<AtomicUsize>,
}

impl KeySource for Unread {
    forward_to_backend!(self => self.inner; all of source);
}

impl ApiKeyBackend for Unread {
    async fn pepper_checks(&self) -> Result<Vec<PepperCheck>, BackendError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Err((self.error)())
    }

    forward_to_backend!(self => self.inner; all of backend but pepper_checks);
}

#[tokio::test]
async fn g13_no_key_is_created_under_a_pepper_that_could_not_be_compared() {
    let inner = MemoryBackend::new();
    let reads = Arc::new(AtomicUsize::new(0));
    let build = |error: fn() -> BackendError| {
        let (inner, reads) = (inner.clone(), reads.clone());
        let backend = Unread {
            inner,
            error,
            reads,
        };
        let builder = ApiKeyStore::builder(backend);
        let builder = builder.peppers(
            Peppers::new(pepper("v2", 2))
                .with_retired(pepper("v1", 1))
                .unwrap(),
        );
        builder.clock(clock()).rewrap_retired_peppers().build()
    };
    let old = ApiKeyStore::builder(inner.clone()).peppers(Peppers::new(pepper("v1", 1)));
    let old = old.clock(clock()).build().await.unwrap();
    let token = created(&old).await;
    let new = || NewApiKey::for_user(USER, Scopes::none());

    // A backend that is down is no reason not to start, and tokens are verified.
    let store = build(|| BackendError::unavailable("down")).await.unwrap();
    assert_eq!(outcome(&store.verify(&token).await), "good");
    // No hash is replaced by one that others may not be able to check.
    let tried = async {
        while reads.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    let tried = tokio::time::timeout(Duration::from_secs(30), tried).await;
    tried.expect("the pepper is compared before a hash is replaced");
    let error = store.create(new()).await.map(drop).unwrap_err();
    assert!(format!("{error:?}").contains("down"), "{error:?}");
    store.shutdown().await.unwrap();
    let key = old
        .list_for_user(USER, tower_api_key::PageRequest::new())
        .await
        .unwrap();
    assert_eq!(
        key.keys[0].secret_hash.pepper(),
        Some(&PepperId::new("v1").unwrap())
    );

    // One that keeps no check values is as it was.
    let store = build(|| BackendError::unsupported("keep check values"))
        .await
        .unwrap();
    let _ = store.create(new()).await.unwrap();
}
