//! Every event that has a name, in the log.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::timeout;
use tower_api_key::{
    ApiKeyBackend, ApiKeyStore, ApiKeyToken, BackendError, Event, EventRecorder, HandoffToken,
    Imported, KeyResolver, KeySource, KeyUpdate, ManualClock, MemoryBackend, MissingScopes,
    NewApiKey, OldKey, OldPatterns, OldScopes, OldWildcard, Pepper, PepperId, Peppers,
    RevocationReason, Scopes, forward_to_backend,
};

use super::{
    PATIENCE, SECOND,
    logged::{Lines, log},
    new_key,
};
use crate::support::{USER, id_of, start, unknown_token};

/// A line as `level event fields`, without the sentence before the event.
fn short(line: &str) -> String {
    let (level, rest) = line.trim_start().split_once(' ').unwrap();
    assert!(rest.starts_with("tower_api_key: "), "{line}");
    let (_, told) = rest.split_once(" event=").unwrap();
    format!("{level} {told}")
}

/// The names that [`Event::name`] lists.
fn documented_names() -> BTreeSet<String> {
    let rows = include_str!("../../src/events/event.rs").lines();
    let name = |row: &str| {
        let (name, _) = row.trim().strip_prefix("/// | `")?.split_once('`')?;
        Some(name.to_owned())
    };
    rows.filter_map(name).collect()
}

/// What was logged, step by step.
struct Told {
    log: Lines,
    names: BTreeSet<String>,
}

impl Told {
    fn is(&mut self, expected: &[String]) {
        let lines: Vec<_> = self.log.take().iter().map(|line| short(line)).collect();
        assert_eq!(lines, expected);
        let name = |line: &String| line.split('"').nth(1).unwrap().to_owned();
        self.names.extend(lines.iter().map(name));
    }
}

#[tokio::test]
async fn every_event_that_has_a_name_is_logged_under_it_with_all_of_its_fields() {
    let (log, _guard) = log();
    let mut told = Told {
        log,
        names: BTreeSet::new(),
    };
    let pepper = |id: &str| Pepper::new(id, format!("the pepper of these tests, {id}")).unwrap();
    let backend = MemoryBackend::new();
    let clock = ManualClock::new(start());
    let builder = |peppers| {
        let builder = ApiKeyStore::builder(backend.clone()).peppers(peppers);
        builder.clock(clock.clone())
    };
    let before = builder(Peppers::new(pepper("v1"))).build().await.unwrap();
    let peppers = Peppers::new(pepper("v2")).with_retired(pepper("v1"));
    let builder = builder(peppers.unwrap()).rewrap_retired_peppers();
    let store = builder.build().await.unwrap();

    lives(&store, &clock, &mut told).await;
    rotations(&store, &mut told).await;
    grants(&store, &mut told).await;

    let (token, id) = new_key(&before).await;
    let created = format!("INFO \"key.created\" key_id={id} user_id=\"{USER}\"");
    told.is(&[created]);
    let mut events = store.events();
    store.verify(&token).await.unwrap();
    timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    let of_key = format!("key_id={id} user_id=\"{USER}\"");
    told.is(&[format!("INFO \"pepper.rewrapped\" {of_key} from=v1 to=v2")]);

    missed(&mut told).await;
    warned(&mut told).await;
    assert_eq!(told.names, documented_names());
    assert_eq!(told.names.len(), 20);
}

/// A backend that has found something when it was opened.
async fn warned(told: &mut Told) {
    #[derive(Default)]
    struct Exposed(MemoryBackend);
    impl KeySource for Exposed {
        forward_to_backend!(self => self.0; all of source);
    }
    impl ApiKeyBackend for Exposed {
        async fn warnings(&self) -> Result<Vec<String>, BackendError> {
            Ok(vec!["anon may read".to_owned()])
        }

        forward_to_backend!(self => self.0; all of backend but warnings);
    }
    let builder = super::builder(Exposed::default());
    builder.build().await.unwrap();
    told.is(&["WARN \"backend.warning\" reason=\"anon may read\"".to_owned()]);
}

async fn lives(store: &ApiKeyStore, clock: &ManualClock, told: &mut Told) {
    let (token, id) = new_key(store).await;
    let of_key = format!("key_id={id} user_id=\"{USER}\"");
    told.is(&[format!("INFO \"key.created\" {of_key}")]);
    let caller = store.verify(&token).await.unwrap();
    let new = NewApiKey::for_user(USER, Scopes::none()).expires_in(SECOND);
    let made = store.create_as(&caller, new).await.unwrap().key().id;
    told.is(&[format!(
        "INFO \"key.created\" key_id={made} user_id=\"{USER}\" made_by={id}"
    )]);

    let renamed = store.update(&id, KeyUpdate::new().name("CI")).await;
    assert!(renamed.unwrap().is_some());
    told.is(&[format!("INFO \"key.updated\" {of_key}")]);
    assert!(store.disable(&id).await.unwrap());
    told.is(&[format!("INFO \"key.disabled\" {of_key}")]);
    store.verify(&token).await.unwrap_err();
    told.is(&[format!(
        "DEBUG \"key.rejected\" key_id={id} reason=\"disabled\" cause=\"the key is disabled\""
    )]);
    assert!(store.enable(&id).await.unwrap());
    told.is(&[format!("INFO \"key.enabled\" {of_key}")]);
    let reported = store.report_leaked([&token]).await.unwrap();
    assert!(reported[0].is_true_positive());
    told.is(&[
        format!("WARN \"key.leak_reported\" key_id={id}"),
        format!("INFO \"key.revoked\" {of_key} reason=\"leaked\""),
    ]);
    assert!(store.delete(&id).await.unwrap());
    told.is(&[format!("INFO \"key.deleted\" {of_key}")]);

    // Without a reason, and that of whoever revokes.
    let (_, id) = new_key(store).await;
    let (_, other) = new_key(store).await;
    told.log.take();
    assert!(store.revoke(&id).await.unwrap());
    let unpaid = RevocationReason::Other("unpaid".to_owned());
    assert!(store.revoke_because(&other, unpaid).await.unwrap());
    told.is(&[
        format!("INFO \"key.revoked\" key_id={id} user_id=\"{USER}\""),
        format!("INFO \"key.revoked\" key_id={other} user_id=\"{USER}\" reason=\"unpaid\""),
    ]);
    for _ in 0..101 {
        let new = NewApiKey::for_user("many", Scopes::none());
        drop(store.create(new).await.unwrap());
    }
    told.log.take();
    let left = RevocationReason::OwnerLeft;
    let ended = store.revoke_all_for_user_because("many", left).await;
    assert_eq!(ended.unwrap(), 101);
    told.is(&[
        "INFO \"keys.revoked\" user_id=\"many\" reason=\"owner_left\" records=101".to_owned(),
    ]);

    clock.advance(2 * SECOND);
    assert_eq!(store.purge(start() + 2 * SECOND).await.unwrap(), 104);
    told.is(&["INFO \"records.purged\" records=104".to_owned()]);

    let meaning = OldScopes {
        missing: MissingScopes::Refuse,
        wildcard: OldWildcard::Refuse,
        patterns: OldPatterns::Refuse,
    };
    let id = id_of(&unknown_token());
    let pepper = PepperId::new("v1").unwrap();
    let old = OldKey::by_hmac(id.to_string(), pepper, "ab".repeat(32), USER);
    let imported = store.import(old.scopes(["notes:read"]), &meaning).await;
    assert!(matches!(imported, Ok(Imported::Stored(_))));
    told.is(&[format!(
        "INFO \"key.imported\" key_id={id} user_id=\"{USER}\""
    )]);
}

async fn rotations(store: &ApiKeyStore, told: &mut Told) {
    let (_, id) = new_key(store).await;
    told.log.take();
    let of_key = format!("key_id={id} user_id=\"{USER}\"");
    let successor = store.rotate(&id, 60 * SECOND).await.unwrap().key().id;
    told.is(&[format!(
        "INFO \"key.rotated\" {of_key} successor={successor}"
    )]);
    store.cancel_rotation(&id).await.unwrap();
    told.is(&[
        format!("INFO \"key.revoked\" key_id={successor} user_id=\"{USER}\" reason=\"superseded\""),
        format!("INFO \"key.rotation_cancelled\" {of_key}"),
    ]);
    let successor = store.rotate(&id, Duration::ZERO).await.unwrap().key().id;
    told.is(&[
        format!("INFO \"key.rotated\" {of_key} successor={successor}"),
        format!("INFO \"key.revoked\" {of_key} reason=\"rotated\""),
    ]);
}

async fn grants(store: &ApiKeyStore, told: &mut Told) {
    let (token, maker) = new_key(store).await;
    told.log.take();
    let caller = store.verify(&token).await.unwrap();
    let new = || NewApiKey::for_user(USER, Scopes::none());
    let handed_off = store.hand_off_as(&caller, new(), 60 * SECOND).await;
    let handed_off = handed_off.unwrap();
    let of_grant = |id| format!("grant_id={id} user_id=\"{USER}\"");
    let grant = of_grant(handed_off.grant().id);
    told.is(&[format!("INFO \"grant.made\" {grant} made_by={maker}")]);
    let claimed = store.claim(handed_off.token()).await.unwrap().key().id;
    told.is(&[format!("INFO \"grant.claimed\" key_id={claimed} {grant}")]);
    store.claim(handed_off.token()).await.unwrap_err();
    let unknown = HandoffToken::from_bytes([7; 16]);
    store.claim(&unknown).await.unwrap_err();
    told.is(&[
        format!("WARN \"grant.claim_refused\" {grant} reason=\"claimed\""),
        "DEBUG \"grant.claim_refused\" reason=\"unknown\"".to_owned(),
    ]);

    let one = store.hand_off(new(), 60 * SECOND).await.unwrap().grant().id;
    let _other = store.hand_off(new(), 60 * SECOND).await.unwrap();
    told.log.take();
    assert!(store.revoke_grant(&one).await.unwrap());
    told.is(&[format!("INFO \"grant.revoked\" grant_id={one}")]);
    store.revoke_all_for_user(USER).await.unwrap();
    let lines = told.log.take();
    let first = short(&lines[0]);
    assert_eq!(first, format!("INFO \"grant.revoked\" user_id=\"{USER}\""));
}

/// A recorder that was too slow: it gets no turn while events come.
async fn missed(told: &mut Told) {
    struct Slow;
    impl EventRecorder for Slow {
        async fn record(&self, _: &[Event]) -> Result<(), BackendError> {
            Ok(())
        }
    }
    let builder = super::builder(MemoryBackend::new()).event_buffer(2);
    let store = builder.record_events(Slow).build().await.unwrap();
    let unknown: ApiKeyToken = unknown_token().parse().unwrap();
    assert!(!store.is_active(unknown.expose()).await.unwrap());
    for _ in 0..7 {
        assert!(store.resolve_now(&unknown).unwrap().is_err());
    }
    let id = unknown.key_id().unwrap();
    let rejected = format!(
        "DEBUG \"key.rejected\" key_id={id} reason=\"unknown\" cause=\"there is no such key\""
    );
    told.is(&vec![rejected; 7]);
    store.shutdown().await.unwrap();
    let missed = "WARN \"events.missed\" missed=events.missed inactive=0 changes=0 repeatable=0 rejections=5";
    told.is(&[missed.to_owned()]);
}
