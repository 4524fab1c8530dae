//! Keys that are found by the digest of their token, and not by their id.

use std::fmt::Write;

use super::{
    bench::{Bench, at, same, unrevoked},
    follow::Follower,
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, Change, Touch},
    key::ApiKey,
    token::{KeyId, SecretHash},
};

/// Kept as others are, or refused by `insert` as unsupported.
pub(super) async fn are_found<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("digest");
    let mut key = with_digest(bench, unrevoked(bench.key(&user)?))?;
    let mut followers = Vec::new();
    for node in 0..2 {
        followers.extend(Follower::subscribe(bench.node(node)).await?);
    }
    match bench.here().insert(&key).await {
        Err(error) if error.is_unsupported() => return Ok(()),
        inserted => ensure!(inserted?, "`insert` of a new digest says that it is taken"),
    }
    told(&mut followers, &key, "an insertion").await?;
    holds(bench, &key, "after `insert`").await?;

    // Neither a digest nor an id is given twice.
    let mut another = bench.key(&user)?;
    another.secret_hash = key.secret_hash;
    let mut same_id = with_digest(bench, bench.key(&user)?)?;
    same_id.id = key.id;
    let mut native = bench.key(&user)?;
    native.id = key.id;
    // Nor both to two keys: what is looked up has one record.
    let mut by_its_id = bench.key(&user)?;
    by_its_id.id = KeyId::from_bytes(*key.lookup_key().as_bytes());
    let other = bench.stored(&bench.user("looked up by its id")).await?;
    let its_id = with_first_bytes(bench.key(&user)?, &other.id)?;
    for taken in [another, same_id, native, by_its_id, its_id] {
        let maker = (key.id, key.version);
        let inserted = [
            bench.there().insert(&taken).await?,
            bench.there().insert_made_by(&taken, maker).await?,
            bench
                .there()
                .rotate(&taken, &next_digest(bench, &key)?, 1)
                .await?,
        ];
        ensure!(
            inserted == [false; 3],
            "`insert`, `insert_made_by`, `rotate` with a taken digest or id say {inserted:?}"
        );
        holds(bench, &key, "after an `insert` that was refused").await?;
        bench
            .holds(&other, "after an `insert` that was refused")
            .await?;
    }

    let next = next_digest(bench, &key)?;
    let updated = bench.there().update(&next, 2).await?;
    ensure!(!updated, "`update` doesn't compare the version");
    let updated = bench.there().update(&next, 1).await?;
    ensure!(updated, "`update` doesn't find the key");
    told(&mut followers, &key, "an update").await?;
    key = next;
    holds(bench, &key, "after `update`").await?;

    bench.here().touch(&[Touch::new(key.id, at(9))]).await?;
    key.last_used_at = Some(at(9));
    holds(bench, &key, "after `touch`").await?;

    ensure!(
        bench.there().delete(&key.id).await?,
        "`delete` doesn't find the key"
    );
    told(&mut followers, &key, "a deletion").await?;
    for node in [bench.here(), bench.there()] {
        let found = [
            node.get_many(&[key.lookup_key()]).await?,
            node.get_by_id(&[key.id]).await?,
            bench.listed(node, &user).await?,
        ];
        ensure!(
            found.concat().is_empty(),
            "after `delete`, the key is found"
        );
    }
    ensure!(
        !bench.here().delete(&key.id).await?,
        "`delete` finds it again"
    );
    Ok(())
}

/// As another update would write it.
fn next_digest<B: ApiKeyBackend>(bench: &Bench<B>, key: &ApiKey) -> Outcome<ApiKey> {
    Ok(ApiKey {
        secret_hash: key.secret_hash,
        ..bench.next(key)?
    })
}

/// Random in each run.
pub(super) fn with_digest<B: ApiKeyBackend>(bench: &Bench<B>, key: ApiKey) -> Outcome<ApiKey> {
    with_first_bytes(key, &bench.id())
}

fn with_first_bytes(key: ApiKey, first: &KeyId) -> Outcome<ApiKey> {
    let mut hex = String::new();
    for byte in first.as_bytes() {
        write!(hex, "{byte:02x}")?;
    }
    let secret_hash = SecretHash::from_digest_hex(&format!("{hex}{:016x}", u64::MAX))?;
    Ok(ApiKey { secret_hash, ..key })
}

/// By its digest, by its id, and in the list of its user.
pub(super) async fn holds<B: ApiKeyBackend>(
    bench: &Bench<B>,
    expected: &ApiKey,
    when: &str,
) -> Outcome {
    for node in [bench.here(), bench.there()] {
        for (how, found) in [
            ("get_many", node.get_many(&[expected.lookup_key()]).await?),
            ("get_by_id", node.get_by_id(&[expected.id]).await?),
            (
                "list_for_user",
                bench.listed(node, &expected.user_id).await?,
            ),
        ] {
            let [found] = &found[..] else {
                let count = found.len();
                return Err(Broken(format!(
                    "{when}, `{how}` gives {count} keys instead of one"
                )));
            };
            same(expected, found, when)?;
            ensure!(found.id == expected.id, "{when}, `{how}` gives another id");
        }
    }
    Ok(())
}

/// Caches know it by what it is looked up by.
async fn told<B: ApiKeyBackend>(
    followers: &mut [Follower<B>],
    key: &ApiKey,
    what: &str,
) -> Outcome {
    for follower in followers {
        let told = follower.told().await?;
        let is_told = told.iter().any(|change| match change {
            Change::Everything => true,
            Change::Key(told) => *told == key.lookup_key(),
        });
        ensure!(is_told, "{what} wasn't told of under the look-up key");
    }
    Ok(())
}
