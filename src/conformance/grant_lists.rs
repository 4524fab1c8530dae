//! Lists of keys that wait to be claimed, and of what has become of the others.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use super::{
    bench::{Bench, at},
    grants::TTL,
    report::{Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, GrantCursor, GrantPageRequest},
    key::{GrantId, KeyGrant},
};

/// Those of a user, of everybody, a page at a time.
pub(super) async fn are_in_order<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (user, other) = (bench.user("listed"), bench.user("LISTED"));
    let mut places = Vec::new();
    let mut of_user = Vec::new();
    let base = bench.moment();
    for moment in [5, 1, 3] {
        // Signed bytes would have another order.
        for first in [0x80, 0x00, 0xff, 0x7f, 0x61, 0x41] {
            for whose in [&user, &other] {
                let mut grant = bench.grant(whose)?;
                let mut id = *grant.id.as_bytes();
                id.rotate_right(1);
                id[0] = first;
                grant.id = GrantId::from_bytes(id);
                grant.made_at = at(base + moment);
                grant.expires_at = grant.made_at + TTL;
                bench.store_grant(&grant).await?;
                places.push(GrantCursor::of(&grant));
                if *whose == user {
                    of_user.push(GrantCursor::of(&grant));
                }
            }
        }
    }
    for places in [&mut places, &mut of_user] {
        places.sort_unstable_by_key(|place| Reverse(*place));
    }
    let newest = bench.place(at(base + 6))?;
    let all_of_user = GrantPageRequest::new().user(&user);
    for (wanted, expected) in [
        (&all_of_user, &of_user),
        (&GrantPageRequest::new(), &places),
    ] {
        for limit in [1, 5, expected.len() - 1, expected.len()] {
            for start in [0, 1, 7, expected.len() - 2] {
                let after = start.checked_sub(1).map_or(newest, |last| expected[last]);
                let page = wanted.clone().limit(limit).after(after);
                let listed = bench.there().list_grants(&page).await?;
                let listed: Vec<_> = listed.iter().map(GrantCursor::of).collect();
                let end = (start + limit).min(expected.len());
                let is_of_all = wanted.wanted_user().is_none();
                // Behind the oldest of everybody's there may be those of other checks.
                let same = listed.starts_with(&expected[start..end])
                    && (listed.len() == end - start || is_of_all && listed.len() <= limit);
                ensure!(
                    same,
                    "a page of {limit} grants after the {start} first of {} ({}) has {}, or others than those \
                     that follow",
                    expected.len(),
                    if is_of_all { "all" } else { "those of a user" },
                    listed.len()
                );
            }
        }
    }
    let first = bench.there().list_grants(&all_of_user.limit(100)).await?;
    ensure!(
        first.len() == of_user.len() && first.iter().all(|grant| grant.user_id == user),
        "the list of a user has {} grants, or another's, where {} were stored",
        first.len(),
        of_user.len()
    );
    bench.here().revoke_grants_of_user(&user, at(base)).await?;
    bench.here().revoke_grants_of_user(&other, at(base)).await?;
    Ok(())
}

/// Whatever has become of the others, and to the millisecond.
pub(super) async fn of_pending_have_those_alone<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (user, other) = (bench.user("pending"), bench.user("Pending"));
    let now = at(bench.moment()) + Duration::from_secs(3_600);
    let mut grants = Vec::new();
    for round in 0..3 {
        for whose in [&user, &other] {
            let made_at = now - Duration::from_secs(3 - round);
            for ends_in in [TTL, Duration::from_millis(1), Duration::ZERO, TTL, TTL] {
                let grant = KeyGrant {
                    made_at,
                    expires_at: now + ends_in,
                    ..bench.grant(whose)?
                };
                bench.store_grant(&grant).await?;
                grants.push(grant);
            }
            let [.., claimed, revoked] = &mut grants[..] else {
                continue;
            };
            let mut key = bench.key(whose)?;
            key.created_at = made_at;
            ensure!(
                bench.here().claim(&claimed.id, &key, None).await?
                    && bench.here().revoke_grant(&revoked.id, made_at).await?,
                "grants that are pending couldn't be claimed and revoked"
            );
            claimed.claimed_at = Some(made_at);
            revoked.revoked_at = Some(made_at);
        }
    }
    // What others have made later isn't looked at, and what they made before has expired.
    let newest = bench.place(now)?;
    let all = GrantPageRequest::new().pending().at(now);
    for wanted in [all.clone().user(&user), all] {
        let mut expected: Vec<_> = grants.iter().filter(|grant| wanted.fits(grant)).collect();
        expected.sort_unstable_by_key(|grant| Reverse(GrantCursor::of(grant)));
        let expected: Vec<_> = expected.iter().map(|grant| grant.id).collect();
        for limit in [2, 100] {
            let mut page = wanted.clone().limit(limit).after(newest);
            let mut found = Vec::new();
            while found.len() <= expected.len() {
                let listed = bench.there().list_grants(&page).await?;
                found.extend(listed.iter().map(|grant| grant.id));
                match listed.last() {
                    Some(last) if listed.len() == limit => page = page.after(GrantCursor::of(last)),
                    _ => break,
                }
            }
            ensure!(
                found == expected,
                "of {} grants, {} are pending at a moment, and in pages of {limit} of those, {} are listed, or \
                 others",
                grants.len(),
                expected.len(),
                found.len()
            );
        }
    }
    bench.here().revoke_grants_of_user(&user, now).await?;
    bench.here().revoke_grants_of_user(&other, now).await?;
    Ok(())
}

impl<B: ApiKeyBackend> Bench<B> {
    /// The place before all grants that were made before `time`.
    fn place(&self, time: SystemTime) -> Outcome<GrantCursor> {
        Ok(GrantCursor::of(&KeyGrant {
            id: GrantId::from_bytes([0; GrantId::LEN]),
            made_at: time,
            ..self.grant("nobody")?
        }))
    }
}
