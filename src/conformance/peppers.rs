//! How many keys each pepper has.

use super::{
    bench::{Bench, at, winner},
    report::{Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, PepperUsage},
    key::ApiKey,
    token::{PepperCheck, PepperId, SecretHash},
};

async fn counted<B: ApiKeyBackend>(bench: &Bench<B>, pepper: PepperId) -> Outcome<[u64; 2]> {
    let mut counts = Vec::new();
    for node in 0..2 {
        let mut usage = bench.node(node).pepper_usage(at(0)).await?;
        usage.retain(|usage| usage.pepper == Some(pepper));
        ensure!(
            usage.len() < 2,
            "one pepper is counted {} times",
            usage.len()
        );
        let none = PepperUsage::new(None, 0, 0);
        let usage = usage.pop().unwrap_or(none);
        counts.push([usage.keys, usage.working]);
    }
    ensure!(
        counts[0] == counts[1],
        "one handle counts {:?} keys, and the other one {:?}",
        counts[0],
        counts[1]
    );
    Ok(counts[0])
}

pub(super) async fn are_counted<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (first, second) = (bench.pepper("a")?, bench.pepper("b")?);
    let now = at(0);
    let just_before = now - std::time::Duration::from_millis(1);
    let just_after = now + std::time::Duration::from_millis(1);
    let mut key = bench.key(&bench.user("peppers"))?;
    for (number, (expires_at, retires_at, revoked_at, works)) in [
        (None, None, None, true),
        (Some(just_after), None, None, true),
        (Some(now), None, None, false),
        (None, Some(just_after), None, true),
        (None, Some(now), None, false),
        (Some(just_before), Some(just_after), None, false),
        (Some(just_after), Some(just_before), None, false),
        (None, None, Some(just_after), false),
        (Some(now), None, Some(now), false),
    ]
    .into_iter()
    .enumerate()
    {
        let before = counted(bench, first).await?;
        let hash = SecretHash::from_hex(first, &key.secret_hash.to_hex())?;
        key = ApiKey {
            expires_at,
            retires_at,
            revoked_at,
            // Suspended or not.
            disabled_at: (number % 2 == 1).then_some(now),
            secret_hash: hash,
            ..bench.key(&key.user_id)?
        };
        bench.store(&key).await?;
        let [keys, working] = counted(bench, first).await?;
        ensure!(
            [keys, working] == [before[0] + 1, before[1] + u64::from(works)],
            "after another key that {}, of {before:?} keys and working keys there are {keys} and {working}",
            if works {
                "works"
            } else {
                "doesn't work any more"
            }
        );
    }
    let hash = SecretHash::from_hex(second, &key.secret_hash.to_hex())?;
    let next = ApiKey {
        secret_hash: hash,
        version: 2,
        ..key.clone()
    };
    bench.here().update(&next, 1).await?;
    let counts = [counted(bench, first).await?, counted(bench, second).await?];
    ensure!(
        counts == [[8, 3], [1, 0]],
        "after a key has come under another pepper, {counts:?} are counted instead of [[8, 3], [1, 0]]"
    );
    bench.there().delete(&key.id).await?;
    let count = counted(bench, second).await?;
    ensure!(
        count == [0, 0],
        "after its last key was deleted, a pepper has {count:?}"
    );
    Ok(())
}

/// Unless the backend keeps none.
pub(super) async fn checks_stay<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    if let Err(error) = bench.here().pepper_checks().await
        && error.is_unsupported()
    {
        return Ok(());
    }
    let pepper = bench.pepper("c")?;
    let check = |number: usize| PepperCheck::from_hex(pepper, &format!("{number:064x}"));
    let answers = bench.contend(|at, node| {
        let check = check(at);
        async move {
            match check {
                Ok(check) => node.insert_pepper_check(&check).await,
                Err(error) => Err(crate::error::BackendError::corrupt(error)),
            }
        }
    });
    let winner = winner("check values of one pepper", answers.await?)?;
    for node in 0..2 {
        ensure!(
            !bench.node(node).insert_pepper_check(&check(1_000)?).await?,
            "a check value was stored for a pepper that has one"
        );
        let mut stored = bench.node(node).pepper_checks().await?;
        stored.retain(|stored| *stored.pepper() == pepper);
        ensure!(
            stored.len() == 1 && stored[0].matches(&check(winner)?),
            "another check value is read than was stored first"
        );
    }
    Ok(())
}
