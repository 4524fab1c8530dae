//! One thing that happened.

use std::{fmt, sync::Arc, time::SystemTime};

use crate::{
    error::ClaimRefusal,
    key::{ApiKey, GrantId, KeyGrant, RevocationReason},
    token::{KeyId, PepperId},
    verify::VerifyErrorKind,
};

/// Something that happened to a key, to a grant, or to a token that was presented.
///
/// It has no token, secret, hash, key name or metadata in it. `Display` is one line, whatever the user id
/// and the reason are, which may have come into the database by other ways than through this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When it happened, to the millisecond.
    pub at: SystemTime,
    /// Counts what the store's readers can hear: it rises from event to event. An event that is recorded
    /// twice has the same number both times. It begins anew with each store that is built.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
    /// The key that it happened to, where it is known.
    pub key_id: Option<KeyId>,
    /// Whose key or grant it is, where that is known.
    pub user_id: Option<Arc<str>>,
    /// The grant that it happened to, or that a key came from.
    pub grant_id: Option<GrantId>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A key was made.
    Created {
        /// The key with which it was made, where a key made it.
        made_by: Option<KeyId>,
    },
    /// A key that was made elsewhere was taken over.
    Imported,
    /// A key's name, scopes, end or metadata were changed.
    Updated,
    /// A key was suspended.
    Disabled,
    /// A suspended key works again.
    Enabled,
    /// Another key takes a key's place.
    Rotated {
        /// The other key.
        successor: KeyId,
    },
    /// The rotation of a key was taken back.
    RotationCancelled,
    /// A key was revoked.
    Revoked {
        /// Why, where that was said.
        reason: Option<RevocationReason>,
    },
    /// A key's record was removed.
    Deleted,
    /// The records of keys and grants that had ended were removed.
    Purged {
        /// How many, 1,000 at the most.
        keys: u64,
    },
    /// The token of a key was reported as leaked, with the right secret. Its revocation, where it wasn't
    /// revoked yet, is an event of its own.
    LeakReported,
    /// A key's hash was made anew under another pepper.
    PepperRewrapped {
        /// The pepper that it was under.
        from: PepperId,
        /// The one that it is under now.
        to: PepperId,
    },
    /// A key was handed off: whoever has the token of the grant can claim it.
    GrantMade {
        /// The key with which it was handed off, where a key did.
        made_by: Option<KeyId>,
    },
    /// A grant was claimed, and its key made.
    Claimed,
    /// Somebody wanted to claim a key and wasn't let. A second claim is one: somebody may have got hold of
    /// the token before its owner did.
    ClaimRefused {
        /// Why.
        reason: ClaimRefusal,
    },
    /// A grant was revoked before it was claimed. Without the grant's id: all of the user's that were pending.
    GrantRevoked,
    /// A token was presented and not accepted.
    Rejected {
        /// Why.
        reason: VerifyErrorKind,
    },
    /// Events are missing here: whoever reads was too slow, or couldn't record them.
    Missed(MissedEvents),
}

/// How many events a reader has missed. The event that tells of it has the time and the number of the last
/// of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MissedEvents {
    /// What happened to keys and grants.
    pub changes: u64,
    /// Refused claims of grants that exist.
    pub refused_claims: u64,
    /// Rejected tokens, and claims with tokens that are none.
    pub rejections: u64,
}

/// Which events are bounded together: what strangers can make many of must not push out the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Change,
    RefusedClaim,
    Rejection,
}

impl Sort {
    pub(super) const COUNT: usize = 3;
}

impl EventKind {
    /// What the change from one record to the other was.
    pub(crate) fn of_change(before: &ApiKey, after: &ApiKey) -> Self {
        let (from, to) = (before.secret_hash.pepper(), after.secret_hash.pepper());
        match after.successor {
            _ if before.revoked_at.is_none() && after.revoked_at.is_some() => Self::Revoked {
                reason: after.revocation_reason.clone(),
            },
            _ if before.disabled_at.is_none() && after.disabled_at.is_some() => Self::Disabled,
            _ if before.disabled_at.is_some() && after.disabled_at.is_none() => Self::Enabled,
            // A key of which a digest is kept has none, and gets none.
            _ if from != to
                && let (Some(&from), Some(&to)) = (from, to) =>
            {
                Self::PepperRewrapped { from, to }
            }
            Some(successor) if before.successor.is_none() => Self::Rotated { successor },
            None if before.successor.is_some() => Self::RotationCancelled,
            _ => Self::Updated,
        }
    }

    /// The key with which a key or a grant was made.
    pub(crate) fn made_by(&self) -> Option<KeyId> {
        match self {
            Self::Created { made_by } | Self::GrantMade { made_by } => *made_by,
            _ => None,
        }
    }

    pub(crate) fn successor(&self) -> Option<KeyId> {
        match self {
            Self::Rotated { successor } => Some(*successor),
            _ => None,
        }
    }

    /// The pepper before, and the one now.
    pub(crate) fn peppers(&self) -> Option<(PepperId, PepperId)> {
        match self {
            Self::PepperRewrapped { from, to } => Some((*from, *to)),
            _ => None,
        }
    }

    /// How many keys it is about, where it says that.
    pub(crate) fn keys(&self) -> Option<u64> {
        match self {
            Self::Purged { keys } => Some(*keys),
            _ => None,
        }
    }

    /// Its name, which stays the same; see [`Event::name`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "key.created",
            Self::Imported => "key.imported",
            Self::Updated => "key.updated",
            Self::Disabled => "key.disabled",
            Self::Enabled => "key.enabled",
            Self::Rotated { .. } => "key.rotated",
            Self::RotationCancelled => "key.rotation_cancelled",
            Self::Revoked { .. } => "key.revoked",
            Self::Deleted => "key.deleted",
            Self::Purged { .. } => "keys.purged",
            Self::LeakReported => "key.leak_reported",
            Self::PepperRewrapped { .. } => "pepper.rewrapped",
            Self::GrantMade { .. } => "grant.made",
            Self::Claimed => "grant.claimed",
            Self::ClaimRefused { .. } => "grant.claim_refused",
            Self::GrantRevoked => "grant.revoked",
            Self::Rejected { .. } => "key.rejected",
            Self::Missed(_) => "events.missed",
        }
    }
}

impl Event {
    /// What happened, as a name that stays the same:
    ///
    /// | name | kind | ids |
    /// | --- | --- | --- |
    /// | `key.created` | [`Created`](EventKind::Created) | key, user |
    /// | `key.imported` | [`Imported`](EventKind::Imported) | key, user |
    /// | `key.updated` | [`Updated`](EventKind::Updated) | key, user |
    /// | `key.disabled` | [`Disabled`](EventKind::Disabled) | key, user |
    /// | `key.enabled` | [`Enabled`](EventKind::Enabled) | key, user |
    /// | `key.rotated` | [`Rotated`](EventKind::Rotated) | the old key, user |
    /// | `key.rotation_cancelled` | [`RotationCancelled`](EventKind::RotationCancelled) | the old key, user |
    /// | `key.revoked` | [`Revoked`](EventKind::Revoked) | key, user |
    /// | `key.deleted` | [`Deleted`](EventKind::Deleted) | key |
    /// | `keys.purged` | [`Purged`](EventKind::Purged) | |
    /// | `key.leak_reported` | [`LeakReported`](EventKind::LeakReported) | key |
    /// | `key.rejected` | [`Rejected`](EventKind::Rejected) | key, where the token says which |
    /// | `pepper.rewrapped` | [`PepperRewrapped`](EventKind::PepperRewrapped) | key, user |
    /// | `grant.made` | [`GrantMade`](EventKind::GrantMade) | grant, user |
    /// | `grant.claimed` | [`Claimed`](EventKind::Claimed) | grant, key, user |
    /// | `grant.claim_refused` | [`ClaimRefused`](EventKind::ClaimRefused) | grant and user, where the token is one |
    /// | `grant.revoked` | [`GrantRevoked`](EventKind::GrantRevoked) | grant, or the user whose grants all were |
    /// | `events.missed` | [`Missed`](EventKind::Missed) | |
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Why it happened, where there is a reason: of a revocation, of a refused claim, of a rejection.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match &self.kind {
            EventKind::Revoked { reason } => reason.as_ref().map(RevocationReason::as_str),
            EventKind::ClaimRefused { reason } => Some(reason.as_str()),
            EventKind::Rejected { reason } => Some(reason.as_str()),
            _ => None,
        }
    }

    /// One that says nothing yet of whom it is about. Who emits it says when it happened.
    pub(crate) fn of(kind: EventKind) -> Self {
        Self {
            at: SystemTime::UNIX_EPOCH,
            number: 0,
            kind,
            key_id: None,
            user_id: None,
            grant_id: None,
        }
    }

    pub(crate) fn about(kind: EventKind, key: &ApiKey) -> Self {
        Self::of(kind).key(key.id).user(&key.user_id)
    }

    pub(crate) fn key(mut self, id: impl Into<Option<KeyId>>) -> Self {
        self.key_id = id.into();
        self
    }

    pub(crate) fn user(mut self, user_id: &str) -> Self {
        self.user_id = Some(user_id.into());
        self
    }

    pub(crate) fn grant(mut self, grant: &KeyGrant) -> Self {
        self.grant_id = Some(grant.id);
        self.user(&grant.user_id)
    }

    pub(super) fn sort(&self) -> Sort {
        match self.kind {
            EventKind::Rejected { .. } => Sort::Rejection,
            // Whoever makes tokens up can have any number of these refused.
            EventKind::ClaimRefused { .. } if self.grant_id.is_none() => Sort::Rejection,
            EventKind::ClaimRefused { .. } => Sort::RefusedClaim,
            _ => Sort::Change,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(id) = &self.key_id {
            write!(f, " key_id={id}")?;
        }
        if let Some(id) = &self.grant_id {
            write!(f, " grant_id={id}")?;
        }
        // Quoted and escaped: what a line break would begin isn't a line of ours.
        if let Some(id) = &self.user_id {
            write!(f, " user_id={id:?}")?;
        }
        if let Some(reason) = self.reason() {
            write!(f, " reason={reason:?}")?;
        }
        if let Some(id) = self.kind.made_by() {
            write!(f, " made_by={id}")?;
        }
        if let Some(id) = self.kind.successor() {
            write!(f, " successor={id}")?;
        }
        if let Some((from, to)) = self.kind.peppers() {
            write!(f, " from={from} to={to}")?;
        }
        if let Some(keys) = self.kind.keys() {
            write!(f, " keys={keys}")?;
        }
        match &self.kind {
            EventKind::Missed(missed) => write!(
                f,
                " changes={} refused_claims={} rejections={}",
                missed.changes, missed.refused_claims, missed.rejections
            ),
            _ => Ok(()),
        }
    }
}
