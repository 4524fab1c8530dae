//! Calls whose caller goes away.

use super::{
    bench::{Bench, same},
    follow::{Follower, Mirror},
    report::{Broken, Outcome, ensure},
    steps::{Tasks, dropped_after, step_aside},
};
use crate::{
    backend::{ApiKeyBackend, KeySource, PageRequest, Touch},
    key::ApiKey,
    sync::timeout,
};

/// After how many polls a call is dropped.
const POLLS: std::ops::RangeInclusive<usize> = 1..=8;

/// A write that is dropped has been done, will be, or won't be: whole in any case.
pub(super) async fn writes_are_whole<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("dropped");
    for polls in POLLS {
        let new = bench.key(&user)?;
        dropped_after(polls, bench.here().insert(&new)).await;
        old_or_new(bench, None, Some(&new)).await?;
        // Whether or not it was stored, it is from here on: a write that comes late finds it taken.
        bench.there().insert(&new).await?;
        bench
            .holds(&new, "after a dropped `insert` and another one")
            .await?;

        let next = bench.next(&new)?;
        dropped_after(polls, bench.here().update(&next, 1)).await;
        old_or_new(bench, Some(&new), Some(&next)).await?;
        bench.there().update(&next, 1).await?;
        bench
            .holds(&next, "after a dropped `update` and another one")
            .await?;

        dropped_after(polls, bench.here().delete(&next.id)).await;
        old_or_new(bench, Some(&next), None).await?;
        bench.there().delete(&next.id).await?;
        let when = "after a dropped `delete` and another one";
        bench.lacks(&next.id, when).await?;
    }
    Ok(())
}

/// Reads `old` or `new`.
async fn old_or_new<B: ApiKeyBackend>(
    bench: &Bench<B>,
    old: Option<&ApiKey>,
    new: Option<&ApiKey>,
) -> Outcome {
    let Some(id) = old.or(new).map(|key| key.id) else {
        return Ok(());
    };
    let found = bench.read(bench.there(), &id).await?;
    let is = |expected: Option<&ApiKey>| match (expected, &found) {
        (None, None) => true,
        (Some(expected), Some(found)) => same(expected, found, "").is_ok(),
        _ => false,
    };
    ensure!(
        is(old) || is(new),
        "after a dropped write, a record is neither the old nor the new one: {found:?}"
    );
    Ok(())
}

pub(super) async fn nothing_is_used_up<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("used up");
    let key = bench.stored(&user).await?;
    let page = PageRequest::new();
    let wanted = [key.lookup_key()];
    let touches = [Touch::new(key.id, key.created_at)];
    for polls in POLLS {
        for node in 0..10 {
            let node = bench.node(node);
            dropped_after(polls, node.get_many(&wanted)).await;
            dropped_after(polls, node.touch(&touches)).await;
            if bench.settings.lists {
                dropped_after(polls, node.list_for_user(&user, &page)).await;
            }
            dropped_after(polls, Follower::subscribe(node)).await;
            dropped_after(polls, node.update(&key, 99)).await;
        }
    }
    // As many at once as there may be connections, and more.
    let mut tasks = Tasks::new();
    for at in 0..32 {
        let (node, new) = (bench.node(at).clone(), bench.key(&user)?);
        tasks.add(async move {
            let stored = node.insert(&new).await?;
            ensure!(
                stored && node.get_many(&wanted).await?.len() == 1,
                "after dropped calls, others have wrong answers"
            );
            Ok(())
        })?;
    }
    tasks.join().await?.into_iter().collect()
}

/// A write that was done is told, whether or not its caller was there to hear of it.
pub(super) async fn changes_are_told<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let Some(follower) = Follower::subscribe(bench.there()).await? else {
        return Ok(());
    };
    let user = bench.user("dropped and told");
    let mut keys = Vec::new();
    for _ in POLLS {
        keys.push([bench.stored(&user).await?, bench.stored(&user).await?]);
    }
    let new = bench.key(&user)?;
    let mut ids: Vec<_> = keys.as_flattened().iter().map(|key| key.id).collect();
    ids.push(new.id);
    let mut mirror = Mirror::new(follower, &ids).await?;
    for (polls, [updated, deleted]) in POLLS.zip(&keys) {
        dropped_after(polls, bench.here().update(&bench.next(updated)?, 1)).await;
        dropped_after(polls, bench.here().delete(&deleted.id)).await;
    }
    dropped_after(1, bench.here().insert(&new)).await;
    // They may still be under way.
    let patience = bench.settings.patience;
    let mut last = Ok(());
    let following = async {
        loop {
            mirror.follow().await?;
            last = mirror.is_true().await;
            if last.is_ok() {
                return Ok(());
            }
            step_aside().await;
        }
    };
    match timeout(patience, following).await {
        Ok(outcome) => outcome,
        Err(_) => last.map_err(|Broken(how)| Broken(format!("{how}, {patience:?} afterwards"))),
    }
}
