//! Listing grants, a page at a time.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    PageRequest,
    page::{place_text, read_place},
};
use crate::key::{GrantId, GrantStatus, KeyGrant};

/// Which part of which list of grants is asked for: of all, or of those for keys of a user, or of those that are
/// pending; at most `limit`, after a cursor.
///
/// ```
/// use tower_api_key::GrantPageRequest;
///
/// let first = GrantPageRequest::new().user("user_1").pending().limit(20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct GrantPageRequest {
    user_id: Option<String>,
    pending_at: Option<SystemTime>,
    limit: usize,
    after: Option<GrantCursor>,
}

impl GrantPageRequest {
    /// The first 50 of all grants.
    pub fn new() -> Self {
        Self {
            user_id: None,
            pending_at: None,
            limit: PageRequest::new().max_keys(),
            after: None,
        }
    }

    /// Those for keys of this user.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.user_id = Some(user_id.into());
        self
    }

    /// Those that are [pending](GrantStatus::Pending) when they are listed: nobody has claimed them, they aren't
    /// revoked, and their end hasn't come.
    pub fn pending(mut self) -> Self {
        // The store says when. Before that, it is a moment at which none has expired.
        self.pending_at = Some(UNIX_EPOCH);
        self
    }

    /// At most this many grants, between 1 and [`PageRequest::MAX_LIMIT`]; what lies outside is moved there.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, PageRequest::MAX_LIMIT);
        self
    }

    /// The grants that follow the page that ended with `cursor`.
    pub fn after(mut self, cursor: GrantCursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// The same list, where it is one of pending grants, of those that are pending at `now`.
    pub(crate) fn at(mut self, now: SystemTime) -> Self {
        self.pending_at = self.pending_at.map(|_| now);
        self
    }

    /// The same page with one grant more, which tells whether another page follows.
    pub(crate) fn and_one_more(mut self) -> Self {
        self.limit += 1;
        self
    }

    /// Whose keys the grants are for, where it isn't everybody.
    #[must_use]
    pub fn wanted_user(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// The moment at which they have to be pending, where it isn't all grants that are asked for. The store
    /// fills it in.
    #[must_use]
    pub fn pending_at(&self) -> Option<SystemTime> {
        self.pending_at
    }

    /// How many grants are asked for. A backend is asked for one more than the store's caller was.
    #[must_use]
    pub fn max_grants(&self) -> usize {
        self.limit
    }

    /// Behind which grant they begin.
    #[must_use]
    pub fn cursor(&self) -> Option<&GrantCursor> {
        self.after.as_ref()
    }

    /// Whether `grant` is one of those that are asked for, on whatever page: what a backend's query has to say of
    /// each record.
    #[must_use]
    pub fn fits(&self, grant: &KeyGrant) -> bool {
        let is_pending = |at| grant.status(at) == GrantStatus::Pending;
        self.wanted_user().is_none_or(|user| user == grant.user_id)
            && self.pending_at.is_none_or(is_pending)
    }
}

impl Default for GrantPageRequest {
    fn default() -> Self {
        Self::new()
    }
}

/// A part of a list of grants.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GrantPage {
    /// The grants, newest first.
    pub grants: Vec<KeyGrant>,
    /// Where the next page begins; none after the last.
    pub next: Option<GrantCursor>,
}

/// The place of a grant in a list that is ordered from the newest to the oldest: by the time when it was made,
/// and by id where that is the same.
///
/// As text (`Display`, `FromStr`) it is 32 characters of base64url, fit for a query string. It says
/// where to go on and grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantCursor {
    made_at: SystemTime,
    id: GrantId,
}

impl GrantCursor {
    /// The place of `grant`.
    #[must_use]
    pub fn of(grant: &KeyGrant) -> Self {
        Self {
            made_at: grant.made_at,
            id: grant.id,
        }
    }

    /// When the grant there was made.
    #[must_use]
    pub fn made_at(&self) -> SystemTime {
        self.made_at
    }

    /// The id of the grant there.
    #[must_use]
    pub fn id(&self) -> &GrantId {
        &self.id
    }
}

impl fmt::Display for GrantCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&place_text(self.made_at, self.id.as_bytes()))
    }
}

impl FromStr for GrantCursor {
    type Err = ParseGrantCursorError;

    fn from_str(text: &str) -> Result<Self, ParseGrantCursorError> {
        let (made_at, id) = read_place(text).ok_or(ParseGrantCursorError(()))?;
        let id = GrantId::from_bytes(id);
        Ok(Self { made_at, id })
    }
}

/// A text is not a [`GrantCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of a list of grants")]
pub struct ParseGrantCursorError(());

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_grants_cursor_survives_a_query_string_and_nothing_else_passes_for_one() {
        let cursor = GrantCursor {
            made_at: UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
            id: GrantId::from_bytes([9; 16]),
        };
        let text = cursor.to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.parse(), Ok(cursor));
        let beyond_time = "_".repeat(32);
        for text in ["", "abc", &text[1..], &format!("{text}A"), &beyond_time] {
            let error = ParseGrantCursorError(());
            assert_eq!(text.parse::<GrantCursor>(), Err(error), "{text}");
        }
    }
}
