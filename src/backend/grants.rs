//! How many keys may wait to be claimed.

/// How many grants may be pending at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct GrantLimits {
    per_user: usize,
    in_all: usize,
}

impl GrantLimits {
    /// 100 for keys of one user, 10,000 in all.
    pub const fn new() -> Self {
        Self {
            per_user: 100,
            in_all: 10_000,
        }
    }

    /// How many may be pending for keys of one user, 1 at the least.
    pub const fn per_user(mut self, grants: usize) -> Self {
        self.per_user = if grants == 0 { 1 } else { grants };
        self
    }

    /// How many may be pending in all, 1 at the least.
    pub const fn in_all(mut self, grants: usize) -> Self {
        self.in_all = if grants == 0 { 1 } else { grants };
        self
    }

    /// The bound for one user.
    #[must_use]
    pub const fn max_per_user(&self) -> usize {
        self.per_user
    }

    /// The bound for all.
    #[must_use]
    pub const fn max_in_all(&self) -> usize {
        self.in_all
    }
}

impl Default for GrantLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a grant that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrantInsertion {
    /// It is stored.
    Stored,
    /// Its id, or the hash of its token, is taken.
    Taken,
    /// As many are pending for this user as may be.
    UserIsFull,
    /// As many are pending in all as may be.
    Full,
}
