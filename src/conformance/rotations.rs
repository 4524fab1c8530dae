//! A key and its successor: both are written, or neither.

use super::{
    bench::{Bench, unrevoked, winner},
    report::{Outcome, ensure},
};
use crate::{backend::ApiKeyBackend, key::ApiKey};

/// How often a contest is held.
const ROUNDS: usize = 4;

impl<B: ApiKeyBackend> Bench<B> {
    /// A successor of `key` in its state, and what `key` is then.
    fn rotated(&self, key: &ApiKey) -> Outcome<[ApiKey; 2]> {
        let successor = ApiKey {
            predecessor: Some(key.id),
            ..unrevoked(self.key(&key.user_id)?)
        };
        let old = ApiKey {
            successor: Some(successor.id),
            ..self.next(key)?
        };
        Ok([successor, old])
    }
}

pub(super) async fn are_whole<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("rotated");
    for round in 0..4 {
        let (here, there) = (bench.node(round), bench.node(round + 1));
        let stored = bench.stored_parent(&user).await?;
        let [successor, old] = bench.rotated(&stored)?;
        for expected in [0, 2, 1 << 40] {
            ensure!(
                !here.rotate(&successor, &old, expected).await?,
                "`rotate` of version {expected} answered that it was done, and version 1 is stored"
            );
            let when = "after a `rotate` of another version";
            bench.holds(&stored, when).await?;
            bench.lacks(&successor.id, when).await?;
        }
        let taken = ApiKey {
            id: bench.stored(&user).await?.id,
            ..successor.clone()
        };
        ensure!(
            !there.rotate(&taken, &old, 1).await?,
            "`rotate` to an id that is taken answered that it was done"
        );
        bench
            .holds(&stored, "after a `rotate` to an id that is taken")
            .await?;
        ensure!(
            here.rotate(&successor, &old, 1).await?,
            "`rotate` didn't find the version that is stored"
        );
        let when = "as soon as `rotate` has returned";
        bench.holds(&successor, when).await?;
        bench.holds(&old, when).await?;
        let [next, gone] = bench.rotated(&bench.key(&user)?)?;
        ensure!(
            !there.rotate(&next, &gone, 1).await?,
            "`rotate` of an unknown key answered that it was done"
        );
        let when = "after a `rotate` of an unknown key";
        bench.lacks(&next.id, when).await?;
        bench.lacks(&gone.id, when).await?;
    }
    Ok(())
}

pub(super) async fn one_wins<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("rotations");
    let mut stored = bench.stored_parent(&user).await?;
    for round in 0..ROUNDS {
        let mut pairs = Vec::new();
        for _ in 0..super::bench::CONTENDERS {
            pairs.push(bench.rotated(&stored)?);
        }
        let answers = bench.contend(|at, node| {
            let ([successor, old], expected) = (pairs[at].clone(), stored.version);
            async move { node.rotate(&successor, &old, expected).await }
        });
        let winner = winner("rotations of one key", answers.await?)?;
        let when = "after 64 rotations of one key at once";
        let [successor, old] = pairs.swap_remove(winner);
        bench.holds(&successor, when).await?;
        bench.holds(&old, when).await?;
        for [successor, _] in &pairs {
            bench.lacks(&successor.id, when).await?;
        }
        let listed = bench.listed(bench.node(round), &user).await?;
        ensure!(
            listed.len() == round + 2,
            "{when}, the list has {} keys instead of {}",
            listed.len(),
            round + 2
        );
        stored = successor;
    }
    Ok(())
}
