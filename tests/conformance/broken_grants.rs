//! How a broken backend keeps grants.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use tokio::{task::yield_now, time::sleep};
use tower_api_key::{
    ApiKey, GrantCursor, GrantId, GrantInsertion, GrantLimits, GrantPageRequest, GrantStatus,
    KeyGrant, KeyId, Scopes,
};

use super::broken::{Broken, Fault, lock};

impl Broken {
    pub fn find_grant(&self, is_wanted: impl Fn(&KeyGrant) -> bool) -> Option<KeyGrant> {
        let grants = lock(&self.shared.grants);
        grants.iter().find(|grant| is_wanted(grant)).cloned()
    }

    pub async fn put_grant(&self, grant: &KeyGrant, limits: &GrantLimits) -> GrantInsertion {
        let mut new = grant.clone();
        match self.fault {
            Fault::GrantLosesLifetime => new.key_lifetime = None,
            Fault::GrantLosesUnrestricted if new.scopes.is_unrestricted() => {
                new.scopes = Scopes::none();
            }
            _ => {}
        }
        let is_full = |grants: &[KeyGrant]| {
            let counts = |other: &&KeyGrant| match self.fault {
                Fault::GrantsAreCountedWithExpired => {
                    other.claimed_at.is_none() && other.revoked_at.is_none()
                }
                _ => other.status(grant.made_at) == GrantStatus::Pending,
            };
            let may_make = |maker: KeyId| match self.stored(&maker.lookup_key()) {
                None => self.is(Fault::GrantsOfEndedMakersCount),
                Some(maker) => {
                    let ended = maker.revoked_at.is_some();
                    let suspended = maker.disabled_at.is_some();
                    if ended {
                        self.is(Fault::GrantsOfEndedMakersCount)
                    } else {
                        !(suspended && self.is(Fault::GrantsOfSuspendedMakersDoNot))
                    }
                }
            };
            let counts = |other: &&KeyGrant| counts(other) && other.made_by.is_none_or(may_make);
            let of_user = |other: &&KeyGrant| other.user_id == grant.user_id;
            let pending = || grants.iter().filter(counts);
            match self.fault {
                Fault::GrantsAreUnbounded => None,
                _ if pending().filter(of_user).count() >= limits.max_per_user() => {
                    Some(GrantInsertion::UserIsFull)
                }
                Fault::GrantsOfAllAreUnbounded => None,
                _ => (pending().count() >= limits.max_in_all()).then_some(GrantInsertion::Full),
            }
        };
        let mut full = is_full(&lock(&self.shared.grants));
        if self.is(Fault::GrantsAreCountedFirst) {
            yield_now().await;
        }
        let mut grants = lock(&self.shared.grants);
        if !self.is(Fault::GrantsAreCountedFirst) {
            full = is_full(&grants);
        }
        if let Some(full) = full {
            return full;
        }
        let taken = grants.iter().position(|other| {
            let same_hash = other.claim_hash == grant.claim_hash;
            other.id == grant.id || same_hash && !self.is(Fault::GrantHashesMayRepeat)
        });
        match taken {
            None => grants.push(new),
            Some(at) if self.is(Fault::GrantInsertOverwrites) => grants[at] = new,
            Some(_) => return GrantInsertion::Taken,
        }
        GrantInsertion::Stored
    }

    pub async fn take_grant(
        &self,
        id: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> bool {
        let is_held = || {
            maker.is_none_or(|(id, version)| match self.stored(&id.lookup_key()) {
                Some(maker) => maker.version == version && maker.revoked_at.is_none(),
                None => self.is(Fault::ClaimIgnoresAMakerThatIsGone),
            })
        };
        let is_good = |grant: &KeyGrant| {
            let at_the_end = key.created_at == grant.expires_at;
            match grant.status(key.created_at) {
                GrantStatus::Pending => true,
                GrantStatus::Expired => {
                    self.is(Fault::ClaimIgnoresTheEnd)
                        || self.is(Fault::ClaimIsGoodAtTheEnd) && at_the_end
                }
                GrantStatus::Revoked => self.is(Fault::ClaimIgnoresRevocation),
                _ => false,
            }
        };
        let found = self.find_grant(|grant| grant.id == *id);
        let mut may = found.is_some_and(|grant| is_good(&grant));
        let mut holds = is_held();
        if matches!(
            self.fault,
            Fault::ClaimChecksFirst
                | Fault::ClaimAndRevocationMiss
                | Fault::ClaimLooksAtTheMakerFirst
        ) {
            sleep(Duration::from_millis(5)).await;
        }
        let torn = {
            let mut grants = lock(&self.shared.grants);
            let Some(grant) = grants.iter_mut().find(|grant| grant.id == *id) else {
                return false;
            };
            match self.fault {
                Fault::ClaimChecksFirst => {}
                Fault::ClaimAndRevocationMiss => may &= grant.claimed_at.is_none(),
                _ => may = is_good(grant),
            }
            let mut records = self.records();
            // As `is_held`, under the lock of those who change it.
            if let (Some((id, version)), false) = (maker, self.is(Fault::ClaimLooksAtTheMakerFirst))
            {
                holds = match records.get(&id.lookup_key()) {
                    Some(maker) => maker.version == version && maker.revoked_at.is_none(),
                    None => self.is(Fault::ClaimIgnoresAMakerThatIsGone),
                };
            }
            if !may || !(holds || self.is(Fault::ClaimIgnoresTheMaker)) {
                return false;
            }
            let is_taken = records.contains_key(&key.lookup_key());
            if !is_taken || self.is(Fault::ClaimMarksThoughTaken) {
                (grant.claimed_at, grant.key_id) = (Some(key.created_at), Some(key.id));
            }
            let is_torn = self.is(Fault::DroppedClaimIsTorn);
            if !is_torn && (!is_taken || self.is(Fault::ClaimOverwrites)) {
                records.insert(key.lookup_key(), self.kept(key));
            }
            if is_taken {
                return false;
            }
            is_torn
        };
        if torn {
            yield_now().await;
            self.records().insert(key.lookup_key(), self.kept(key));
        }
        if !self.is(Fault::ClaimIsNotTold) {
            self.tell(key.lookup_key()).await;
        }
        true
    }

    pub fn take_back(&self, is_wanted: impl Fn(&KeyGrant) -> bool, at: SystemTime) -> usize {
        let mut revoked = 0;
        for grant in &mut *lock(&self.shared.grants) {
            let is_open = match grant.status(at) {
                GrantStatus::Pending => true,
                GrantStatus::Expired => !self.is(Fault::GrantSparesTheExpired),
                GrantStatus::Claimed => self.is(Fault::GrantRevokesTheClaimed),
                GrantStatus::Revoked => self.is(Fault::GrantRevocationMoves),
                _ => false,
            };
            if is_open && is_wanted(grant) {
                grant.revoked_at = Some(at);
                revoked += 1;
            }
        }
        revoked
    }

    pub fn page_of_grants(&self, page: &GrantPageRequest) -> Vec<KeyGrant> {
        let mut grants = lock(&self.shared.grants).clone();
        grants.retain(|grant| {
            let user_id = page.wanted_user();
            match self.fault {
                Fault::GrantListLeaks => {
                    user_id.is_none_or(|it| grant.user_id.eq_ignore_ascii_case(it))
                }
                _ => user_id.is_none_or(|it| grant.user_id == it),
            }
        });
        grants.retain(|grant| {
            page.pending_at().is_none_or(|at| match self.fault {
                Fault::GrantListIgnoresPending => true,
                Fault::GrantListTakesTheExpired => {
                    grant.claimed_at.is_none() && grant.revoked_at.is_none()
                }
                Fault::GrantListTakesWhatEndsNow if grant.expires_at == at => true,
                Fault::GrantListTakesTheRevoked if grant.revoked_at.is_some() => true,
                _ => grant.status(at) == GrantStatus::Pending,
            })
        });
        grants.retain(|grant| {
            page.cursor().is_none_or(|cursor| {
                let place = GrantCursor::of(grant);
                place < *cursor || place == *cursor && self.is(Fault::GrantListRepeats)
            })
        });
        grants.sort_by_key(|grant| Reverse(GrantCursor::of(grant)));
        if self.is(Fault::GrantListIsOldestFirst) {
            grants.reverse();
        }
        if !self.is(Fault::GrantListIgnoresLimit) {
            grants.truncate(page.max_grants());
        }
        grants
    }
}
