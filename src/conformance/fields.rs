//! What is stored comes back as it was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    bench::{Bench, same},
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::ApiKeyBackend,
    key::{ApiKey, Metadata, NewApiKey},
    scope::{Scope, Scopes},
    token::{PepperId, SecretHash},
};

/// Stores `key`, and its content as an update of another one, and reads both in every way.
async fn survives<B: ApiKeyBackend>(bench: &Bench<B>, key: ApiKey, what: &str) -> Outcome {
    bench.store(&key).await?;
    is_read(bench, &key, &format!("{what}, inserted")).await?;
    let updated = ApiKey {
        id: bench.id(),
        version: 2,
        ..key
    };
    // Nothing of it is there before, so that a field which isn't written shows.
    let before = ApiKey {
        id: updated.id,
        created_at: updated.created_at,
        predecessor: updated.predecessor,
        made_by: updated.made_by,
        revoked_at: None,
        revocation_reason: None,
        ..bench.key(&updated.user_id)?
    };
    bench.store(&before).await?;
    ensure!(
        bench.here().update(&updated, 1).await?,
        "`update` didn't find the version that is stored"
    );
    is_read(bench, &updated, &format!("{what}, updated")).await
}

async fn is_read<B: ApiKeyBackend>(bench: &Bench<B>, key: &ApiKey, when: &str) -> Outcome {
    bench.holds(key, when).await?;
    if bench.settings.lists {
        let listed = bench.listed(bench.there(), &key.user_id).await?;
        match listed.iter().find(|listed| listed.id == key.id) {
            Some(listed) => same(key, listed, &format!("{when} and listed"))?,
            None => return Err(Broken(format!("{when}, the key isn't in its user's list"))),
        }
    }
    Ok(())
}

pub(super) async fn scopes<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("scopes");
    let longest = format!("{}:*", "l".repeat(Scope::MAX_LEN - 2));
    let many: Vec<_> = (0..Scopes::MAX_COUNT)
        .map(|at| format!("scope:{at}"))
        .collect();
    let odd = Scopes::of(["*", "a:*", "!#$%&'()+-./:;<=>?@[]^_`{|}~", "Case", "case"])?;
    for (scopes, what) in [
        (Scopes::none(), "a key without scopes"),
        (Scopes::unrestricted(), "an unrestricted key"),
        (Scopes::of(["*"])?, "a key with the scope `*`"),
        (Scopes::of([longest])?, "a key with the longest scope"),
        (Scopes::of(many)?, "a key with 256 scopes"),
        (odd, "a key with odd scopes"),
    ] {
        let key = ApiKey {
            scopes,
            ..bench.key(&user)?
        };
        survives(bench, key, what).await?;
    }
    Ok(())
}

/// Texts that a database, or what speaks to it, may take for something else.
const ODD_TEXTS: &[&str] = &[
    "'; DROP TABLE keys; --",
    "\"quoted\" `name` \\ backslash \\n $1 ?1 :x @x",
    "100%_[a-z]*",
    "NULL",
    " spaces around ",
    "äöü ß é e\u{301} ﬁ 漢字 🔑",
    "{}[],;=&|<>",
];

pub(super) async fn texts<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let longest = "é".repeat(NewApiKey::MAX_TEXT_LEN / 2);
    let names = ODD_TEXTS
        .iter()
        .copied()
        .chain([longest.as_str(), "", "0"])
        .map(|name| Some(name.to_owned()));
    for name in names.chain([None]) {
        let what = format!("a key with the name {name:?}");
        let user = bench.user(
            name.as_deref()
                .filter(|name| name.len() < 200)
                .unwrap_or("x"),
        );
        let key = ApiKey {
            name,
            ..bench.key(&user)?
        };
        survives(bench, key, &what).await?;
    }
    // To the byte: it is text, and not what a database makes of JSON.
    let longest = format!("\"{}\"", "é".repeat(Metadata::MAX_LEN / 2 - 1));
    for metadata in [
        longest.as_str(),
        "\r\n\t {\"b\": 1.50e+00, \"a\" :[null ],\"a\":2}\n",
        "\"\\u0000\\ud83d\\udd11 🔑 ' % \u{7f}\u{85}\u{9f}\u{2028}\"",
    ] {
        let what = format!("a key with the metadata {metadata:?}");
        let mut key = bench.key(&bench.user("metadata"))?;
        key.metadata = Some(Metadata::from_json(metadata)?);
        survives(bench, key, &what).await?;
    }
    let mut key = bench.key(&bench.user("prefix"))?;
    key.display_prefix = "a'%\\\"_~{}x:?$1@!".parse()?;
    survives(bench, key, "a key with an odd display prefix").await
}

pub(super) async fn times<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let end_of_9999 = Duration::from_millis(253_402_300_799_999);
    let after_1970 = |since| UNIX_EPOCH + since;
    let user = bench.user("times");
    for millis in [0, 1, 999, 4_294_967_296, 1_800_000_000_123] {
        time_survives(bench, &user, after_1970(Duration::from_millis(millis))).await?;
    }
    time_survives(bench, &user, after_1970(end_of_9999)).await
}

async fn time_survives<B: ApiKeyBackend>(
    bench: &Bench<B>,
    user: &str,
    time: SystemTime,
) -> Outcome {
    let what = format!(
        "a key with the times {:?}",
        time.duration_since(UNIX_EPOCH)?
    );
    let each = ApiKey {
        created_at: time,
        expires_at: Some(time),
        last_used_at: Some(time),
        revoked_at: Some(time),
        disabled_at: Some(time),
        ..bench.key(user)?
    };
    let none = ApiKey {
        id: bench.id(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        disabled_at: None,
        ..each.clone()
    };
    survives(
        bench,
        none,
        &format!("{what}, and none where there need not be one"),
    )
    .await?;
    survives(bench, each, &what).await
}

pub(super) async fn hashes_and_versions<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("hashes");
    for (pepper, hex) in [("v", "00"), ("A-z_0.9-fifteen", "ff"), ("0", "0a")] {
        let mut key = bench.key(&user)?;
        key.secret_hash = SecretHash::from_hex(PepperId::new(pepper)?, &hex.repeat(32))?;
        survives(bench, key, &format!("a key with the pepper {pepper}")).await?;
    }
    for version in [1, 2, 1 << 33] {
        let mut key = bench.key(&user)?;
        key.version = version;
        bench.store(&key).await?;
        bench
            .holds(&key, &format!("with version {version}"))
            .await?;
        let next = bench.next(&key)?;
        ensure!(
            bench.there().update(&next, version).await?,
            "`update` didn't find version {version}"
        );
        bench.holds(&next, "after that").await?;
    }
    Ok(())
}

/// Users that a collation, a pattern or a column that is too short would take for one another.
pub(super) async fn users<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let run = bench.user("users");
    let room = NewApiKey::MAX_TEXT_LEN - run.len();
    let mut users: Vec<String> = [
        "user",
        "User",
        "USER",
        "usér",
        "use\u{301}r",
        "use%",
        "use_",
        "us\\er",
        "us'er",
    ]
    .into_iter()
    .chain(ODD_TEXTS.iter().copied())
    .map(|name| format!("{run}{name}"))
    .collect();
    users.extend(["a", "b"].map(|end| format!("{run}{}{end}", "x".repeat(room - 1))));
    users.extend([format!("{run} "), format!(" {run}"), run]);
    let mut keys = Vec::new();
    for user in &users {
        keys.push(bench.stored(user).await?);
    }
    for (user, key) in users.iter().zip(&keys) {
        for node in 0..2 {
            let listed = bench.listed(bench.node(node), user).await?;
            ensure!(
                listed.iter().all(|listed| listed.user_id == *user),
                "the list of {user:?} has a key of {:?}",
                listed
                    .iter()
                    .map(|key| &key.user_id)
                    .find(|other| *other != user)
            );
            ensure!(
                listed.len() == 1,
                "the list of {user:?} has {} keys, and 1 was stored",
                listed.len()
            );
            same(key, &listed[0], &format!("a key of {user:?}, listed"))?;
        }
        bench.holds(key, &format!("a key of {user:?}")).await?;
    }
    Ok(())
}
