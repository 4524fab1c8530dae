//! Many keys that end at once, and records that are removed when they ended long ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    bench::{Bench, at, same},
    changes, digests,
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, KeyOfUser},
    key::{ApiKey, RevocationReason},
};

pub(super) async fn of_a_user_are_revoked<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("ended");
    let reason = RevocationReason::Other("a reason".to_owned());
    let mut keys = Vec::new();
    for number in 0..30 {
        let mut key = bench.key(&user)?;
        if number % 3 > 0 {
            (key.revoked_at, key.revocation_reason) = (None, None);
        } else if key.revoked_at.is_none() {
            key.revoked_at = Some(at(number));
        }
        bench.store(&key).await?;
        keys.push(key);
    }
    let other = bench.stored(&bench.user("Ended")).await?;
    let mut followers = changes::followers(bench).await?;
    for reason in [Some(reason), None] {
        let named = bench
            .here()
            .revoke_all_for_user(&user, at(7), reason.as_ref())
            .await?;
        ensure!(
            named.len() == keys.len(),
            "of {} keys of the user, {} were named",
            keys.len(),
            named.len()
        );
        let mut revoked = Vec::new();
        for key in &mut keys {
            let is_new = key.revoked_at.is_none();
            let expected = KeyOfUser::new(key.id, key.lookup_key(), is_new);
            ensure!(
                named.contains(&expected),
                "{} wasn't named, or not as one that {} before",
                key.id,
                if is_new { "worked" } else { "was revoked" }
            );
            if is_new {
                revoked.push(key.id);
                key.revoked_at = Some(at(7));
                key.revocation_reason.clone_from(&reason);
                key.version += 1;
            }
        }
        changes::each_told(&mut followers, &revoked, "a revocation of all keys").await?;
        for key in &keys {
            bench
                .holds(key, "after all of its user's were revoked")
                .await?;
        }
        bench
            .holds(&other, "after those of another were revoked")
            .await?;
    }
    Ok(())
}

/// In the first second of 1970: what the other checks store ends later.
fn long_ago(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

const BEFORE: u64 = 500;

/// Everything that is over by then, whatever the size of the batches.
async fn purge<B: ApiKeyBackend>(bench: &Bench<B>, at_most: usize) -> Outcome {
    for round in 0.. {
        let removed = bench.node(round).purge(long_ago(BEFORE), at_most).await?;
        ensure!(
            removed <= at_most,
            "a purge of {at_most} records has removed {removed}"
        );
        if removed == 0 {
            break;
        }
    }
    Ok(())
}

pub(super) async fn of_long_ago_are_purged<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("purged");
    let (early, late) = (Some(long_ago(BEFORE - 1)), Some(long_ago(BEFORE)));
    let (mut gone, mut stays) = (Vec::new(), Vec::new());
    for (expires, retires, revoked, goes) in [
        (None, None, None, false),
        (late, None, None, false),
        (None, late, None, false),
        (late, late, late, false),
        (None, None, late, false),
        (early, None, None, true),
        (None, early, None, true),
        (late, early, None, true),
        (early, late, None, true),
        (None, None, early, true),
        (early, early, early, true),
    ] {
        let key = ApiKey {
            created_at: at(3),
            expires_at: expires,
            retires_at: retires,
            revoked_at: revoked,
            // It may be enabled again.
            disabled_at: early,
            ..bench.key(&user)?
        };
        bench.store(&key).await?;
        (if goes { &mut gone } else { &mut stays }).push(key);
    }
    // An import that is run again must find it.
    let by_digest = ApiKey {
        revoked_at: early,
        expires_at: early,
        ..digests::with_digest(bench, bench.key(&bench.user("purged, by its digest"))?)?
    };
    let has_digests = match bench.here().insert(&by_digest).await {
        Err(error) if error.is_unsupported() => false,
        inserted => inserted?,
    };
    let mut followers = changes::followers(bench).await?;
    purge(bench, 2).await?;
    if has_digests {
        digests::holds(bench, &by_digest, "after a purge").await?;
    }
    for key in &gone {
        bench.lacks(&key.id, "after a purge").await?;
    }
    let ids: Vec<_> = gone.iter().map(|key| key.id).collect();
    changes::each_told(&mut followers, &ids, "a purge").await?;
    for key in &stays {
        bench
            .holds(key, "after a purge of what ended earlier")
            .await?;
    }
    let listed = bench.listed(bench.there(), &user).await?;
    ensure!(
        listed.len() == stays.len(),
        "after a purge, the list has {} keys, and {} are left",
        listed.len(),
        stays.len()
    );
    Ok(())
}

/// Some writers renew keys while others purge: who is told that it is renewed has it.
pub(super) async fn that_are_renewed_stay<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    for _ in 0..10 {
        let user = bench.user("renewed");
        let mut keys = Vec::new();
        for _ in 0..32 {
            let key = ApiKey {
                expires_at: Some(long_ago(BEFORE - 1)),
                retires_at: None,
                revoked_at: None,
                revocation_reason: None,
                ..bench.key(&user)?
            };
            bench.store(&key).await?;
            keys.push(key);
        }
        let answers = bench.contend(|number, node| {
            let renewed = keys.get(number / 2).map(|key| ApiKey {
                expires_at: None,
                version: 2,
                ..key.clone()
            });
            async move {
                if number % 2 == 0 {
                    node.purge(long_ago(BEFORE), 5).await?;
                    return Ok(None);
                }
                let Some(renewed) = renewed else {
                    return Ok(None);
                };
                let is_done = node.update(&renewed, 1).await?;
                Ok::<_, Broken>(is_done.then_some(renewed))
            }
        });
        for renewed in answers.await? {
            if let Some(renewed) = renewed? {
                let when = "renewed while others were purged";
                match bench.read(bench.there(), &renewed.id).await? {
                    Some(found) => same(&renewed, &found, when)?,
                    None => return Err(Broken(format!("a key is gone that was {when}"))),
                }
            }
        }
        purge(bench, 1_000).await?;
    }
    Ok(())
}
