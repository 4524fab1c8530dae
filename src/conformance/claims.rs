//! Grants that become keys, once.

use std::time::Duration;

use super::{
    bench::{Bench, CONTENDERS, unrevoked, winner},
    follow::{Follower, concerns},
    grants::TTL,
    report::{Broken, Outcome, ensure},
    steps::{Tasks, dropped_after},
};
use crate::{
    backend::{ApiKeyBackend, KeySource},
    key::{ApiKey, KeyGrant},
};

/// How often a contest is held.
const ROUNDS: usize = 8;

impl<B: ApiKeyBackend> Bench<B> {
    /// A key that a claim of `grant` makes, a second after the grant.
    fn claimed_key(&self, grant: &KeyGrant) -> Outcome<ApiKey> {
        let mut key = self.key(&grant.user_id)?;
        key.created_at = grant.made_at + Duration::from_secs(1);
        Ok(key)
    }

    /// The grant was claimed as `key`, and the key is there.
    async fn holds_claim(&self, grant: &KeyGrant, key: &ApiKey, when: &str) -> Outcome {
        let claimed = KeyGrant {
            claimed_at: Some(key.created_at),
            key_id: Some(key.id),
            ..grant.clone()
        };
        self.holds_grant(&claimed, when).await?;
        self.holds(key, when).await
    }

    /// The grant is as it was, and `key` wasn't made.
    async fn lacks_claim(&self, grant: &KeyGrant, key: &ApiKey, when: &str) -> Outcome {
        self.holds_grant(grant, when).await?;
        self.lacks(&key.id, when).await
    }
}

pub(super) async fn are_won_by_one<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("claimed");
    for _ in 0..ROUNDS {
        let grant = bench.stored_grant(&user).await?;
        let mut keys = Vec::new();
        for _ in 0..CONTENDERS {
            keys.push(bench.claimed_key(&grant)?);
        }
        let answers = bench.contend(|at, node| {
            let (id, key) = (grant.id, keys[at].clone());
            async move { node.claim(&id, &key, None).await }
        });
        let winner = keys.swap_remove(winner("claims of one grant", answers.await?)?);
        let when = "after 64 claims of one grant at once";
        bench.holds_claim(&grant, &winner, when).await?;
        for loser in &keys {
            bench.lacks(&loser.id, when).await?;
        }
    }
    Ok(())
}

/// Somebody claims what another takes back.
pub(super) async fn meet_revocations<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("claimed or revoked");
    for round in 0..ROUNDS {
        let grant = bench.stored_grant(&user).await?;
        let mut keys = Vec::new();
        for _ in 0..CONTENDERS {
            keys.push(bench.claimed_key(&grant)?);
        }
        // On a busy machine they run in their order, so it is another one in each round.
        let turn = move |at: usize| (at + round) % 4;
        let answers = bench.contend(|at, node| {
            let (id, key) = (grant.id, keys[at].clone());
            async move {
                match turn(at) {
                    0 => node.revoke_grant(&id, key.created_at).await,
                    1 => {
                        let of_user = &key.user_id;
                        let revoked = node.revoke_grants_of_user(of_user, key.created_at).await;
                        Ok(revoked? == 1)
                    }
                    _ => node.claim(&id, &key, None).await,
                }
            }
        });
        let winner = winner("claims and revocations of one grant", answers.await?)?;
        let when = "after claims and revocations of one grant at once";
        if turn(winner) > 1 {
            bench.holds_claim(&grant, &keys[winner], when).await?;
        } else {
            let revoked = KeyGrant {
                revoked_at: Some(keys[winner].created_at),
                ..grant
            };
            bench.lacks_claim(&revoked, &keys[winner], when).await?;
        }
    }
    Ok(())
}

pub(super) async fn need_a_pending_grant<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("not pending");
    let claim = async |grant: &KeyGrant, key: &ApiKey, when: &str, expected: bool| {
        let claimed = bench.there().claim(&grant.id, key, None).await?;
        ensure!(claimed == expected, "a claim {when} answered {claimed}");
        Ok::<_, Broken>(())
    };
    // In its last millisecond, and in the next.
    let grant = bench.stored_grant(&user).await?;
    let mut key = bench.claimed_key(&grant)?;
    for (beyond, when) in [
        (Duration::ZERO, "at the end of a grant"),
        (TTL, "after the end of a grant"),
    ] {
        key.created_at = grant.expires_at + beyond;
        claim(&grant, &key, when, false).await?;
        bench.lacks_claim(&grant, &key, when).await?;
    }
    key.created_at = grant.expires_at - Duration::from_millis(1);
    claim(&grant, &key, "a millisecond before its end", true).await?;
    bench
        .holds_claim(&grant, &key, "claimed a millisecond before its end")
        .await?;

    let again = bench.claimed_key(&grant)?;
    claim(&grant, &again, "of what was claimed already", false).await?;
    bench
        .holds_claim(&grant, &key, "after another claim")
        .await?;
    bench.lacks(&again.id, "after a second claim").await?;

    let mut revoked = bench.stored_grant(&user).await?;
    let key = bench.claimed_key(&revoked)?;
    bench
        .here()
        .revoke_grant(&revoked.id, revoked.made_at)
        .await?;
    revoked.revoked_at = Some(revoked.made_at);
    let when = "of a revoked grant";
    claim(&revoked, &key, when, false).await?;
    bench.lacks_claim(&revoked, &key, when).await?;

    let unknown = bench.grant(&user)?;
    let key = bench.claimed_key(&unknown)?;
    claim(&unknown, &key, "of an unknown grant", false).await?;
    bench.lacks(&key.id, "after its claim").await
}

/// An id that is taken, and a caller who goes away.
pub(super) async fn are_whole<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("claimed whole");
    let stored = bench.stored(&bench.user("was there")).await?;
    let grant = bench.stored_grant(&user).await?;
    let taken = ApiKey {
        id: stored.id,
        ..bench.claimed_key(&grant)?
    };
    for node in 0..2 {
        ensure!(
            !bench.node(node).claim(&grant.id, &taken, None).await?,
            "a claim as a key whose id is taken answered that it was done"
        );
        let when = "after a claim as a key whose id is taken";
        bench.holds_grant(&grant, when).await?;
        bench.holds(&stored, when).await?;
    }
    let key = bench.claimed_key(&grant)?;
    ensure!(
        bench.here().claim(&grant.id, &key, None).await?,
        "a grant can't be claimed after a claim that failed"
    );
    bench
        .holds_claim(&grant, &key, "after that and another claim")
        .await?;

    for polls in 1..=12 {
        let grant = bench.stored_grant(&user).await?;
        let (key, other) = (bench.claimed_key(&grant)?, bench.claimed_key(&grant)?);
        dropped_after(polls, bench.here().claim(&grant.id, &key, None)).await;
        // It may be done between any two of these.
        let was_claimed = claimed_as(bench, &grant, &key).await?;
        let is_there = bench.read(bench.there(), &key.id).await?.is_some();
        let is_claimed = claimed_as(bench, &grant, &key).await?;
        ensure!(
            is_there || !was_claimed,
            "after a dropped claim, a grant is claimed and its key isn't there"
        );
        ensure!(
            is_claimed || !is_there,
            "after a dropped claim, the key is there and its grant isn't claimed"
        );
        // Whether or not it was, it is from here on.
        let when = "after a dropped claim and another one";
        if bench.there().claim(&grant.id, &other, None).await? {
            bench.holds_claim(&grant, &other, when).await?;
            bench.lacks(&key.id, when).await?;
        } else {
            bench.holds_claim(&grant, &key, when).await?;
            bench.lacks(&other.id, when).await?;
        }
    }
    Ok(())
}

async fn claimed_as<B: ApiKeyBackend>(
    bench: &Bench<B>,
    grant: &KeyGrant,
    key: &ApiKey,
) -> Outcome<bool> {
    let grant = bench.there().get_grant_by_id(&grant.id).await?;
    Ok(grant.is_some_and(|grant| grant.key_id == Some(key.id)))
}

/// The key that made a grant is changed before the claim, or while it is under way.
pub(super) async fn see_the_maker_change<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("maker");
    let (maker, newer, revoked) = bench.changed_parents(&user).await?;
    let grant = bench.stored_grant(&user).await?;
    let key = bench.claimed_key(&grant)?;
    let unknown = bench.id();
    for (maker, what) in [
        ((maker.id, maker.version), "an older version of the maker"),
        (
            (maker.id, newer.version + 1),
            "a later version of the maker",
        ),
        ((unknown, 1), "a maker that isn't there"),
        ((revoked.id, revoked.version), "a maker that is revoked"),
    ] {
        let claimed = bench.there().claim(&grant.id, &key, Some(maker)).await?;
        ensure!(!claimed, "a claim with {what} answered that it was done");
        bench.lacks_claim(&grant, &key, what).await?;
    }
    let maker = Some((newer.id, newer.version));
    ensure!(
        bench.there().claim(&grant.id, &key, maker).await?,
        "a claim with the version of the maker that is stored wasn't done"
    );
    bench
        .holds_claim(&grant, &key, "claimed with its maker's version")
        .await?;

    let mut maker = newer;
    for round in 0..4 * ROUNDS {
        let grant = bench.stored_grant(&user).await?;
        let key = bench.claimed_key(&grant)?;
        let next = unrevoked(bench.next(&maker)?);
        let (one, other) = (bench.node(round).clone(), bench.node(round + 1).clone());
        let (update, id) = (next.clone(), key.id.lookup_key());
        let update = async move {
            let updated = one.update(&update, update.version - 1).await?;
            ensure!(updated, "`update` didn't find the version that is stored");
            Ok(!one.get_many(&[id]).await?.is_empty())
        };
        let (claimed, as_it_was) = (key.clone(), Some((maker.id, maker.version)));
        let claim = async move { Ok(other.claim(&grant.id, &claimed, as_it_was).await?) };
        let mut tasks: Tasks<Outcome<bool>> = Tasks::new();
        // On a busy machine they run in their order, so each is the first in every other round.
        let claims_first = round % 2 == 1;
        if claims_first {
            tasks.add(claim)?;
            tasks.add(update)?;
        } else {
            tasks.add(update)?;
            tasks.add(claim)?;
        }
        let mut answers = tasks.join().await?;
        if claims_first {
            answers.reverse();
        }
        let mut answers = answers.into_iter();
        let was_there = answers.next().unwrap_or(Ok(false))?;
        let was_claimed = answers.next().unwrap_or(Ok(false))?;
        ensure!(
            was_there || !was_claimed,
            "a key was made by a claim after the maker's key had changed"
        );
        maker = next;
    }
    Ok(())
}

/// Somebody may have asked for the key's id before, and remember that there is no such key.
pub(super) async fn are_told<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("claimed and told");
    for round in 0..4 {
        let grant = bench.stored_grant(&user).await?;
        let key = bench.claimed_key(&grant)?;
        let mut followers = Vec::new();
        for node in 0..2 {
            followers.extend(Follower::subscribe(bench.node(node)).await?);
        }
        bench.node(round).claim(&grant.id, &key, None).await?;
        for follower in &mut followers {
            let told = follower.told().await?;
            ensure!(
                concerns(&told, &[key.id]),
                "a key that was made by a claim wasn't told"
            );
        }
    }
    Ok(())
}
