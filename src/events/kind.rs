//! What can happen.

use std::time::SystemTime;

use crate::{
    error::ClaimRefusal,
    key::{ApiKey, RevocationReason},
    token::{KeyId, PepperId},
    verify::VerifyErrorKind,
};

/// What happened. What all events may say, whose key it was and which, is in [`Event`](crate::Event); a variant has what
/// it alone says.
///
/// To go on compiling when a variant comes to say more, match `Updated { .. }` and not `Updated`, where its
/// documentation calls it non-exhaustive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A key was made by [`create`](crate::ApiKeyStore::create) or
    /// [`create_as`](crate::ApiKeyStore::create_as). Keys that are made by a claim or a rotation are told by
    /// [`Claimed`](Self::Claimed) and [`Rotated`](Self::Rotated).
    #[non_exhaustive]
    Created {
        /// The key with which it was made, where a key made it.
        made_by: Option<KeyId>,
    },
    /// A key that was made elsewhere was taken over.
    Imported,
    /// A key's name, scopes, end or metadata were changed.
    #[non_exhaustive]
    Updated,
    /// A key was suspended.
    Disabled,
    /// A suspended key works again.
    Enabled,
    /// Another key takes a key's place.
    #[non_exhaustive]
    Rotated {
        /// The other key.
        successor: KeyId,
    },
    /// The rotation of a key was taken back.
    RotationCancelled,
    /// A key was revoked.
    #[non_exhaustive]
    Revoked {
        /// Why, where that was said.
        reason: Option<RevocationReason>,
    },
    /// Many keys of a user were revoked at once, over a hundred: this tells of all of them, in the place of an event
    /// of each.
    #[non_exhaustive]
    ManyRevoked {
        /// How many, 1,000 at the most.
        keys: u64,
        /// Why, where that was said.
        reason: Option<RevocationReason>,
    },
    /// A key's record was removed.
    Deleted,
    /// The records of keys and grants that had ended were removed.
    #[non_exhaustive]
    Purged {
        /// How many, 1,000 at the most.
        records: u64,
    },
    /// The token of a key was reported as leaked, with the right secret. Its revocation, where it wasn't
    /// revoked yet, is an event of its own.
    LeakReported,
    /// A key's hash was made anew under another pepper.
    #[non_exhaustive]
    PepperRewrapped {
        /// The pepper that it was under.
        from: PepperId,
        /// The one that it is under now.
        to: PepperId,
    },
    /// A key was handed off: whoever has the token of the grant can claim it.
    #[non_exhaustive]
    GrantMade {
        /// The key with which it was handed off, where a key did.
        made_by: Option<KeyId>,
    },
    /// A grant was claimed, and its key made.
    Claimed,
    /// Somebody wanted to claim a key and wasn't let. A second claim is one: somebody may have got hold of
    /// the token before its owner did.
    #[non_exhaustive]
    ClaimRefused {
        /// Why.
        reason: ClaimRefusal,
    },
    /// A grant was revoked before it was claimed. Without the grant's id: all of the user's that were pending.
    #[non_exhaustive]
    GrantRevoked,
    /// A token was presented and not accepted.
    #[non_exhaustive]
    Rejected {
        /// Why.
        reason: VerifyErrorKind,
    },
    /// The backend found something, when it was opened, that an operator should change. It happens
    /// when the store is built, so a recorder and the log have it, and no stream of events.
    #[non_exhaustive]
    BackendWarning {
        /// What it is, and what to do.
        warning: String,
    },
    /// Events are missing here: whoever reads was too slow, or couldn't record them.
    Missed(MissedEvents),
}

/// How many events a reader has missed. The event that tells of it has the time and the number of the last
/// of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MissedEvents {
    /// Revoked, disabled and deleted keys.
    pub inactive: u64,
    /// Other changes of keys and grants.
    pub changes: u64,
    /// What whoever holds a key's token or a claim token can cause any number of: reports that the token has
    /// leaked, and refused claims of grants that exist.
    pub repeatable: u64,
    /// Rejected tokens, and claims with tokens that are none.
    pub rejections: u64,
}

/// Which events are bounded together: what strangers can make many of must not push out the others, nor must
/// what a holder of one token, even of a key that has ended, can make many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// A key became inactive. Its own class, so that a flood of new keys evicts no revocation.
    Inactive,
    Change,
    Repeatable,
    Rejection,
}

impl Sort {
    pub(super) const COUNT: usize = 4;
}

impl EventKind {
    /// What the change from one record to the other was; nothing where another change is going to tell of it.
    pub(crate) fn of_change(before: &ApiKey, after: &ApiKey) -> Option<Self> {
        let begins = |before: Option<SystemTime>, after: Option<SystemTime>| {
            before.is_none() && after.is_some()
        };
        Some(if begins(before.revoked_at, after.revoked_at) {
            Self::Revoked {
                reason: after.revocation_reason.clone(),
            }
        } else if begins(before.disabled_at, after.disabled_at) {
            Self::Disabled
        } else if begins(after.disabled_at, before.disabled_at) {
            Self::Enabled
        } else if before.successor.is_some() && after.successor.is_none() {
            Self::RotationCancelled
        } else if begins(after.retires_at, before.retires_at) {
            // A rotation is cancelled in two steps, and this is the first.
            return None;
        } else {
            Self::Updated
        })
    }

    /// The key with which a key or a grant was made, where a key made it.
    #[must_use]
    pub fn made_by(&self) -> Option<KeyId> {
        match self {
            Self::Created { made_by } | Self::GrantMade { made_by } => *made_by,
            _ => None,
        }
    }

    /// The key that takes the place of one that was rotated.
    #[must_use]
    pub fn successor(&self) -> Option<KeyId> {
        match self {
            Self::Rotated { successor } => Some(*successor),
            _ => None,
        }
    }

    /// The pepper that a hash was under, and the one that it is under now.
    #[must_use]
    pub fn peppers(&self) -> Option<(PepperId, PepperId)> {
        match self {
            Self::PepperRewrapped { from, to } => Some((*from, *to)),
            _ => None,
        }
    }

    /// How many records were removed, or revoked at once.
    #[must_use]
    pub fn records(&self) -> Option<u64> {
        match self {
            Self::Purged { records } | Self::ManyRevoked { keys: records, .. } => Some(*records),
            _ => None,
        }
    }

    /// Its name, which stays the same; see [`Event::name`](crate::Event::name).
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
            Self::ManyRevoked { .. } => "keys.revoked",
            Self::Deleted => "key.deleted",
            Self::Purged { .. } => "records.purged",
            Self::LeakReported => "key.leak_reported",
            Self::PepperRewrapped { .. } => "pepper.rewrapped",
            Self::GrantMade { .. } => "grant.made",
            Self::Claimed => "grant.claimed",
            Self::ClaimRefused { .. } => "grant.claim_refused",
            Self::GrantRevoked => "grant.revoked",
            Self::Rejected { .. } => "key.rejected",
            Self::BackendWarning { .. } => "backend.warning",
            Self::Missed(_) => "events.missed",
        }
    }
}
