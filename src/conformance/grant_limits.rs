//! How many grants may be pending.

use std::time::SystemTime;

use super::{
    bench::{Bench, CONTENDERS, at},
    grants::TTL,
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{
        ApiKeyBackend, GrantCursor, GrantInsertion, GrantLimits, GrantPageRequest, PageRequest,
    },
    key::{ApiKey, GrantStatus, KeyGrant},
    token::KeyId,
};

/// What isn't pending doesn't count, nor what nobody can claim any more, and of many at once no more are stored
/// than may be.
pub(super) async fn are_bounded<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    const ROOM: usize = 10;
    let (user, other) = (bench.user("bounded"), bench.user("bounded, too"));
    let now = at(1 << 20);
    let grant = |user: &str| {
        Ok::<_, Broken>(KeyGrant {
            made_at: now,
            expires_at: now + TTL,
            made_by: None,
            ..bench.grant(user)?
        })
    };
    // None of these is pending.
    let (claimed, revoked) = (grant(&user)?, grant(&user)?);
    let expired = KeyGrant {
        made_at: now - TTL,
        expires_at: now,
        ..grant(&user)?
    };
    for grant in [&claimed, &revoked, &expired] {
        bench.store_grant(grant).await?;
    }
    let mut key = bench.key(&user)?;
    key.created_at = now;
    ensure!(
        bench.here().claim(&claimed.id, &key, None).await?
            && bench.here().revoke_grant(&revoked.id, now).await?,
        "grants that are pending couldn't be claimed and revoked"
    );
    // Of these, what was made with a suspended key can be claimed when that goes on.
    let suspended = made_with_keys(bench, now, &grant(&user)?).await?;
    let before = pending(bench, now, &suspended).await?;
    let of_user = GrantLimits::new()
        .per_user(ROOM + 1)
        .in_all(before + CONTENDERS);
    let in_all = GrantLimits::new()
        .per_user(CONTENDERS)
        .in_all(before + ROOM + ROOM);
    for (user, limits, full) in [
        (&user, of_user, GrantInsertion::UserIsFull),
        (&other, in_all, GrantInsertion::Full),
    ] {
        let mut grants = Vec::new();
        for _ in 0..CONTENDERS {
            grants.push(grant(user)?);
        }
        let answers = bench.contend(|at, node| {
            let grant = grants[at].clone();
            async move { node.insert_grant(&grant, &limits).await }
        });
        let mut stored = 0;
        for answer in answers.await? {
            let answer = answer?;
            stored += usize::from(answer == GrantInsertion::Stored);
            ensure!(
                [GrantInsertion::Stored, full].contains(&answer),
                "`insert_grant` beyond the bound answered {answer:?} instead of {full:?}"
            );
        }
        ensure!(
            stored == ROOM,
            "of {CONTENDERS} grants that were stored at once, {stored} were, where there was room for {ROOM}"
        );
        let found = pending(bench, now, &suspended).await? - before;
        let expected = if *user == other { 2 * ROOM } else { ROOM };
        ensure!(
            found == expected,
            "{found} grants are pending instead of {expected}"
        );
    }
    for user in [&user, &other] {
        bench.here().revoke_grants_of_user(user, now).await?;
    }
    Ok(())
}

/// Grants as `grant` is, that were made with keys: one whose key is suspended, which is given, and others whose
/// keys are gone or revoked.
async fn made_with_keys<B: ApiKeyBackend>(
    bench: &Bench<B>,
    now: SystemTime,
    grant: &KeyGrant,
) -> Outcome<KeyId> {
    let works = ApiKey {
        expires_at: None,
        retires_at: None,
        revoked_at: None,
        revocation_reason: None,
        disabled_at: Some(now),
        ..bench.key(&bench.user("makers"))?
    };
    let mut makers = vec![(bench.id(), None)];
    for revoked_at in [None, Some(now)] {
        let key = ApiKey {
            id: bench.id(),
            revoked_at,
            ..works.clone()
        };
        makers.push((key.id, Some(key)));
    }
    for (id, key) in &makers {
        if let Some(key) = key {
            bench.store(key).await?;
        }
        let other = bench.grant(&grant.user_id)?;
        let made = KeyGrant {
            id: other.id,
            claim_hash: other.claim_hash,
            made_by: Some(*id),
            ..grant.clone()
        };
        bench.store_grant(&made).await?;
    }
    Ok(makers[1].0)
}

/// How many are pending and can be claimed, of everybody.
async fn pending<B: ApiKeyBackend>(
    bench: &Bench<B>,
    now: SystemTime,
    suspended: &KeyId,
) -> Outcome<usize> {
    let mut pending = 0;
    let mut request = GrantPageRequest::new().limit(PageRequest::MAX_LIMIT);
    loop {
        let page = bench.there().list_grants(&request).await?;
        let is_pending = |grant: &&KeyGrant| {
            let may_be_made = grant.made_by.is_none_or(|maker| maker == *suspended);
            may_be_made && grant.status(now) == GrantStatus::Pending
        };
        pending += page.iter().filter(is_pending).count();
        let Some(last) = page.last().map(GrantCursor::of) else {
            return Ok(pending);
        };
        if page.len() < request.max_grants() {
            return Ok(pending);
        }
        ensure!(
            request.cursor().is_none_or(|after| last < *after),
            "a list of grants that begins after a place doesn't go on behind it"
        );
        request = request.after(last);
    }
}
