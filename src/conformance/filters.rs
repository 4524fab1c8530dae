//! Lists by a filter.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use super::{
    bench::{Bench, same},
    report::{Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, Cursor, KeyFilter, PageRequest},
    key::ApiKey,
    token::SecretHash,
};

/// A time on the scale of one check, in milliseconds.
type Time = Option<u64>;

/// When keys are made, expire, retire, are used, are revoked.
const KEYS: &[(u64, Time, Time, Time, Time)] = &[
    (1, None, None, None, None),
    (1, Some(4), None, None, None),
    (1, None, Some(4), Some(5), None),
    (2, Some(4), Some(6), Some(2), None),
    (2, Some(6), Some(4), None, Some(3)),
    (3, Some(5), None, Some(3), None),
    (3, None, Some(3), Some(4), None),
    (4, Some(3), Some(3), None, None),
    (5, Some(6), None, Some(6), Some(6)),
    (6, None, Some(5), None, None),
];

pub(super) async fn have_what_fits<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let at = |millis: u64| bench.window() + Duration::from_millis(millis);
    let (user, other) = (bench.user("filtered"), bench.user("Filtered"));
    let maker = bench.id();
    let (pepper, other_pepper) = (bench.pepper("c")?, bench.pepper("d")?);
    let mut keys = Vec::new();
    for &(made, expires, retires, used, revoked) in KEYS {
        for user in [&user, &other] {
            let (place, key) = (keys.len(), bench.key(user)?);
            let pepper = [pepper, other_pepper][place / 2 % 2];
            let key = ApiKey {
                created_at: at(made),
                expires_at: expires.map(at),
                retires_at: retires.map(at),
                last_used_at: used.map(at),
                revoked_at: revoked.map(at),
                made_by: [None, Some(maker), Some(bench.id())][place % 3],
                secret_hash: SecretHash::from_hex(pepper, &key.secret_hash.to_hex())?,
                ..key
            };
            bench.store(&key).await?;
            keys.push(key);
        }
    }
    let of_user = || KeyFilter::new().user(&user);
    // Nobody else's keys end in this window, so a list of everybody's can be foreseen, too.
    let of_all = || KeyFilter::new().ends_from(at(0)).ends_before(at(10));
    for filter in [
        of_user(),
        of_all(),
        of_user().made_by(maker),
        KeyFilter::new().made_by(maker),
        of_user().pepper(pepper),
        KeyFilter::new().pepper(other_pepper),
    ] {
        for filter in [filter.clone(), filter.with_revoked()] {
            lists(bench, &keys, &filter, 3).await?;
        }
    }
    for millis in 2..7 {
        let time = at(millis);
        for filter in [
            of_user().ends_from(time),
            of_user().ends_before(time),
            of_user().unused_since(time),
            of_all().ends_from(time).with_revoked(),
            of_all().ends_before(time).made_by(maker),
            of_all().ends_before(time).unused_since(at(4)),
            of_all().ends_before(time).pepper(pepper),
            of_all().unused_since(time).user(&other),
        ] {
            lists(bench, &keys, &filter, PageRequest::MAX_LIMIT).await?;
        }
    }
    Ok(())
}

/// Those of `keys` that fit, and no others, in pages of `limit`.
async fn lists<B: ApiKeyBackend>(
    bench: &Bench<B>,
    keys: &[ApiKey],
    filter: &KeyFilter,
    limit: usize,
) -> Outcome {
    let mut expected: Vec<_> = keys.iter().filter(|key| filter.fits(key)).collect();
    expected.sort_unstable_by_key(|key| Reverse((key.created_at, key.id)));
    let mut page = PageRequest::new().limit(limit);
    let mut found = Vec::new();
    while found.len() <= expected.len() {
        let listed = bench.there().list(filter, &page).await?;
        ensure!(
            listed.len() <= limit,
            "a page of {limit} keys has {}",
            listed.len()
        );
        let is_last = listed.len() < limit;
        let Some(last) = listed.last() else { break };
        page = page.after(Cursor::of(last));
        found.extend(listed);
        if is_last {
            break;
        }
    }
    for key in &found {
        ensure!(
            filter.fits(key),
            "{key:?} is in the list of {filter:?}, which it doesn't fit"
        );
    }
    ensure!(
        found.len() == expected.len(),
        "of {} keys that fit {filter:?}, {} are listed",
        expected.len(),
        found.len()
    );
    for (expected, found) in expected.iter().zip(&found) {
        same(expected, found, "listed by a filter, in the order of lists")?;
    }
    Ok(())
}

impl<B: ApiKeyBackend> Bench<B> {
    /// A time that no other run has keys at.
    fn window(&self) -> SystemTime {
        super::bench::at(1_000_000_000) + self.offset()
    }
}
