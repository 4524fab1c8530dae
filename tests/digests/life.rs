//! What is done with an imported key by its raw token, on every backend and on two nodes: as with any other.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyLayer, ApiKeyStore, Imported, KeyUpdate, LeakReport, ManualClock,
    MemoryBackend, OldKey, PageRequest, PostgresBackend, Scopes, SqliteBackend,
};

use super::{hash_of, store_on, strict, token};
use crate::support::{
    USER,
    echo::{outcome as answered, serve},
    folder::Folder,
    http1, http2, outcome, postgres, start,
};

/// Long enough for everything that is to happen soon, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test]
async fn imported_keys_in_memory_live_as_others_do() {
    let backend = MemoryBackend::new();
    check(backend.clone(), backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_keys_in_sqlite_live_as_others_do() {
    let folder = Folder::new("digests");
    let file = folder.join("keys.db");
    let open = async || SqliteBackend::open(&file).await.unwrap();
    check(open().await, open().await).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_keys_in_postgres_live_as_others_do() {
    let Some(server) = postgres::Server::start() else {
        return;
    };
    let url = server.url();
    let connect = async || PostgresBackend::connect(&url).await.unwrap();
    check(connect().await, connect().await).await;
}

/// One backend after the other would take as long as all of them.
async fn check(here: impl ApiKeyBackend, there: impl ApiKeyBackend) {
    let (here, clock) = store_on(here).await;
    let (there, clock_there) = store_on(there).await;
    let nodes = Nodes { here, there };
    nodes.resolved_asked_and_revoked_by_the_raw_token().await;
    nodes.reported_as_leaked().await;
    nodes.held_by_a_context_that_ends_on_both().await;
    nodes.changed_suspended_and_deleted_by_id().await;
    nodes.revoked_with_all_of_its_user().await;
    nodes.noted_as_used().await;
    nodes.expired(&[clock, clock_there]).await;
}

struct Nodes {
    here: ApiKeyStore,
    there: ApiKeyStore,
}

impl Nodes {
    /// Imported here, and known there.
    async fn key(&self, number: u64) -> (String, ApiKey) {
        let token = token(number);
        assert_eq!(outcome(&self.there.verify(&token).await), "unknown");
        let old = OldKey::by_digest(hash_of(&token), USER)
            .name("CI")
            .scopes(["notes:read"])
            .created_at(start())
            .expires_at(start() + HOUR);
        let Imported::Stored(key) = self.here.import(old, &strict()).await.unwrap() else {
            panic!("it isn't new");
        };
        assert_eq!(outcome(&self.here.verify(&token).await), "good");
        self.until_there(&token, "good").await;
        (token, *key)
    }

    async fn until_there(&self, token: &str, expected: &str) {
        until(async || outcome(&self.there.verify(token).await) == expected).await;
    }

    async fn resolved_asked_and_revoked_by_the_raw_token(&self) {
        let (token, key) = self.key(1).await;
        let auth = self.here.verify(&token).await.unwrap();
        assert_eq!((auth.key_id(), auth.user_id()), (&key.id, USER));
        assert_eq!(
            (auth.name(), auth.expires_at()),
            (Some("CI"), key.expires_at)
        );
        let one = serve(ApiKeyLayer::new(self.here.clone())).await;
        let other = serve(ApiKeyLayer::new(self.there.clone()).fresh()).await;
        let (value, wrong) = (
            format!("Bearer {token}"),
            format!("Bearer {}", super::token(9_999)),
        );
        let headers = [("authorization", value.as_bytes())];
        let asked = async |expected: &str| {
            for (client, server) in [(http1(), &one), (http2(), &other)] {
                assert_eq!(
                    answered(&client, &server.url("/"), &headers).await,
                    expected
                );
                let wrong = [("authorization", wrong.as_bytes())];
                let answer = answered(&client, &server.url("/"), &wrong).await;
                assert_eq!(answer, "invalid_token");
            }
        };
        for store in [&self.here, &self.there] {
            assert!(store.is_active(&token).await.unwrap());
            assert!(store.has_scope(&token, "notes:read").await.unwrap());
            assert!(!store.has_scope(&token, "notes:write").await.unwrap());
            assert!(!store.revoke_token(super::token(9_999)).await.unwrap());
            assert!(!store.revoke_token(format!("{token}0")).await.unwrap());
        }
        asked("let in").await;
        // G1: here at once, and there where it is read for it.
        assert!(self.here.revoke_token(&token).await.unwrap());
        asked("revoked").await;
        assert!(!self.here.is_active(&token).await.unwrap());
        assert!(!self.here.has_scope(&token, "notes:read").await.unwrap());
        self.until_there(&token, "revoked").await;
        for store in [&self.here, &self.there] {
            assert!(!store.revoke_token(&token).await.unwrap());
            let read = store.get(&key.id).await.unwrap().unwrap();
            assert!(read.revoked_at.is_some());
        }
        let old = OldKey::by_digest(hash_of(&token), USER).scopes(["notes:read"]);
        let again = self.there.import(old, &strict()).await.unwrap();
        assert!(matches!(again, Imported::AlreadyThere));
        asked("revoked").await;
    }

    async fn reported_as_leaked(&self) {
        let (token, key) = self.key(2).await;
        let reported = [
            super::token(9_998),
            token.clone(),
            token.replace("pylon", "nolyp"),
        ];
        let reports = self.there.report_leaked(&reported).await.unwrap();
        let keys: Vec<_> = reports.iter().map(LeakReport::key_id).collect();
        assert_eq!(keys, [None, Some(&key.id), None]);
        assert_eq!(outcome(&self.there.verify(&token).await), "revoked");
        until(async || outcome(&self.here.verify(&token).await) == "revoked").await;
        assert!(
            self.here
                .get(&key.id)
                .await
                .unwrap()
                .unwrap()
                .revoked_at
                .is_some()
        );
        let again = self.here.report_leaked([&token]).await.unwrap();
        assert!(again[0].is_true_positive());
    }

    async fn held_by_a_context_that_ends_on_both(&self) {
        let (token, key) = self.key(3).await;
        let contexts = [
            self.here.verify(&token).await.unwrap(),
            self.there.verify(&token).await.unwrap(),
        ];
        let ends: Vec<_> = contexts
            .iter()
            .map(|auth| tokio::spawn(auth.revoked()))
            .collect();
        for auth in &contexts {
            assert!(auth.is_active().await.unwrap());
        }
        assert!(ends.iter().all(|end| !end.is_finished()));
        assert!(self.there.revoke(&key.id).await.unwrap());
        assert!(!contexts[1].is_active().await.unwrap());
        for end in ends {
            timeout(PATIENCE, end).await.unwrap().unwrap();
        }
        until(async || !contexts[0].is_active().await.unwrap()).await;
    }

    async fn changed_suspended_and_deleted_by_id(&self) {
        let (token, key) = self.key(4).await;
        let id = key.id;
        let update = KeyUpdate::new().scopes(Scopes::of(["tags:read"]).unwrap());
        let changed = self.here.update(&id, update.if_version(1)).await.unwrap();
        assert_eq!(changed.unwrap().version, 2);
        assert!(self.here.has_scope(&token, "tags:read").await.unwrap());
        assert!(self.here.disable(&id).await.unwrap());
        assert_eq!(outcome(&self.here.verify(&token).await), "disabled");
        self.until_there(&token, "disabled").await;
        assert!(self.there.enable(&id).await.unwrap());
        assert_eq!(outcome(&self.there.verify(&token).await), "good");
        assert!(!self.there.has_scope(&token, "notes:read").await.unwrap());
        assert!(self.there.delete(&id).await.unwrap());
        assert_eq!(outcome(&self.there.verify(&token).await), "unknown");
        assert!(!self.there.delete(&id).await.unwrap());
        assert!(!self.there.revoke(&id).await.unwrap());
        assert!(self.there.get(&id).await.unwrap().is_none());
        until(async || outcome(&self.here.verify(&token).await) == "unknown").await;
        // A key that was deleted may be imported again.
        let old = OldKey::by_digest(hash_of(&token), "user_2").scopes(["notes:read"]);
        let again = self.here.import(old, &strict()).await.unwrap();
        assert!(matches!(again, Imported::Stored(again) if again.id != id));
        assert_eq!(self.here.verify(&token).await.unwrap().user_id(), "user_2");
    }

    async fn revoked_with_all_of_its_user(&self) {
        let (one, _) = self.key(5).await;
        let (other, _) = self.key(6).await;
        let mut listed = Vec::new();
        let mut page = PageRequest::new().limit(2);
        loop {
            let found = self.there.list_for_user(USER, page).await.unwrap();
            listed.extend(found.keys);
            match found.next {
                Some(next) => page = PageRequest::new().limit(2).after(next),
                None => break,
            }
        }
        // One was deleted.
        assert_eq!(listed.len(), 5);
        assert_eq!(self.here.revoke_all_for_user(USER).await.unwrap(), 2);
        for token in [one, other] {
            assert_eq!(outcome(&self.here.verify(&token).await), "revoked");
            self.until_there(&token, "revoked").await;
        }
    }

    async fn noted_as_used(&self) {
        let (_, key) = self.key(7).await;
        // At once through the store, and in the backend when it was written.
        let read = self.here.get(&key.id).await.unwrap().unwrap();
        assert_eq!((read.last_used_at, read.version), (Some(start()), 1));
        self.here.shutdown().await.unwrap();
        let written = self.there.get(&key.id).await.unwrap().unwrap();
        assert_eq!((written.last_used_at, written.version), (Some(start()), 1));
    }

    async fn expired(&self, clocks: &[ManualClock]) {
        let (token, _) = self.key(8).await;
        for clock in clocks {
            clock.set(start() + HOUR - Duration::from_millis(1));
        }
        assert_eq!(outcome(&self.here.verify(&token).await), "good");
        for clock in clocks {
            clock.set(start() + HOUR);
        }
        assert_eq!(outcome(&self.here.verify(&token).await), "expired");
        assert_eq!(outcome(&self.there.verify(&token).await), "expired");
        assert!(self.there.revoke_token(&token).await.unwrap());
        assert_eq!(outcome(&self.there.verify(&token).await), "revoked");
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .expect("it didn't come to be so");
}
