//! Why a key isn't rotated.

/// Why a key isn't rotated, or why its rotation isn't ended that way. Nothing was changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// There is no such key.
    #[error("no key has this id")]
    Unknown,
    /// The key was revoked.
    #[error("it was revoked")]
    Revoked,
    /// The key's end has come, that of an overlap among them.
    #[error("it has expired, or its overlap is over")]
    Expired,
    /// The key is suspended: [enable](crate::ApiKeyStore::enable) it first.
    #[error("it is suspended")]
    Disabled,
    /// The key has a successor: another was first.
    #[error("it has a successor already")]
    RotatedAlready,
    /// The key has no successor, or its rotation is being cancelled.
    #[error("it isn't being rotated")]
    NotRotated,
}
