//! Many keys that end at once, and records that are removed when they ended long ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    bench::{Bench, at, same},
    changes, digests,
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, RevokedKey},
    key::{ApiKey, RevocationReason},
};

/// How many keys are revoked at once.
const AT_MOST: usize = 7;

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
    let other = unrevoked(bench, "Ended").await?;
    let mut followers = changes::followers(bench).await?;
    let mut left = keys.iter().filter(|key| key.revoked_at.is_none()).count();
    // The last call finds nothing left.
    for round in 0.. {
        let reason = Some(&reason).filter(|_| round % 2 == 0);
        let named = bench
            .node(round)
            .revoke_for_user(&user, at(7), reason, AT_MOST)
            .await?;
        ensure!(
            named.len() <= AT_MOST && (!named.is_empty() || left == 0),
            "of {left} keys of the user that weren't revoked, {AT_MOST} at the most were to be, and {} were named",
            named.len()
        );
        left = left.saturating_sub(named.len());
        let mut revoked = Vec::new();
        for key in &mut keys {
            if named.contains(&RevokedKey::new(key.id, key.lookup_key())) {
                ensure!(
                    key.revoked_at.is_none(),
                    "{} was named, and was revoked before",
                    key.id
                );
                revoked.push(key.id);
                key.revoked_at = Some(at(7));
                key.revocation_reason = reason.cloned();
                key.version += 1;
            }
        }
        ensure!(
            revoked.len() == named.len(),
            "keys were named that aren't the user's, or by another look-up key"
        );
        changes::each_told(&mut followers, &revoked, "a revocation of a user's keys").await?;
        for key in &keys {
            bench
                .holds(key, "after keys of its user were revoked")
                .await?;
        }
        bench
            .holds(&other, "after those of another were revoked")
            .await?;
        if named.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn unrevoked<B: ApiKeyBackend>(bench: &Bench<B>, user: &str) -> Outcome<ApiKey> {
    let key = ApiKey {
        revoked_at: None,
        revocation_reason: None,
        ..bench.key(&bench.user(user))?
    };
    bench.store(&key).await?;
    Ok(key)
}

/// Whatever version it has; a second time, it changes nothing.
pub(super) async fn is_once<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let unknown = bench.node(1).revoke(&bench.id(), at(7), None).await?;
    ensure!(
        !unknown,
        "`revoke` of an unknown id answered that it was done"
    );
    let reason = RevocationReason::Other("a reason".to_owned());
    for reason in [Some(&reason), None] {
        let mut key = unrevoked(bench, "revoked").await?;
        // Who has heard of it by another change can't tell.
        let mut followers = changes::followers(bench).await?;
        let revoked = bench.here().revoke(&key.id, at(7), reason).await?;
        ensure!(revoked, "`revoke` didn't find the key");
        key.revoked_at = Some(at(7));
        key.revocation_reason = reason.cloned();
        key.version += 1;
        changes::each_told(&mut followers, &[key.id], "a revocation").await?;
        bench.holds(&key, "after it was revoked").await?;
        let other = RevocationReason::Leaked;
        let again = bench.there().revoke(&key.id, at(9), Some(&other)).await?;
        ensure!(!again, "a second `revoke` answered that it was done");
        bench.holds(&key, "after it was revoked again").await?;
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
