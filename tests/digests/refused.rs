//! Keys that can't be taken over are listed, without anything secret, and the others go on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_api_key::{KeyId, MemoryBackend, Metadata, OldKey, PepperId};

use super::{old, store_on, strict};
use crate::support::USER;

/// A key, what it is called in the report, and what is said of it.
type Case = (OldKey, String, String);

fn digest(hash: &str) -> OldKey {
    OldKey::by_digest(hash, USER).scopes(["notes:read"])
}

fn hmac(id: &str, hash: &str, pepper: &str) -> OldKey {
    OldKey::by_hmac(id, PepperId::new(pepper).unwrap(), hash, USER).scopes(["notes:read"])
}

const NOT_HEX: &str = "a secret's hash is 64 hex digits, or 128 of SHA-512";
const METADATA: &str = "`metadata` isn't JSON that can be read";
const FORGES: &str =
    "has a character that controls lines or the direction of text, and could forge a log line";

fn of_digests(hash: &str) -> Vec<Case> {
    let time = |field: &str| format!("`{field}` is not between 1970 and 9999");
    let early = UNIX_EPOCH - Duration::from_millis(1);
    let late = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    let far: SystemTime = late + Duration::from_secs(1 << 40);
    let refused = [
        (digest(&hash[1..]), NOT_HEX.to_owned()),
        (digest(&hash.replace('a', "g")), NOT_HEX.to_owned()),
        (digest(&old().raw_key), NOT_HEX.to_owned()),
        (digest(&hash[..54]), NOT_HEX.to_owned()),
        (digest(hash).name("CI\nadmin"), format!("`name` {FORGES}")),
        (
            digest(hash).metadata(Metadata::from_stored("\0").unwrap()),
            METADATA.to_owned(),
        ),
        (OldKey::by_digest(hash, USER), "it has no scopes".to_owned()),
        (digest(hash).created_at(early), time("created_at")),
        (digest(hash).created_at(far), time("created_at")),
        (digest(hash).expires_at(late), time("expires_at")),
        (digest(hash).last_used_at(late), time("last_used_at")),
        (digest(hash).revoked_at(early), time("revoked_at")),
        (digest(hash).disabled_at(early), time("disabled_at")),
    ];
    let named = |(at, (key, reason))| (key, format!("number {}, of {USER}", at + 1), reason);
    refused.into_iter().enumerate().map(named).collect()
}

#[tokio::test]
async fn what_can_t_be_taken_over_is_listed_and_the_others_go_on() {
    let (store, _) = store_on(MemoryBackend::new()).await;
    let (hash, id) = (old().key_hash, KeyId::from_bytes([1; 24]).to_string());
    let mut cases = of_digests(&hash);
    let odd = OldKey::by_digest(&hash, "u\n\u{202e}");
    let number = cases.len() + 1;
    cases.push((
        odd,
        format!("number {number}, of u\\n\\u{{202e}}"),
        format!("`user_id` {FORGES}"),
    ));
    let nobody = OldKey::by_digest(&hash, "");
    let number = cases.len() + 1;
    cases.push((
        nobody,
        format!("number {number}, of "),
        "`user_id` is empty".to_owned(),
    ));
    let not_id = "a key id is `key_` and 32 characters of [A-Za-z0-9_-]";
    let token = format!("pk.{id}.{}", "s".repeat(43));
    for (key, called, reason) in [
        (hmac(&token, &hash, "v1"), "pk.key_AQEBAQEBA", not_id),
        (hmac("\u{202e}key", &hash, "v1"), "\\u{202e}key", not_id),
        (hmac(&id, &hash[1..], "v1"), &*id, NOT_HEX),
        (
            hmac(&id, &hash, "v0"),
            &*id,
            "this node doesn't know the pepper v0",
        ),
    ] {
        cases.push((key, called.to_owned(), reason.to_owned()));
    }

    let keys: Vec<_> = cases.iter().map(|(key, ..)| key.clone()).collect();
    let shown = format!("{keys:?}");
    let all = keys
        .into_iter()
        .chain([digest(&hash), hmac(&id, &hash, "v1")]);
    let report = store.import_all(all, &strict()).await.unwrap();
    assert_eq!((report.imported, report.already_there), (2, 0));
    let refused = report.refused.iter();
    let refused = refused.map(|row| (row.id.clone(), row.reason.to_string()));
    let expected = cases
        .into_iter()
        .map(|(_, called, reason)| (called, reason));
    assert_eq!(refused.collect::<Vec<_>>(), expected.collect::<Vec<_>>());

    // Nothing of a secret or a digest, and no line of a log that wasn't meant.
    let text = format!("{report} {report:?} {shown}");
    let secret = old().raw_key.split_off(6);
    for hidden in [
        &hash[..8],
        &hash[40..48],
        &secret[..8],
        "ssss",
        "\u{202e}",
        "\nadmin",
    ] {
        assert!(!text.contains(hidden), "{hidden:?}");
    }
}
