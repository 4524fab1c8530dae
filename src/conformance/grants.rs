//! Keys that wait to be claimed: stored, bounded, taken back.

use std::time::{Duration, UNIX_EPOCH};

use super::{
    bench::{Bench, at},
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, GrantInsertion, GrantLimits, GrantPageRequest},
    key::{ClaimHash, GrantId, KeyGrant, Metadata},
    scope::Scopes,
};

/// More than there ever are.
pub(super) const NO_LIMITS: GrantLimits = GrantLimits::new()
    .per_user(usize::MAX >> 1)
    .in_all(usize::MAX >> 1);

/// How long a grant can be claimed.
pub(super) const TTL: Duration = Duration::from_secs(60);

impl<B: ApiKeyBackend> Bench<B> {
    /// A new grant for `user`. No two have anything in common.
    pub(super) fn grant(&self, user: &str) -> Outcome<KeyGrant> {
        let number = self.number();
        let (id, rest) = (self.id(), self.id());
        let mut hash = [0; ClaimHash::LEN];
        hash[..16].copy_from_slice(&rest.as_bytes()[..16]);
        hash[16..].copy_from_slice(&id.as_bytes()[8..]);
        let mut short = [0; GrantId::LEN];
        short.copy_from_slice(&id.as_bytes()[..16]);
        let scopes = Scopes::of([format!("scope:{number}"), "notes:*".to_owned()])?;
        let (id, hash) = (GrantId::from_bytes(short), ClaimHash::from_bytes(hash));
        let mut grant = KeyGrant::new(id, hash, user, scopes);
        grant.name = Some(format!("name {number}"));
        grant.metadata = Some(Metadata::from_json(format!("{{\"number\":{number}}}"))?);
        grant.key_expires_at = Some(at(number + 1));
        grant.key_lifetime = Some(Duration::from_millis(number));
        grant.made_by = Some(self.id());
        grant.made_at = at(number);
        grant.expires_at = at(number) + TTL;
        Ok(grant)
    }

    /// A new grant that is stored already.
    pub(super) async fn stored_grant(&self, user: &str) -> Outcome<KeyGrant> {
        let grant = self.grant(user)?;
        self.store_grant(&grant).await?;
        Ok(grant)
    }

    pub(super) async fn store_grant(&self, grant: &KeyGrant) -> Outcome {
        let inserted = self.here().insert_grant(grant, &NO_LIMITS).await?;
        ensure!(
            inserted == GrantInsertion::Stored,
            "`insert_grant` of a new one answered {inserted:?}"
        );
        Ok(())
    }

    /// The grant is `expected`, whichever handle reads it, and in whichever way.
    pub(super) async fn holds_grant(&self, expected: &KeyGrant, when: &str) -> Outcome {
        for node in 0..2 {
            let node = self.node(node);
            for found in [
                node.get_grant(&expected.claim_hash).await?,
                node.get_grant_by_id(&expected.id).await?,
            ] {
                match found {
                    Some(found) => same(expected, &found, when)?,
                    None => return Err(Broken(format!("{when}, the grant isn't found"))),
                }
            }
        }
        Ok(())
    }
}

/// Whether two grants say the same, and if not, in which field they differ.
fn same(expected: &KeyGrant, found: &KeyGrant, when: &str) -> Outcome {
    ensure!(
        expected.claim_hash == found.claim_hash,
        "{when}, `claim_hash` is another"
    );
    macro_rules! fields {
        ($($field:ident)*) => {$(
            ensure!(
                expected.$field == found.$field,
                "{when}, a grant's `{}` is {:?} instead of {:?}",
                stringify!($field),
                found.$field,
                expected.$field
            );
        )*};
    }
    fields!(id user_id name scopes metadata key_expires_at key_lifetime made_by);
    fields!(made_at expires_at claimed_at key_id revoked_at);
    Ok(())
}

pub(super) async fn survive<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("'; DROP TABLE grants; -- ü 🔑");
    let end_of_9999 = UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    let every_field = bench.grant(&user)?;
    let no_field = KeyGrant {
        name: None,
        metadata: None,
        key_expires_at: None,
        key_lifetime: None,
        made_by: None,
        scopes: Scopes::none(),
        ..bench.grant(&user)?
    };
    let odd = KeyGrant {
        name: Some(String::new()),
        scopes: Scopes::unrestricted(),
        key_expires_at: Some(UNIX_EPOCH),
        key_lifetime: Some(Duration::ZERO),
        made_at: UNIX_EPOCH + Duration::from_millis(1),
        expires_at: UNIX_EPOCH + Duration::from_millis(999),
        ..bench.grant(&user)?
    };
    let late = KeyGrant {
        scopes: Scopes::of(["*", "Case", "case", "!#$%&'()+-./:;<=>?@[]^_`{|}~"])?,
        key_expires_at: Some(end_of_9999),
        key_lifetime: Some(Duration::from_millis(253_402_300_799_999)),
        expires_at: end_of_9999,
        ..bench.grant(&user)?
    };
    for (grant, what) in [
        (&every_field, "a grant with every field"),
        (&no_field, "a grant without name, metadata, ends and scopes"),
        (&odd, "an unrestricted grant with times of 1970"),
        (&late, "a grant that ends with the year 9999"),
    ] {
        bench.store_grant(grant).await?;
        bench.holds_grant(grant, what).await?;
        let of_user = GrantPageRequest::new().user(&user).limit(100);
        let listed = bench.there().list_grants(&of_user).await?;
        match listed.iter().find(|listed| listed.id == grant.id) {
            Some(listed) => same(grant, listed, &format!("{what}, listed"))?,
            None => return Err(Broken(format!("{what} isn't listed"))),
        }
    }
    let unknown = bench.grant(&user)?;
    let node = bench.there();
    ensure!(
        node.get_grant(&unknown.claim_hash).await?.is_none()
            && node.get_grant_by_id(&unknown.id).await?.is_none(),
        "an unknown grant is found"
    );
    // It would count as pending in every other check.
    bench.here().revoke_grant(&late.id, late.made_at).await?;
    Ok(())
}

pub(super) async fn are_never_overwritten<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("granted");
    let first = bench.stored_grant(&user).await?;
    for node in 0..2 {
        let other = bench.grant(&user)?;
        let same_id = KeyGrant {
            id: first.id,
            ..other.clone()
        };
        let same_hash = KeyGrant {
            claim_hash: first.claim_hash,
            ..other
        };
        for (taken, what) in [(same_id, "id"), (same_hash, "hash")] {
            let inserted = bench.node(node).insert_grant(&taken, &NO_LIMITS).await?;
            ensure!(
                inserted == GrantInsertion::Taken,
                "`insert_grant` with {what} that is taken answered {inserted:?}"
            );
            let when = format!("after an insertion with its {what}");
            bench.holds_grant(&first, &when).await?;
        }
    }
    Ok(())
}

/// By another node's clock, one that has expired may be pending.
pub(super) async fn are_revoked_once<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("revoked grants");
    let mut grant = bench.stored_grant(&user).await?;
    let mut kept = bench.stored_grant(&user).await?;
    let now = grant.made_at + Duration::from_millis(1);
    for (round, expected) in [true, false, false].into_iter().enumerate() {
        let later = now + Duration::from_secs(round as u64);
        let revoked = bench.node(round).revoke_grant(&grant.id, later).await?;
        ensure!(
            revoked == expected,
            "`revoke_grant` number {} of a grant answered {revoked}",
            round + 1
        );
        grant.revoked_at = Some(now);
        bench.holds_grant(&grant, "after it was revoked").await?;
    }
    bench
        .holds_grant(&kept, "after another grant was revoked")
        .await?;
    let late = kept.expires_at + TTL;
    ensure!(
        bench.here().revoke_grant(&kept.id, late).await?,
        "a grant wasn't revoked when it had expired"
    );
    kept.revoked_at = Some(late);
    bench
        .holds_grant(&kept, "after it was revoked when it had expired")
        .await?;
    let grant = bench.stored_grant(&user).await?;
    let mut key = bench.key(&user)?;
    key.created_at = grant.made_at;
    let is_claimed = bench.here().claim(&grant.id, &key, None).await?;
    ensure!(
        is_claimed && !bench.here().revoke_grant(&grant.id, now).await?,
        "a grant that was claimed was revoked"
    );
    let unknown = bench.grant(&user)?;
    ensure!(
        !bench.here().revoke_grant(&unknown.id, now).await?,
        "`revoke_grant` of an unknown grant answered that it did"
    );
    Ok(())
}

pub(super) async fn are_revoked_by_user<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let (user, other) = (bench.user("grants of one"), bench.user("Grants of one"));
    let now = at(1 << 22);
    let mut grants = Vec::new();
    for of in [&user, &other] {
        for ends_in in [TTL, TTL, TTL, Duration::ZERO] {
            let grant = KeyGrant {
                made_at: now,
                expires_at: now + ends_in,
                ..bench.grant(of)?
            };
            bench.store_grant(&grant).await?;
            grants.push(grant);
        }
    }
    let mut key = bench.key(&user)?;
    key.created_at = now;
    ensure!(
        bench.here().claim(&grants[0].id, &key, None).await?,
        "a grant that is pending couldn't be claimed"
    );
    (grants[0].claimed_at, grants[0].key_id) = (Some(now), Some(key.id));
    for expected in [3, 0] {
        let revoked = bench.there().revoke_grants_of_user(&user, now).await?;
        ensure!(
            revoked == expected,
            "of a user's grants, {revoked} were revoked, and {expected} were neither claimed nor revoked"
        );
        for grant in &mut grants[1..4] {
            grant.revoked_at = Some(now);
        }
        for grant in &grants {
            let when = "after the open grants of a user were revoked";
            bench.holds_grant(grant, when).await?;
        }
    }
    bench.here().revoke_grants_of_user(&other, now).await?;
    Ok(())
}
