//! Lists, a page at a time.

use std::cmp::Reverse;

use super::{
    bench::{Bench, at, same},
    report::{Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, Cursor, PageRequest},
    key::ApiKey,
    token::KeyId,
};

/// How keys follow one another.
fn in_order(mut keys: Vec<ApiKey>) -> Vec<ApiKey> {
    keys.sort_unstable_by_key(|key| Reverse((key.created_at, key.id)));
    keys
}

/// Keys of one user in no order, several of them made at the same moment.
async fn some<B: ApiKeyBackend>(bench: &Bench<B>, user: &str) -> Outcome<Vec<ApiKey>> {
    let mut keys = Vec::new();
    for moment in [5, 1, 3] {
        // Signed bytes, and texts that are compared by a collation, would have another order.
        for first in [0x80, 0x00, 0xff, 0x7f, 0x61, 0x41, 0x5a, 0x7a] {
            let mut key = bench.key(user)?;
            key.id = bench.id_from(first);
            key.created_at = at(moment);
            bench.store(&key).await?;
            keys.push(key);
        }
    }
    Ok(in_order(keys))
}

fn ids(keys: &[ApiKey]) -> Vec<KeyId> {
    keys.iter().map(|key| key.id).collect()
}

pub(super) async fn are_in_order<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("order");
    let keys = some(bench, &user).await?;
    for node in 0..2 {
        let listed = bench.listed(bench.node(node), &user).await?;
        ensure!(
            listed.len() == keys.len(),
            "of {} keys, {} are listed",
            keys.len(),
            listed.len()
        );
        for (at, (listed, key)) in listed.iter().zip(&keys).enumerate() {
            ensure!(
                listed.id == key.id,
                "at place {at} stands {}, which isn't next from the newest to the oldest, \
                 nor among those of one moment from the highest id to the lowest",
                listed.id
            );
            same(key, listed, "listed")?;
        }
    }
    Ok(())
}

pub(super) async fn have_no_others<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (user, other) = (bench.user("one"), bench.user("another"));
    let keys = some(bench, &user).await?;
    some(bench, &other).await?;
    let mut pages = vec![PageRequest::new().limit(PageRequest::MAX_LIMIT)];
    pages.extend(
        keys.iter()
            .map(|key| PageRequest::new().after(Cursor::of(key))),
    );
    for page in pages {
        let listed = bench.there().list_for_user(&user, &page).await?;
        ensure!(
            listed.iter().all(|key| key.user_id == user),
            "a page has another user's key"
        );
    }
    let nobody = bench.listed(bench.there(), &bench.user("nobody")).await?;
    ensure!(nobody.is_empty(), "a user without keys has some");
    Ok(())
}

pub(super) async fn have_a_limit<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("limit");
    let stored = some(bench, &user).await?;
    let keys = ids(&stored);
    for limit in [1, 2, 8, 9, keys.len() - 1, keys.len(), keys.len() + 1] {
        for start in [0, 1, 7, 8, keys.len() - 1, keys.len()] {
            let mut page = PageRequest::new().limit(limit);
            if let Some(last) = start.checked_sub(1) {
                page = page.after(Cursor::of(&stored[last]));
            }
            let listed = ids(&bench.there().list_for_user(&user, &page).await?);
            let end = (start + limit).min(keys.len());
            ensure!(
                listed == keys[start..end],
                "a page of {limit} keys after the {start} first of {} has {} keys, or others than \
                 those that follow",
                keys.len(),
                listed.len()
            );
        }
    }
    Ok(())
}

/// Walks through a list while keys are created before, in and behind what was seen, and seen ones
/// go.
pub(super) async fn neither_repeat_nor_hide<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("pages");
    let keys = some(bench, &user).await?;
    let mut seen: Vec<KeyId> = Vec::new();
    let mut expected = ids(&keys);
    let mut page = PageRequest::new().limit(3);
    // A list that never ends isn't walked through for ever.
    for _ in 0..keys.len() * 2 {
        let listed = bench.there().list_for_user(&user, &page).await?;
        let Some(last) = listed.last() else { break };
        for key in &listed {
            ensure!(!seen.contains(&key.id), "{} is on two pages", key.id);
            seen.push(key.id);
        }
        page = page.after(Cursor::of(last));
        let newer = ApiKey {
            created_at: at(9),
            ..bench.key(&user)?
        };
        bench.store(&newer).await?;
        if seen.len() <= 9 {
            let oldest = ApiKey {
                created_at: at(0),
                ..bench.key(&user)?
            };
            bench.store(&oldest).await?;
            expected.push(oldest.id);
        }
        // The place of a key that is gone is a place all the same.
        if (seen.len() / 3).is_multiple_of(2) {
            bench.here().delete(&last.id).await?;
            bench.here().delete(&seen[0]).await?;
        }
    }
    let missing = expected.iter().filter(|id| !seen.contains(id)).count();
    ensure!(missing == 0, "{missing} keys are on no page");
    ensure!(
        seen.len() == expected.len(),
        "a page has a key that belongs before it"
    );
    Ok(())
}
