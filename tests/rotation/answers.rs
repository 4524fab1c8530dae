//! What a rotation makes of a key, and what is answered where there can be none.

use std::time::{Duration, UNIX_EPOCH};

use tower_api_key::{
    ApiKeyBackend, KeyStatus, KeyUpdate, ManualClock, MemoryBackend, Metadata, RevocationReason,
    RotationError, Scopes,
};

use super::databases::{clock, node_on};
use crate::{
    DAY, HOUR, SECOND, key, new_key, problem, record,
    support::{USER, id_of, start, unknown_token},
    token_of, verified,
};

async fn node() -> (tower_api_key::ApiKeyStore, ManualClock) {
    let clock = clock();
    (node_on(MemoryBackend::new(), &clock).await, clock)
}

#[tokio::test]
async fn a_successor_is_the_same_key_with_another_token() {
    let (store, clock) = node().await;
    let metadata = Metadata::from_json(r#"{"team":"build"}"#).unwrap();
    let new = new_key().name("CI").expires_in(30 * DAY);
    let new = new.metadata(metadata.clone());
    let old = store.create(new).await.unwrap();
    clock.advance(HOUR);
    let issued = store.rotate(&old.key().id, DAY).await.unwrap();
    let (old, new) = (record(&store, &old.key().id).await, issued.key());
    assert_eq!(
        format!("{:?}", record(&store, &new.id).await),
        format!("{new:?}")
    );
    assert_eq!((&*new.user_id, new.name.as_deref()), (USER, Some("CI")));
    assert_eq!(new.scopes, old.scopes);
    assert_eq!(new.metadata, Some(metadata));
    assert_eq!(
        (new.expires_at, new.retires_at),
        (Some(start() + 30 * DAY), None)
    );
    assert_eq!((new.created_at, new.version), (start() + HOUR, 1));
    assert_eq!((new.predecessor, new.successor), (Some(old.id), None));
    assert_eq!(new.display_prefix, issued.token().display_prefix());
    assert_eq!(
        (new.last_used_at, new.revoked_at, new.disabled_at),
        (None, None, None)
    );
    assert_eq!(issued.token().key_id(), Some(new.id));
    assert!(new.id != old.id);

    assert_eq!((old.predecessor, old.successor), (None, Some(new.id)));
    assert_eq!(old.retires_at, Some(start() + HOUR + DAY));
    assert_eq!(old.expires_at, Some(start() + 30 * DAY));
    assert_eq!((old.revoked_at, old.version), (None, 2));
    assert_eq!(old.status(start() + HOUR), KeyStatus::Active);
}

#[tokio::test]
async fn both_keys_work_until_the_overlap_ends_and_then_one_does() {
    let (store, clock) = node().await;
    let (old, id) = key(&store).await;
    assert_eq!(verified(&store, &old).await, "good");
    let new = token_of(&store.rotate(&id, HOUR).await.unwrap());
    for (passed, expected) in [(0, "good"), (3_599, "good"), (1, "expired"), (1, "expired")] {
        clock.advance(passed * SECOND);
        assert_eq!(verified(&store, &old).await, expected);
        assert_eq!(verified(&store, &new).await, "good");
    }
}

#[tokio::test]
async fn an_overlap_of_zero_revokes_the_old_key_in_the_same_write() {
    for overlap in [Duration::ZERO, Duration::from_nanos(999_999)] {
        let (store, clock) = node().await;
        let (old, id) = key(&store).await;
        assert_eq!(verified(&store, &old).await, "good");
        let new = token_of(&store.rotate(&id, overlap).await.unwrap());
        // Also by a clock that is behind.
        clock.set(UNIX_EPOCH);
        assert_eq!(verified(&store, &old).await, "revoked");
        assert_eq!(verified(&store, &new).await, "good");
        let old = record(&store, &id).await;
        assert_eq!(old.revocation_reason, Some(RevocationReason::Rotated));
        assert_eq!(
            (old.revoked_at, old.retires_at),
            (Some(start()), Some(start()))
        );
        assert_eq!((old.successor, old.version), (Some(id_of(&new)), 2));
        assert!(
            !store.finish_rotation(&id).await.unwrap(),
            "it has ended already"
        );
    }
}

#[tokio::test]
async fn the_overlap_never_ends_after_the_old_key() {
    let (store, clock) = node().await;
    let old = store.create(new_key().expires_in(HOUR)).await.unwrap();
    let new = store.rotate(&old.key().id, DAY).await.unwrap();
    let stored = record(&store, &old.key().id).await;
    assert_eq!(stored.retires_at, Some(start() + HOUR));
    assert_eq!(new.key().expires_at, Some(start() + HOUR));
    clock.advance(HOUR);
    assert_eq!(verified(&store, &token_of(&old)).await, "expired");
    assert_eq!(verified(&store, &token_of(&new)).await, "expired");
}

#[tokio::test]
async fn an_overlap_beyond_all_clocks_ends_with_them() {
    let (store, clock) = node().await;
    let last = UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    for overlap in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        DAY * 365 * 20_000,
    ] {
        let (old, id) = key(&store).await;
        let new = token_of(&store.rotate(&id, overlap).await.unwrap());
        assert_eq!(record(&store, &id).await.retires_at, Some(last));
        for token in [&old, &new] {
            assert_eq!(verified(&store, token).await, "good");
        }
    }
    // Made when the clock is at its end, there is no overlap left.
    clock.set(last + DAY);
    let issued = store.create(new_key()).await.unwrap();
    let _ = store.rotate(&issued.key().id, DAY).await.unwrap();
    assert_eq!(verified(&store, &token_of(&issued)).await, "revoked");
}

#[tokio::test]
async fn keys_that_do_not_work_are_not_rotated_and_say_why() {
    let (store, _) = node().await;
    let rotated = |id| {
        let store = store.clone();
        async move { problem(store.rotate(&id, HOUR).await) }
    };
    let unknown = id_of(&unknown_token());
    assert_eq!(rotated(unknown).await, RotationError::Unknown);
    let (_, revoked) = key(&store).await;
    assert!(store.revoke(&revoked).await.unwrap());
    assert_eq!(rotated(revoked).await, RotationError::Revoked);
    let (_, disabled) = key(&store).await;
    assert!(store.disable(&disabled).await.unwrap());
    assert_eq!(rotated(disabled).await, RotationError::Disabled);
    let expired = store.create(new_key().expires_at(start())).await.unwrap();
    assert_eq!(rotated(expired.key().id).await, RotationError::Expired);
    let (_, twice) = key(&store).await;
    let _ = store.rotate(&twice, HOUR).await.unwrap();
    let before = record(&store, &twice).await;
    assert_eq!(rotated(twice).await, RotationError::RotatedAlready);
    let (_, ended) = key(&store).await;
    let _ = store.rotate(&ended, Duration::ZERO).await.unwrap();
    assert_eq!(rotated(ended).await, RotationError::RotatedAlready);

    for (id, version) in [
        (revoked, 2),
        (disabled, 2),
        (expired.key().id, 1),
        (ended, 2),
    ] {
        assert_eq!(record(&store, &id).await.version, version);
    }
    assert_eq!(
        format!("{:?}", record(&store, &twice).await),
        format!("{before:?}")
    );
    store.enable(&disabled).await.unwrap();
    assert!(store.rotate(&disabled, HOUR).await.is_ok());

    let error = store.rotate(&twice, HOUR).await.unwrap_err();
    let (shown, debug) = (error.to_string(), format!("{error:?}"));
    assert!(shown.contains(&twice.to_string()), "{shown}");
    assert!(debug.ends_with("it has a successor already"), "{debug}");
}

#[tokio::test]
async fn a_successor_can_be_rotated_while_the_overlap_before_runs() {
    let (store, clock) = node().await;
    let (first, first_id) = key(&store).await;
    let second = token_of(&store.rotate(&first_id, DAY).await.unwrap());
    let second_id = id_of(&second);
    clock.advance(HOUR);
    let third = token_of(&store.rotate(&second_id, HOUR).await.unwrap());
    for token in [&first, &second, &third] {
        assert_eq!(verified(&store, token).await, "good");
    }
    let middle = record(&store, &second_id).await;
    assert_eq!(middle.predecessor, Some(first_id));
    assert_eq!(middle.successor, Some(id_of(&third)));
    clock.advance(HOUR);
    assert_eq!(verified(&store, &second).await, "expired");
    assert_eq!(verified(&store, &first).await, "good");
    clock.advance(DAY);
    assert_eq!(verified(&store, &first).await, "expired");
    assert_eq!(verified(&store, &third).await, "good");
}

#[tokio::test]
async fn an_update_of_the_expiry_ends_an_overlap_earlier_and_never_later() {
    let (store, clock) = node().await;
    let (old, id) = key(&store).await;
    let new = token_of(&store.rotate(&id, DAY).await.unwrap());
    let ends = |update| {
        let store = store.clone();
        async move { store.update(&id, update).await.unwrap().unwrap().ends_at() }
    };
    let overlap = Some(start() + DAY);
    assert_eq!(ends(KeyUpdate::new().expires_in(2 * DAY)).await, overlap);
    assert_eq!(ends(KeyUpdate::new().never_expires()).await, overlap);
    let earlier = ends(KeyUpdate::new().expires_in(HOUR)).await;
    assert_eq!(earlier, Some(start() + HOUR));
    let rotation = store.rotation(&id).await.unwrap().unwrap();
    assert_eq!(rotation.overlap_ends_at(), earlier);
    assert_eq!(
        rotation.successor.unwrap().expires_at,
        None,
        "its own stays"
    );
    clock.advance(HOUR);
    assert_eq!(verified(&store, &old).await, "expired");
    ends(KeyUpdate::new().never_expires()).await;
    assert_eq!(
        verified(&store, &old).await,
        "good",
        "until the overlap ends"
    );
    clock.advance(DAY);
    ends(KeyUpdate::new().never_expires()).await;
    assert_eq!(verified(&store, &old).await, "expired");
    assert_eq!(verified(&store, &new).await, "good");
}

#[tokio::test]
async fn what_becomes_of_one_of_the_two_does_not_end_the_other() {
    let (store, _) = node().await;
    for way in 0..3 {
        let (old, id) = key(&store).await;
        let new = token_of(&store.rotate(&id, DAY).await.unwrap());
        let (ended, other) = if way == 0 { (&new, &old) } else { (&old, &new) };
        match way {
            2 => assert!(store.disable(&id_of(ended)).await.unwrap()),
            _ => assert!(store.revoke(&id_of(ended)).await.unwrap()),
        }
        assert_ne!(verified(&store, ended).await, "good");
        assert_eq!(verified(&store, other).await, "good");
    }
}

#[tokio::test]
async fn the_status_of_a_rotation_shows_by_either_id_whether_the_old_key_is_still_in_use() {
    let (store, clock) = node().await;
    let (old, id) = key(&store).await;
    assert!(
        store.rotation(&id).await.unwrap().is_none(),
        "it isn't rotated"
    );
    let unknown = id_of(&unknown_token());
    assert!(store.rotation(&unknown).await.unwrap().is_none());
    let new = token_of(&store.rotate(&id, DAY).await.unwrap());
    let shown = |by| {
        let store = store.clone();
        async move {
            let rotation = store.rotation(&by).await.unwrap().unwrap();
            let successor = rotation.successor.as_ref().unwrap();
            assert_eq!(
                (rotation.old.id, rotation.overlap_ends_at()),
                (id, Some(start() + DAY))
            );
            assert_eq!(successor.predecessor, Some(id));
            (rotation.old.last_used_at, successor.last_used_at)
        }
    };
    for by in [id, id_of(&new)] {
        assert_eq!(shown(by).await, (None, None));
    }
    assert_eq!(verified(&store, &old).await, "good");
    assert_eq!(shown(id).await, (Some(start()), None));
    clock.advance(HOUR);
    assert_eq!(verified(&store, &new).await, "good");
    // Nothing of it is written yet.
    for by in [id, id_of(&new)] {
        assert_eq!(shown(by).await, (Some(start()), Some(start() + HOUR)));
    }

    // Of a chain, it is the one where the key is replaced.
    let third = store.rotate(&id_of(&new), DAY).await.unwrap();
    for by in [id_of(&new), third.key().id] {
        let rotation = store.rotation(&by).await.unwrap().unwrap();
        assert_eq!(rotation.old.id, id_of(&new));
        assert_eq!(rotation.successor.unwrap().id, third.key().id);
    }
    assert!(store.finish_rotation(&id).await.unwrap());
    let rotation = store.rotation(&id).await.unwrap().unwrap();
    assert_eq!(
        rotation.overlap_ends_at(),
        Some(start() + HOUR),
        "it has ended"
    );
    assert!(store.delete(&id_of(&new)).await.unwrap());
    assert!(
        store
            .rotation(&id)
            .await
            .unwrap()
            .unwrap()
            .successor
            .is_none()
    );
    assert!(store.rotation(&third.key().id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_rotation_of_what_is_unrestricted_or_may_nothing_keeps_it() {
    let backend = MemoryBackend::new();
    let store = node_on(backend.clone(), &clock()).await;
    for scopes in [Scopes::unrestricted(), Scopes::none()] {
        let maker = store.create(new_key()).await.unwrap();
        let new = tower_api_key::NewApiKey::for_user(USER, scopes.clone());
        let mut old = store.create(new).await.unwrap().into_parts().1;
        // Made by another key, as a record says.
        old.made_by = Some(maker.key().id);
        assert!(store.delete(&old.id).await.unwrap());
        assert!(backend.insert(&old).await.unwrap());
        let issued = store.rotate(&old.id, HOUR).await.unwrap();
        assert_eq!(issued.key().scopes, scopes);
        assert_eq!(issued.key().made_by, Some(maker.key().id));
    }
}
