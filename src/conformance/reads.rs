//! Reading many at once, and what can't be read.

use super::{
    bench::{Bench, at, same},
    report::{Broken, Outcome, ensure},
    steps::Tasks,
};
use crate::{
    backend::{ApiKeyBackend, KeySource, PageRequest, Touch},
    key::ApiKey,
};

/// As many as are asked for, touched and listed at once.
const MANY: usize = 1_000;

/// So many keys of one user, stored.
pub(super) async fn many<B: ApiKeyBackend>(bench: &Bench<B>, user: &str) -> Outcome<Vec<ApiKey>> {
    // One more than a page, for the list that has another page behind it.
    let mut keys = Vec::new();
    for _ in 0..MANY + 2 {
        keys.push(bench.key(user)?);
    }
    let mut tasks = Tasks::new();
    for (at, keys) in keys.chunks(MANY / 8).enumerate() {
        let (node, keys) = (bench.node(at).clone(), keys.to_vec());
        tasks.add(async move {
            for key in &keys {
                ensure!(
                    node.insert(key).await?,
                    "`insert` of a new id answered that it is taken"
                );
            }
            Ok(())
        })?;
    }
    tasks.join().await?.into_iter().collect::<Outcome>()?;
    Ok(keys)
}

pub(super) async fn find_many<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let mut keys = many(bench, &bench.user("many")).await?;
    keys.truncate(MANY);
    keys.sort_by_key(|key| key.id);
    for with_unknown in [false, true] {
        let mut wanted = Vec::new();
        for key in &keys {
            wanted.push(key.lookup_key());
            if with_unknown {
                wanted.push(bench.id().lookup_key());
            }
        }
        let mut found = bench.there().get_many(&wanted).await?;
        ensure!(
            found.len() == keys.len(),
            "of {MANY} keys that are stored, {} were found when {} were asked for",
            found.len(),
            wanted.len()
        );
        found.sort_by_key(|key| key.id);
        for (key, found) in keys.iter().zip(&found) {
            same(key, found, "among many")?;
        }
    }
    Ok(())
}

pub(super) async fn take_any_request<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("requests");
    let (one, other) = (bench.stored(&user).await?, bench.stored(&user).await?);
    let found = bench.there().get_many(&[]).await?;
    ensure!(
        found.is_empty(),
        "asked for nothing, {} records came",
        found.len()
    );
    let unknown = bench.id().lookup_key();
    let found = bench.there().get_many(&[unknown]).await?;
    ensure!(found.is_empty(), "an unknown key was found");
    // Once or as often as it was asked for, but there, and nothing else.
    let wanted = [&one, &other, &one, &one].map(ApiKey::lookup_key);
    let found = bench.there().get_many(&wanted).await?;
    for key in [&one, &other] {
        ensure!(
            found.iter().any(|found| found.id == key.id),
            "asked for twice, a key isn't found"
        );
    }
    for found in &found {
        let key = [&one, &other].into_iter().find(|key| key.id == found.id);
        ensure!(key.is_some(), "a key came that wasn't asked for");
        if let Some(key) = key {
            same(key, found, "asked for twice")?;
        }
    }
    Ok(())
}

/// Uses of many keys noted in one call, and a full page that has a key behind it.
pub(super) async fn touch_and_list_many<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("full page");
    let keys = many(bench, &user).await?;
    let full = PageRequest::new().limit(MANY);
    for (page, expected) in [(full, MANY), (full.and_one_more(), MANY + 1)] {
        let listed = bench.there().list_for_user(&user, &page).await?;
        ensure!(
            listed.len() == expected,
            "of {} keys, {} are on a page of {expected}",
            keys.len(),
            listed.len()
        );
    }
    let touches: Vec<_> = (0..)
        .zip(&keys[..MANY])
        .map(|(number, key)| Touch::new(key.id, at(number)))
        .collect();
    bench.here().touch(&touches).await?;
    let wanted: Vec<_> = keys.iter().map(ApiKey::lookup_key).collect();
    let found = bench.there().get_many(&wanted).await?;
    for (at, key) in keys.iter().enumerate() {
        let expected = ApiKey {
            last_used_at: touches.get(at).map(|touch| touch.used_at),
            ..key.clone()
        };
        let found = found.iter().find(|found| found.id == key.id);
        ensure!(found.is_some(), "after many touches, a key isn't found");
        if let Some(found) = found {
            same(&expected, found, "after many touches")?;
        }
    }
    Ok(())
}

/// Where the caller can spoil a record.
pub(super) async fn what_is_malformed_is_an_error<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let Some(corrupt) = &bench.settings.corrupt else {
        return Ok(());
    };
    let (user, other) = (bench.user("malformed"), bench.user("well-formed"));
    let keys = [
        bench.stored(&user).await?,
        bench.stored(&user).await?,
        bench.stored(&user).await?,
    ];
    let elsewhere = bench.stored(&other).await?;
    let spoilt = &keys[1];
    corrupt(spoilt.id)
        .await
        .map_err(|error| Broken(format!("it couldn't be spoilt: {error}")))?;
    for node in 0..2 {
        let node = bench.node(node);
        let all = keys.each_ref().map(ApiKey::lookup_key);
        for wanted in [&all[1..2], &all[..]] {
            match node.get_many(wanted).await {
                Ok(found) => {
                    return Err(Broken(format!(
                        "`get_many` of {} keys, a spoilt one among them, gave {} and no error",
                        wanted.len(),
                        found.len()
                    )));
                }
                Err(error) => ensure!(
                    error.is_corrupt(),
                    "a spoilt record is reported as an outage: {error:?}"
                ),
            }
        }
        if bench.settings.lists {
            let listed = bench.listed(node, &user).await;
            ensure!(
                listed.is_err(),
                "a list with a spoilt record is given without an error"
            );
            let listed = bench.listed(node, &other).await?;
            ensure!(listed.len() == 1, "another user's list isn't whole");
        }
    }
    for key in [&keys[0], &keys[2], &elsewhere] {
        bench.holds(key, "beside a spoilt record").await?;
    }
    Ok(())
}
