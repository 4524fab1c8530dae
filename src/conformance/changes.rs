//! What caches are told of.

use std::time::Duration;

use super::{
    bench::{Bench, at},
    follow::{Follower, Mirror, concerns},
    report::{Broken, Outcome, ensure},
    steps::{Tasks, step_aside},
};
use crate::{
    backend::{ApiKeyBackend, Touch},
    key::ApiKey,
    token::KeyId,
};

/// Two subscriptions on each handle: a change that one of them takes is the others', too. None where
/// the source tells nothing.
pub(super) async fn followers<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome<Vec<Follower<B>>> {
    let mut followers = Vec::new();
    for node in 0..4 {
        followers.extend(Follower::subscribe(bench.node(node)).await?);
    }
    Ok(followers)
}

async fn all_told<B: ApiKeyBackend>(
    followers: &mut [Follower<B>],
    id: KeyId,
    what: &str,
) -> Outcome {
    each_told(followers, &[id], what).await
}

/// Every follower is told of each of the keys.
pub(super) async fn each_told<B: ApiKeyBackend>(
    followers: &mut [Follower<B>],
    ids: &[KeyId],
    what: &str,
) -> Outcome {
    for (at, follower) in followers.iter_mut().enumerate() {
        let when = if follower.has_feed() {
            "by a read of the feed that began when the write had returned"
        } else {
            "when the write returned"
        };
        let told = follower.told().await?;
        ensure!(
            ids.iter().all(|id| concerns(&told, &[*id])),
            "{what} wasn't told {when}, by the handle that {}",
            if at % 2 == 0 { "wrote" } else { "didn't write" }
        );
    }
    Ok(())
}

pub(super) async fn are_told_in_time<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("followed");
    for round in 0..5 {
        // What is written at once after the subscription counts, too.
        let mut followers = followers(bench).await?;
        let key = bench.stored(&user).await?;
        all_told(&mut followers, key.id, "an insertion").await?;
        let next = bench.next(&key)?;
        bench.here().update(&next, 1).await?;
        all_told(&mut followers, key.id, "an update").await?;
        if round % 2 == 0 {
            bench.here().delete(&key.id).await?;
            all_told(&mut followers, key.id, "a deletion").await?;
        }
    }
    Ok(())
}

pub(super) async fn of_rotations_are_told<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("rotation told");
    for _ in 0..5 {
        let key = bench.stored_parent(&user).await?;
        let (successor, mut old) = (bench.key(&user)?, bench.next(&key)?);
        old.successor = Some(successor.id);
        let mut followers = followers(bench).await?;
        bench.here().rotate(&successor, &old, 1).await?;
        for (at, follower) in followers.iter_mut().enumerate() {
            let told = follower.told().await?;
            for (id, which) in [(key.id, "the old key"), (successor.id, "the successor")] {
                ensure!(
                    concerns(&told, &[id]),
                    "of a rotation, {which} wasn't told by the handle that {}",
                    if at % 2 == 0 { "wrote" } else { "didn't write" }
                );
            }
        }
    }
    Ok(())
}

/// One that has left isn't called, and is in nobody's way.
pub(super) async fn go_on_without_those_who_left<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("left");
    let mut staying = followers(bench).await?;
    for _ in 0..20 {
        drop(followers(bench).await?);
        let key = bench.stored(&user).await?;
        all_told(&mut staying, key.id, "an insertion").await?;
    }
    Ok(())
}

pub(super) async fn are_not_touches<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("not told");
    let keys = [bench.stored(&user).await?, bench.stored(&user).await?];
    let ids = keys.each_ref().map(|key| key.id);
    let mut followers = followers(bench).await?;
    for follower in &mut followers {
        follower.quiet(&ids, bench.settings.patience).await?;
    }
    for round in 0..3 {
        let touches = ids.map(|id| Touch::new(id, at(round)));
        bench.node(1).touch(&touches).await?;
        for follower in &mut followers {
            let told = follower.told().await?;
            ensure!(
                !concerns(&told, &ids),
                "a use was told as a change, so that each use costs a read"
            );
        }
    }
    Ok(())
}

pub(super) async fn wake<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("woken");
    let Some(mut follower) = Follower::subscribe(bench.there()).await? else {
        return Ok(());
    };
    if !follower.has_feed() || !bench.settings.wakes {
        return Ok(());
    }
    let mut key = bench.stored(&user).await?;
    for round in 0..12 {
        follower.quiet(&[key.id], bench.settings.patience).await?;
        if round % 2 == 0 {
            // Waiting that is given up takes nothing along, before the change or after it.
            follower.begins_to_wait().await;
        }
        let next = bench.next(&key)?;
        bench.here().update(&next, key.version).await?;
        key = next;
        let mut has_woken = false;
        if round % 3 == 0 {
            for _ in 0..10 {
                has_woken |= follower.begins_to_wait().await;
                step_aside().await;
            }
        }
        if !has_woken {
            ensure!(
                follower.wakes_within(bench.settings.patience).await,
                "`wait` hasn't returned {:?} after a change{}",
                bench.settings.patience,
                if round % 3 == 0 {
                    ", where it was dropped and called again"
                } else {
                    ""
                }
            );
        }
        ensure!(
            concerns(&follower.told().await?, &[key.id]),
            "after `wait` has returned, the change isn't read"
        );
    }
    Ok(())
}

/// How long a feed without news is watched, and how often it may say meanwhile that there are some.
const WATCHED: Duration = Duration::from_millis(200);
const MAX_FALSE_ALARMS: usize = 20;

pub(super) async fn are_quiet_without_news<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let key = bench.stored(&bench.user("quiet")).await?;
    let Some(mut follower) = Follower::subscribe(bench.there()).await? else {
        return Ok(());
    };
    if !follower.has_feed() {
        return Ok(());
    }
    follower.quiet(&[key.id], bench.settings.patience).await?;
    let mut false_alarms = 0;
    let watching = async {
        while false_alarms < MAX_FALSE_ALARMS {
            follower.wakes_within(WATCHED).await;
            step_aside().await;
            let told = follower.told().await?;
            ensure!(
                !concerns(&told, &[key.id]),
                "what was told already is told again, though nothing has changed"
            );
            false_alarms += 1;
        }
        Ok(())
    };
    match crate::sync::timeout(WATCHED, watching).await {
        Ok(Err(broken)) => Err(broken),
        Ok(Ok(())) => Err(Broken(format!(
            "`wait` returned {MAX_FALSE_ALARMS} times within {WATCHED:?}, with nothing to read"
        ))),
        Err(_) => Ok(()),
    }
}

/// 1,000 changes of 200 keys, from 8 tasks on both handles. A cache that reads anew what it is told
/// of knows what is stored, each time when the tasks have written each of the keys once.
pub(super) async fn of_many_writers_arrive<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let Some(follower) = Follower::subscribe(bench.there()).await? else {
        return Ok(());
    };
    let user = bench.user("many writers");
    let mut keys = Vec::new();
    for _ in 0..200 {
        keys.push(bench.key(&user)?);
    }
    let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
    let mut mirror = Mirror::new(follower, &ids).await?;
    for write in [
        Write::Insert,
        Write::Update,
        Write::Update,
        Write::Delete,
        Write::Insert,
    ] {
        let mut tasks = Tasks::new();
        for key in &mut keys {
            *key = match write {
                Write::Insert => ApiKey {
                    id: key.id,
                    ..bench.key(&user)?
                },
                Write::Update => bench.next(key)?,
                Write::Delete => key.clone(),
            };
        }
        for (at, keys) in keys.chunks(25).enumerate() {
            let (node, keys) = (bench.node(at).clone(), keys.to_vec());
            tasks.add(async move {
                for key in &keys {
                    let done = match write {
                        Write::Insert => node.insert(key).await?,
                        Write::Update => node.update(key, key.version - 1).await?,
                        Write::Delete => node.delete(&key.id).await?,
                    };
                    ensure!(
                        done,
                        "a write wasn't done, though nobody else wrote that key"
                    );
                }
                Ok(())
            })?;
        }
        tasks.begin();
        while !tasks.are_done() {
            mirror.follow().await?;
            mirror.wait_a_moment().await;
        }
        tasks.join().await?.into_iter().collect::<Outcome>()?;
        mirror.follow().await?;
        mirror.is_true().await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Write {
    Insert,
    Update,
    Delete,
}
