//! Insertions, updates and deletions, alone and against each other.

use super::{
    bench::{Bench, CONTENDERS, at, same, winner},
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, KeySource, Touch},
    key::ApiKey,
};

/// How often a contest is held.
const ROUNDS: usize = 4;

pub(super) async fn can_be_read_at_once<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("at once");
    for round in 0..20 {
        let key = bench.key(&user)?;
        ensure!(
            bench.node(round).insert(&key).await?,
            "`insert` of a new id answered that it is taken"
        );
        bench
            .holds(&key, "as soon as `insert` has returned")
            .await?;
        let next = bench.next(&key)?;
        ensure!(
            bench.node(round).update(&next, 1).await?,
            "`update` didn't find the version that is stored"
        );
        bench
            .holds(&next, "as soon as `update` has returned")
            .await?;
        bench.node(round).delete(&key.id).await?;
        let when = "as soon as `delete` has returned";
        bench.lacks(&key.id, when).await?;
    }
    Ok(())
}

pub(super) async fn insert_never_overwrites<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (user, other_user) = (bench.user("first"), bench.user("second"));
    let first = bench.stored(&user).await?;
    for node in 0..2 {
        for other_user in [&user, &other_user] {
            let mut second = bench.key(other_user)?;
            second.id = first.id;
            ensure!(
                !bench.node(node).insert(&second).await?,
                "`insert` of an id that is taken answered that it was stored"
            );
            bench
                .holds(&first, "after an `insert` of a taken id")
                .await?;
        }
    }
    let listed = bench.listed(bench.there(), &other_user).await?;
    ensure!(
        listed.is_empty(),
        "after an `insert` of a taken id, its user's list has the key"
    );
    Ok(())
}

pub(super) async fn one_insertion_wins<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    for _ in 0..ROUNDS {
        let id = bench.id();
        let users: Vec<_> = (0..CONTENDERS)
            .map(|at| bench.user(&format!("contender {at}")))
            .collect();
        let mut keys = Vec::new();
        for user in &users {
            keys.push(ApiKey {
                id,
                ..bench.key(user)?
            });
        }
        let answers = bench.contend(|at, node| {
            let key = keys[at].clone();
            async move { node.insert(&key).await }
        });
        let winner = winner("insertions of one id", answers.await?)?;
        let when = "after 64 insertions of one id at once";
        bench.holds(&keys[winner], when).await?;
        for (at, user) in users.iter().enumerate() {
            let listed = bench.listed(bench.node(at), user).await?;
            let has_it = listed.iter().any(|key| key.id == id);
            ensure!(
                has_it == (at == winner),
                "{when}, a list says that another one was stored than the record"
            );
        }
    }
    Ok(())
}

pub(super) async fn update_compares_versions<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("versions");
    let first = bench.stored(&user).await?;
    let second = bench.next(&first)?;
    ensure!(
        bench.here().update(&second, 1).await?,
        "`update` didn't find the version that is stored"
    );
    bench.holds(&second, "after an `update`").await?;
    for expected in [0, 1, 3, 1 << 40] {
        let mut third = bench.next(&second)?;
        third.version = expected + 1;
        ensure!(
            !bench.there().update(&third, expected).await?,
            "`update` of version {expected} answered that it was done, and version 2 is stored"
        );
        let when = format!("after an `update` of version {expected}");
        bench.holds(&second, &when).await?;
    }
    let unknown = bench.key(&user)?;
    for expected in [0, 1] {
        ensure!(
            !bench.here().update(&unknown, expected).await?,
            "`update` of an unknown key answered that it was done"
        );
        bench.lacks(&unknown.id, "after its `update`").await?;
    }
    Ok(())
}

pub(super) async fn one_update_wins<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let mut stored = bench.stored(&bench.user("updates")).await?;
    for _ in 0..ROUNDS {
        let mut keys = Vec::new();
        for _ in 0..CONTENDERS {
            keys.push(bench.next(&stored)?);
        }
        let answers = bench.contend(|at, node| {
            let (key, expected) = (keys[at].clone(), stored.version);
            async move { node.update(&key, expected).await }
        });
        let winner = winner("updates of one version", answers.await?)?;
        stored = keys.swap_remove(winner);
        bench
            .holds(&stored, "after 64 updates of one version at once")
            .await?;
    }
    Ok(())
}

/// Somebody may have revoked it since the writer has read it, and left the version.
pub(super) async fn update_keeps_a_revocation<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let stored = ApiKey {
        revoked_at: None,
        ..bench.key(&bench.user("revoked"))?
    };
    bench.store(&stored).await?;
    let mut revoked = ApiKey {
        revoked_at: Some(at(1)),
        version: 2,
        ..stored
    };
    ensure!(
        bench.here().update(&revoked, 1).await?,
        "`update` didn't find the version that is stored"
    );
    for given in [None, Some(at(2))] {
        let next = ApiKey {
            revoked_at: given,
            version: revoked.version + 1,
            ..revoked.clone()
        };
        ensure!(
            bench.there().update(&next, revoked.version).await?,
            "`update` didn't find the version that is stored"
        );
        revoked.version = next.version;
        let when = format!("after an `update` with `revoked_at` {given:?}");
        bench.holds(&revoked, &when).await?;
    }
    Ok(())
}

pub(super) async fn update_keeps_the_later_use<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let mut stored = bench.stored(&bench.user("uses")).await?;
    // What is noted before, what the update says, and what has to be there afterwards.
    for (noted, given, expected) in [
        (None, None, None),
        (None, Some(at(1)), Some(at(1))),
        (None, None, Some(at(1))),
        (Some(at(3)), Some(at(2)), Some(at(3))),
        (None, Some(at(4)), Some(at(4))),
        (Some(at(5)), None, Some(at(5))),
    ] {
        if let Some(used_at) = noted {
            let touch = Touch::new(stored.id, used_at);
            bench.there().touch(&[touch]).await?;
        }
        let mut next = bench.next(&stored)?;
        next.last_used_at = given;
        ensure!(
            bench.here().update(&next, stored.version).await?,
            "`update` didn't find the version that is stored"
        );
        next.last_used_at = expected;
        let when = "after an `update` that says something else of the last use";
        bench.holds(&next, when).await?;
        stored = next;
    }
    Ok(())
}

pub(super) async fn update_keeps_the_owner<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (user, thief) = (bench.user("owner"), bench.user("thief"));
    let stored = bench.stored(&user).await?;
    let mut stolen = bench.next(&stored)?;
    stolen.user_id.clone_from(&thief);
    stolen.created_at = at(0);
    // It may be refused, or done as far as it can be.
    let done = matches!(bench.here().update(&stolen, 1).await, Ok(true));
    let expected = if done {
        ApiKey {
            user_id: stored.user_id.clone(),
            created_at: stored.created_at,
            ..stolen
        }
    } else {
        stored
    };
    let when = "after an `update` that names another owner and time of creation";
    bench.holds(&expected, when).await?;
    for node in 0..2 {
        let listed = bench.listed(bench.node(node), &user).await?;
        ensure!(listed.len() == 1, "{when}, its owner's list has lost it");
        same(&expected, &listed[0], when)?;
        let listed = bench.listed(bench.node(node), &thief).await?;
        ensure!(listed.is_empty(), "{when}, the other's list has the key");
    }
    Ok(())
}

pub(super) async fn delete_says_whether<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("deleted");
    let (key, kept) = (bench.stored(&user).await?, bench.stored(&user).await?);
    for round in 0..2 {
        let removed = bench.node(round).delete(&key.id).await?;
        ensure!(
            removed == (round == 0),
            "`delete` number {} of a key answered {removed}",
            round + 1
        );
        bench.lacks(&key.id, "after its deletion").await?;
        bench.holds(&kept, "after another key's deletion").await?;
        let listed = bench.listed(bench.there(), &user).await?;
        ensure!(
            listed.len() == 1 && listed[0].id == kept.id,
            "after a deletion, the list has {} keys, and 1 is left",
            listed.len()
        );
    }
    ensure!(
        !bench.here().delete(&bench.id()).await?,
        "`delete` of an unknown key answered that it was there"
    );
    ensure!(
        !bench.here().update(&bench.next(&key)?, 1).await?,
        "`update` of a deleted key answered that it was done"
    );
    let again = ApiKey {
        id: key.id,
        ..bench.key(&user)?
    };
    bench.store(&again).await?;
    bench
        .holds(&again, "after it was deleted and inserted again")
        .await
}

pub(super) async fn one_deletion_wins<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    for _ in 0..ROUNDS {
        let key = bench.stored(&bench.user("deletions")).await?;
        let answers = bench.contend(|_, node| async move { node.delete(&key.id).await });
        winner("deletions of one key", answers.await?)?;
        bench.lacks(&key.id, "after 64 deletions").await?;
    }
    Ok(())
}

/// One handle writes and the other reads: each record that is read is one that was written.
pub(super) async fn reads_see_whole_records<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let mut versions = vec![bench.stored(&bench.user("whole")).await?];
    for _ in 0..100 {
        let next = bench.next(&versions[versions.len() - 1])?;
        versions.push(next);
    }
    let (node, written) = (bench.here().clone(), versions.clone());
    let mut tasks = super::steps::Tasks::new();
    tasks.add(async move {
        for key in &written[1..] {
            if !node.update(key, key.version - 1).await? {
                return Err(Broken(
                    "`update` didn't find the version that is stored".to_owned(),
                ));
            }
        }
        Ok(())
    })?;
    tasks.begin();
    let mut last = 1;
    while !tasks.are_done() {
        let found = bench.there().get_many(&[versions[0].lookup_key()]).await?;
        ensure!(found.len() == 1, "while a key is updated, it isn't found");
        let version = found[0].version;
        ensure!(
            version >= last,
            "version {version} was read after version {last}"
        );
        last = version;
        let expected = usize::try_from(version - 1)
            .ok()
            .and_then(|at| versions.get(at));
        ensure!(expected.is_some(), "version {version} was never written");
        if let Some(expected) = expected {
            same(expected, &found[0], "while a key is updated")?;
        }
        super::steps::step_aside().await;
    }
    tasks.join().await?.into_iter().collect()
}
