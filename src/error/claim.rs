//! Why a claim is refused.

/// Why a key can't be [claimed](crate::ApiKeyStore::claim).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimRefusal {
    /// There is no such token: it was made up, or its grant was purged.
    #[error("the token is unknown")]
    Unknown,
    /// The key was claimed already. Where whom it was for hasn't done so, somebody else has: revoke it.
    #[error("it was claimed already")]
    Claimed,
    /// The grant was revoked.
    #[error("the grant was revoked")]
    Revoked,
    /// The grant's time was over.
    #[error("the grant has expired")]
    Expired,
    /// The key with which it was handed off doesn't work any more, or can't do now what the new one is to.
    #[error("the key that it was handed off with has ended, or holds less now")]
    MakerEnded,
}

impl ClaimRefusal {
    /// Its name: `unknown`, `claimed`, `revoked`, `expired`, `maker_ended`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Claimed => "claimed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::MakerEnded => "maker_ended",
        }
    }
}
