//! Listing keys, a page at a time.

use std::{fmt, str::FromStr, time::SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::KeyFilter;
use crate::{
    clock::{from_unix_millis, unix_millis},
    error::BackendError,
    key::ApiKey,
    token::KeyId,
};

/// Which part of a list is asked for: at most `limit` keys, after `cursor`.
///
/// ```
/// use tower_api_key::PageRequest;
///
/// let first = PageRequest::new().limit(20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct PageRequest {
    limit: usize,
    after: Option<Cursor>,
}

impl PageRequest {
    /// The most keys that a page can have.
    pub const MAX_LIMIT: usize = 1_000;
    const DEFAULT_LIMIT: usize = 50;

    /// The first 50 keys.
    pub fn new() -> Self {
        Self {
            limit: Self::DEFAULT_LIMIT,
            after: None,
        }
    }

    /// At most this many keys, between 1 and [`PageRequest::MAX_LIMIT`]; what lies outside is
    /// moved there.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }

    /// The keys that follow the page that ended with `cursor`.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// The same page with one key more, which tells whether another page follows.
    pub(crate) fn and_one_more(mut self) -> Self {
        self.limit += 1;
        self
    }

    /// How many keys are asked for. A backend is asked for one more than the store's caller was.
    #[must_use]
    pub fn max_keys(&self) -> usize {
        self.limit
    }

    /// Behind which key they begin.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.after.as_ref()
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self::new()
    }
}

/// A part of a list. It may have fewer keys than were asked for where another follows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The keys, newest first.
    pub keys: Vec<ApiKey>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

/// The place of a key in a list that is ordered from the newest to the oldest: by the time of
/// creation, and by id where that is the same.
///
/// As text (`Display`, `FromStr`) it is 43 characters of base64url, fit for a query string. It says
/// where to go on and grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    created_at: SystemTime,
    id: KeyId,
}

impl Cursor {
    /// The place of `key`.
    #[must_use]
    pub fn of(key: &ApiKey) -> Self {
        Self {
            created_at: key.created_at,
            id: key.id,
        }
    }

    /// Whether this place is behind `other` in the list.
    pub(crate) fn comes_after(&self, other: &Self) -> bool {
        (self.created_at, self.id) < (other.created_at, other.id)
    }

    /// When the key there was created.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }

    /// The id of the key there.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&place_text(self.created_at, self.id.as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let (created_at, id) = read_place(text).ok_or(ParseCursorError(()))?;
        let id = KeyId::from_bytes(id);
        Ok(Self { created_at, id })
    }
}

/// A place in a list as text: eight bytes of a time, and the bytes of an id, in base64url.
pub(super) fn place_text(time: SystemTime, id: &[u8]) -> String {
    let place = [&unix_millis(time).to_be_bytes(), id].concat();
    BASE64_URL_SAFE_NO_PAD.encode(place)
}

/// The other way; nothing where it is no such text.
pub(super) fn read_place<const N: usize>(text: &str) -> Option<(SystemTime, [u8; N])> {
    // Longer ones aren't decoded.
    if base64::encoded_len(8 + N, false) != Some(text.len()) {
        return None;
    }
    let place = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (millis, id) = place.split_first_chunk()?;
    let time = from_unix_millis(u64::from_be_bytes(*millis))?;
    Some((time, id.try_into().ok()?))
}

/// What a list is used for can't be undone, and a cursor that doesn't move never ends: so the keys have to be
/// those that were asked for, and each has to come after the one before.
pub(crate) fn check_list(
    keys: &[ApiKey],
    filter: &KeyFilter,
    page: &PageRequest,
) -> Result<(), BackendError> {
    let mut last = page.cursor().copied();
    for key in keys {
        if !filter.fits(key) {
            return Err(BackendError::corrupt(
                "a key that wasn't asked for in a list",
            ));
        }
        let place = Cursor::of(key);
        if last.is_some_and(|last| !place.comes_after(&last)) {
            return Err(BackendError::corrupt("a list of keys that is out of order"));
        }
        last = Some(place);
    }
    Ok(())
}

/// A text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct ParseCursorError(());

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_cursor_survives_a_query_string_and_nothing_else_passes_for_one() {
        let cursor = Cursor {
            created_at: UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
            id: KeyId::from_bytes([9; 24]),
        };
        let text = cursor.to_string();
        assert_eq!(text.len(), 43);
        assert_eq!(text.parse(), Ok(cursor));
        let beyond_time = "_".repeat(42) + "8";
        for text in ["", "abc", &text[1..], &format!("{text}A"), &beyond_time] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError(())), "{text}");
        }
    }
}
