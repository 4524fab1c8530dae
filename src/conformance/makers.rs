//! Keys that are made with other keys.

use super::{
    bench::{Bench, CONTENDERS, same, unrevoked},
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, KeySource},
    key::ApiKey,
};

/// How often the maker changes while keys are made with it.
const ROUNDS: usize = 8;

/// The key that another is made with is changed before, or while the other is being stored.
pub(super) async fn are_as_they_were<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("made by a key");
    let (maker, newer, revoked) = bench.changed_parents(&user).await?;
    let key = made_by(bench, &newer)?;
    for (maker, what) in [
        ((maker.id, maker.version), "an older version of the maker"),
        (
            (maker.id, newer.version + 1),
            "a later version of the maker",
        ),
        ((bench.id(), 1), "a maker that isn't there"),
        ((revoked.id, revoked.version), "a maker that is revoked"),
    ] {
        let inserted = bench.there().insert_made_by(&key, maker).await?;
        ensure!(
            !inserted,
            "`insert_made_by` with {what} answered that it was done"
        );
        bench.lacks(&key.id, what).await?;
    }
    let as_it_is = (newer.id, newer.version);
    for expected in [true, false] {
        let inserted = bench.there().insert_made_by(&key, as_it_is).await?;
        ensure!(
            inserted == expected,
            "`insert_made_by` of {} id answered {inserted}",
            if expected { "a new" } else { "a taken" }
        );
        bench.holds(&key, "made with a key").await?;
    }
    let mut maker = newer;
    for _ in 0..ROUNDS {
        let next = unrevoked(bench.next(&maker)?);
        one_change(bench, &maker, &next).await?;
        maker = next;
    }
    Ok(())
}

/// Of keys that are stored while their maker changes, those are there that were when the change was answered, and
/// no others.
async fn one_change<B: ApiKeyBackend>(bench: &Bench<B>, maker: &ApiKey, next: &ApiKey) -> Outcome {
    let mut keys = Vec::new();
    for _ in 0..CONTENDERS {
        keys.push(made_by(bench, maker)?);
    }
    let places: Vec<_> = keys.iter().map(ApiKey::lookup_key).collect();
    let answers = bench.contend(|at, node| {
        let (key, places) = (keys[at].clone(), places.clone());
        let (next, as_it_was) = (next.clone(), (maker.id, maker.version));
        async move {
            if at != CONTENDERS / 2 {
                let is_done = node.insert_made_by(&key, as_it_was).await?;
                return Ok(is_done.then_some(key).into_iter().collect());
            }
            let is_done = node.update(&next, as_it_was.1).await?;
            ensure!(is_done, "`update` didn't find the version that is stored");
            Ok::<_, Broken>(node.get_many(&places).await?)
        }
    });
    let mut answers: Vec<_> = answers.await?.into_iter().collect::<Result<_, _>>()?;
    let before = answers.swap_remove(CONTENDERS / 2);
    let made = answers.concat();
    let left = bench.there().get_many(&places).await?;
    ensure!(
        left.len() == made.len(),
        "of {} keys that were made while their maker changed, {} are there",
        made.len(),
        left.len()
    );
    for key in &made {
        let is_it = |found: &&ApiKey| found.id == key.id;
        ensure!(
            before.iter().any(|found| is_it(&found)),
            "a key was made after the maker's key had changed"
        );
        match left.iter().find(is_it) {
            Some(found) => same(key, found, "made while its maker changed")?,
            None => return Err(Broken("a key that was made isn't found".to_owned())),
        }
    }
    Ok(())
}

fn made_by<B: ApiKeyBackend>(bench: &Bench<B>, maker: &ApiKey) -> Outcome<ApiKey> {
    Ok(ApiKey {
        made_by: Some(maker.id),
        ..bench.key(&maker.user_id)?
    })
}
