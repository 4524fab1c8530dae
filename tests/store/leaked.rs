//! Tokens are reported as leaked, and what each turned out to be is told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, BackendError, KeyId, KeySource, KeyStatus, LeakReport,
    LookupKey, MemoryBackend, PageRequest, Peppers, StoreError, Touch,
};

use super::{is_the_outage, new_key, pepper, store_on, verified};
use crate::support::{Fixture, id_of, outage, start, unknown_token, with_wrong_secret};

/// In a word each.
fn words(reports: &[LeakReport]) -> Vec<&'static str> {
    let word = |report: &LeakReport| match report {
        LeakReport::TruePositive {
            newly_revoked: true,
            ..
        } => "new",
        LeakReport::TruePositive { .. } => "known",
        LeakReport::FalsePositive => "false",
        LeakReport::Failed(StoreError::Unavailable(error)) => match error.backend() {
            Some(error) if error.is_corrupt() => "unreadable",
            Some(_) => "outage",
            None if error.unknown_pepper().is_some() => "pepper",
            None => "another error",
        },
        _ => "another error",
    };
    reports.iter().map(word).collect()
}

#[tokio::test]
async fn a_leaked_token_is_known_with_the_white_space_of_its_line() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["notes:read"]).await;
    let line = format!("  {token}\r\n");
    let reports = fixture.store.report_leaked([&line]).await.unwrap();
    assert_eq!(words(&reports), ["new"]);
    assert_eq!(verified(&fixture.store, &token).await, "revoked");
}

#[tokio::test]
async fn leaked_tokens_are_revoked_and_nothing_else_is() {
    let fixture = Fixture::new().await;
    let good = fixture.token(&["notes:read"]).await;
    let other = fixture.token(&["notes:read"]).await;
    let reported = [
        good.clone(),
        with_wrong_secret(&other),
        unknown_token(),
        "pk.nonsense".to_owned(),
        String::new(),
        fixture.expired_token().await,
        fixture.revoked_token().await,
        fixture.disabled_token().await,
        good.clone(),
    ];
    let reports = fixture.store.report_leaked(&reported).await.unwrap();
    assert_eq!(
        words(&reports),
        [
            "new", "false", "false", "false", "false", "new", "known", "new", "known"
        ]
    );
    assert_eq!(verified(&fixture.store, &good).await, "revoked");
    assert_eq!(verified(&fixture.store, &other).await, "good");
    for (token, report) in reported.iter().zip(&reports) {
        if report.is_true_positive() {
            assert_eq!(report.key_id(), Some(&id_of(token)));
            let key = fixture.store.get(&id_of(token)).await.unwrap().unwrap();
            assert_eq!(key.status(start()), KeyStatus::Revoked);
        } else {
            assert_eq!(report.key_id(), None);
        }
    }
}

#[tokio::test]
async fn a_thousand_leaked_tokens_can_be_reported_and_no_more() {
    let fixture = Fixture::new().await;
    let good = fixture.token(&[]).await;
    let mut reported = vec![unknown_token(); 1_000];
    reported.push(good.clone());
    let error = fixture.store.report_leaked(&reported).await.unwrap_err();
    assert!(
        matches!(error, StoreError::TooMany { at_most: 1_000, .. }),
        "{error}"
    );
    assert_eq!(verified(&fixture.store, &good).await, "good");
    let reports = fixture.store.report_leaked(&reported[1..]).await.unwrap();
    assert_eq!(words(&reports[998..]), ["false", "new"]);
    let endless = std::iter::repeat("pk.x".to_owned());
    assert!(fixture.store.report_leaked(endless).await.is_err());
    let none = fixture.store.report_leaked([""; 0]).await.unwrap();
    assert!(none.is_empty());
}

/// A backend of which one record can't be read, and which fails when it is asked for another, or to write it.
#[derive(Clone, Default)]
struct Faulty {
    inner: MemoryBackend,
    unreadable: Option<KeyId>,
    unreachable: Option<KeyId>,
    unwritable: Option<KeyId>,
    is_mended: Arc<AtomicBool>,
    /// How many records were asked for.
    asked: Arc<AtomicUsize>,
}

impl Faulty {
    fn is(&self, id: &KeyId, fault: Option<KeyId>) -> bool {
        fault == Some(*id) && !self.is_mended.load(Ordering::SeqCst)
    }
}

impl KeySource for Faulty {
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        self.asked.fetch_add(keys.len(), Ordering::SeqCst);
        let found = self.inner.get_many(keys).await?;
        for key in &found {
            if self.is(&key.id, self.unreachable) {
                return Err(outage());
            }
            // Whatever is mended besides.
            if Some(key.id) == self.unreadable {
                return Err(BackendError::corrupt("a bad hash"));
            }
        }
        Ok(found)
    }
}

impl ApiKeyBackend for Faulty {
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        self.inner.insert(key).await
    }

    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        if self.is(&key.id, self.unwritable) {
            return Err(outage());
        }
        self.inner.update(key, expected).await
    }

    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        self.inner.delete(id).await
    }

    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        self.inner.list_for_user(user_id, page).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        self.inner.touch(touches).await
    }
}

fn peppers() -> Peppers {
    Peppers::new(pepper("v1"))
}

async fn tokens(store: &ApiKeyStore, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        let issued = store.create(new_key()).await.unwrap();
        tokens.push(issued.token().expose().to_owned());
    }
    tokens
}

#[tokio::test]
async fn a_record_that_can_not_be_read_keeps_no_other_key_of_the_report_from_being_revoked() {
    let mut backend = Faulty::default();
    let tokens = tokens(&store_on(backend.clone(), peppers()).await, 5).await;
    backend.unreadable = Some(id_of(&tokens[2]));
    let store = store_on(backend, peppers()).await;
    for expected in ["new", "known"] {
        let reports = store.report_leaked(&tokens).await.unwrap();
        let readable = [expected, expected, "unreadable", expected, expected];
        assert_eq!(words(&reports), readable);
    }
}

#[tokio::test]
async fn a_pepper_that_is_unknown_keeps_no_other_key_of_the_report_from_being_revoked() {
    let backend = MemoryBackend::new();
    let mut tokens = tokens(&store_on(backend.clone(), peppers()).await, 2).await;
    let others = Peppers::new(pepper("v2"));
    let other = self::tokens(&store_on(backend.clone(), others).await, 1).await;
    tokens.splice(1..1, other);
    let store = store_on(backend, peppers()).await;
    let reports = store.report_leaked(&tokens).await.unwrap();
    assert_eq!(words(&reports), ["new", "pepper", "new"]);
}

#[tokio::test]
async fn in_an_outage_the_rest_of_a_report_is_not_tried_and_what_was_revoked_is_told() {
    let mut backend = Faulty::default();
    let mut tokens = tokens(&store_on(backend.clone(), peppers()).await, 5).await;
    tokens.push("pk.nonsense".to_owned());
    for is_read in [true, false] {
        backend.is_mended = Arc::default();
        let third = Some(id_of(&tokens[2]));
        (backend.unreachable, backend.unwritable) = if is_read {
            (third, None)
        } else {
            (None, third)
        };
        let store = store_on(backend.clone(), peppers()).await;
        let first = ["new", "known"][usize::from(!is_read)];
        let reports = store.report_leaked(&tokens).await.unwrap();
        assert_eq!(
            words(&reports),
            [first, first, "outage", "outage", "outage", "outage"]
        );
        for report in &reports[2..] {
            let LeakReport::Failed(error) = report else {
                panic!("{report:?}");
            };
            assert!(is_the_outage(error), "{error}");
        }
        // No record was asked for that comes after it.
        let asked = backend.asked.swap(0, Ordering::SeqCst);
        assert!(asked < 10, "{asked} records were asked for");
        store.report_leaked(&tokens[2..]).await.unwrap();
        let asked = backend.asked.swap(0, Ordering::SeqCst);
        assert!(asked <= 3, "{asked} records were asked for");
    }
    backend.is_mended.store(true, Ordering::SeqCst);
    let store = store_on(backend.clone(), peppers()).await;
    let reports = store.report_leaked(&tokens).await.unwrap();
    assert_eq!(
        words(&reports),
        ["known", "known", "new", "new", "new", "false"]
    );
}
