//! What the scopes of an older program's keys are to mean here.

use super::RefusedReason;
use crate::scope::Scopes;

/// What the scopes of imported keys mean.
///
/// The programs that wrote them left that to the application: no scopes were "may do nothing" to one
/// and "may do everything" to another. So each question has to be answered, and none has a default.
/// Where you don't know, say `Refuse`: the rows are listed in the [`ImportReport`](super::ImportReport),
/// and nothing else becomes of them.
///
/// ```
/// use tower_api_key::{MissingScopes, OldPatterns, OldScopes, OldWildcard, Scopes};
///
/// let scopes = OldScopes {
///     missing: MissingScopes::These(Scopes::of(["notes:read"])?),
///     wildcard: OldWildcard::AllScopes,
///     patterns: OldPatterns::Refuse,
/// };
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a question that is added has to be answered by everyone"
)]
pub struct OldScopes {
    /// A key without scopes: none were stored, or an empty text.
    pub missing: MissingScopes,
    /// The scope `*`.
    pub wildcard: OldWildcard,
    /// Scopes that end in `:*`, such as `notes:*`. A `*` anywhere else is refused in any case.
    pub patterns: OldPatterns,
}

/// What a key without scopes may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as for `OldScopes`")]
pub enum MissingScopes {
    /// Nothing that asks for a scope: [`Scopes::none`].
    Nothing,
    /// Everything: [`Scopes::unrestricted`].
    Unrestricted,
    /// What these scopes allow.
    These(Scopes),
    /// Such keys aren't imported.
    Refuse,
}

/// What a key with the scope `*` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as for `OldScopes`")]
pub enum OldWildcard {
    /// Everything: [`Scopes::unrestricted`], whatever scopes stand beside it.
    Unrestricted,
    /// What asks for any scope at all. It is our pattern `*`, which is less than
    /// [`Scopes::unrestricted`]: see [`Scopes::covers`].
    AllScopes,
    /// Such keys aren't imported.
    Refuse,
}

/// What a key with a scope such as `notes:*` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as for `OldScopes`")]
pub enum OldPatterns {
    /// What our pattern of the same text covers: every longer scope that starts with `notes:`.
    Ours,
    /// Such keys aren't imported.
    Refuse,
}

impl OldScopes {
    /// What a list of scopes means that was stored as one text with commas, blanks around them or
    /// not, or not stored.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn of_text(&self, text: Option<&str>) -> Result<Scopes, RefusedReason> {
        // The empty text has no part, though it can be split into one.
        self.of(text
            .filter(|text| !text.is_empty())
            .into_iter()
            .flat_map(|text| text.split(',').map(str::trim_ascii)))
    }

    /// What a list of scopes means. An empty one is one that is missing.
    pub(super) fn of<'a>(
        &self,
        list: impl Iterator<Item = &'a str>,
    ) -> Result<Scopes, RefusedReason> {
        let list: Vec<_> = list.collect();
        if list.is_empty() {
            return match &self.missing {
                MissingScopes::Nothing => Ok(Scopes::none()),
                MissingScopes::Unrestricted => Ok(Scopes::unrestricted()),
                MissingScopes::These(scopes) => Ok(scopes.clone()),
                MissingScopes::Refuse => Err(RefusedReason::MissingScopes),
            };
        }
        // Before anything is said of `*`: a list that can't be read is never "everything".
        let scopes = Scopes::of(&list)?;
        let mut is_unrestricted = false;
        for pattern in scopes.iter().filter(|scope| scope.ends_with('*')) {
            let is_refused = if pattern == "*" {
                is_unrestricted = self.wildcard == OldWildcard::Unrestricted;
                self.wildcard == OldWildcard::Refuse
            } else {
                self.patterns == OldPatterns::Refuse
            };
            if is_refused {
                return Err(RefusedReason::Pattern(pattern.to_owned()));
            }
        }
        Ok(if is_unrestricted {
            Scopes::unrestricted()
        } else {
            scopes
        })
    }
}
