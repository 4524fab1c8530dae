//! One thing that happened.

use std::{fmt, sync::Arc, time::SystemTime};

use super::kind::{EventKind, Sort};
use crate::{
    key::{ApiKey, GrantId, KeyGrant, RevocationReason},
    token::KeyId,
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
    /// | `keys.revoked` | [`ManyRevoked`](EventKind::ManyRevoked) | user |
    /// | `key.deleted` | [`Deleted`](EventKind::Deleted) | key, user where the record could be read |
    /// | `records.purged` | [`Purged`](EventKind::Purged) | |
    /// | `key.leak_reported` | [`LeakReported`](EventKind::LeakReported) | key |
    /// | `key.rejected` | [`Rejected`](EventKind::Rejected) | key, where the token says which |
    /// | `pepper.rewrapped` | [`PepperRewrapped`](EventKind::PepperRewrapped) | key, user |
    /// | `grant.made` | [`GrantMade`](EventKind::GrantMade) | grant, user |
    /// | `grant.claimed` | [`Claimed`](EventKind::Claimed) | grant, key, user |
    /// | `grant.claim_refused` | [`ClaimRefused`](EventKind::ClaimRefused) | grant and user, where the token is one |
    /// | `grant.revoked` | [`GrantRevoked`](EventKind::GrantRevoked) | grant, or the user whose grants all were |
    /// | `backend.warning` | [`BackendWarning`](EventKind::BackendWarning) | |
    /// | `events.missed` | [`Missed`](EventKind::Missed) | |
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Why it happened, where there is a reason: of a revocation, of a refused claim, of a rejection.
    /// Of a warning, what it says.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match &self.kind {
            EventKind::Revoked { reason } | EventKind::ManyRevoked { reason, .. } => {
                reason.as_ref().map(RevocationReason::as_str)
            }
            EventKind::ClaimRefused { reason } => Some(reason.as_str()),
            EventKind::Rejected { reason } => Some(reason.as_str()),
            EventKind::BackendWarning { warning } => Some(warning),
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
            // A token of a key that is revoked can be reported again and again, and one that was claimed
            // presented.
            EventKind::ClaimRefused { .. } | EventKind::LeakReported => Sort::Repeatable,
            EventKind::Revoked { .. }
            | EventKind::ManyRevoked { .. }
            | EventKind::Disabled
            | EventKind::Deleted => Sort::Inactive,
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
        if let Some(records) = self.kind.records() {
            write!(f, " records={records}")?;
        }
        match &self.kind {
            EventKind::Missed(missed) => write!(
                f,
                " inactive={} changes={} repeatable={} rejections={}",
                missed.inactive, missed.changes, missed.repeatable, missed.rejections
            ),
            _ => Ok(()),
        }
    }
}
