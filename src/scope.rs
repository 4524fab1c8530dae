//! What a key may do, and what a route asks for. Pure: no I/O, no clock.

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

/// One permission: an RFC 6749 §3.3 scope-token without a comma, or a pattern over such tokens.
///
/// | text | covers |
/// | --- | --- |
/// | `notes:read` | exactly `notes:read` |
/// | `notes:*` | every longer scope that starts with `notes:`, so neither `notes` nor `notes:` |
/// | `*` | every scope |
///
/// A `*` anywhere else is refused. Case matters.
///
/// ```
/// use tower_api_key::Scope;
///
/// let all_notes: Scope = "notes:*".parse()?;
/// assert!(all_notes.covers("notes:read") && all_notes.covers("notes:draft:read"));
/// assert!(!all_notes.covers("notes") && !all_notes.covers("notes:"));
/// assert!("no*tes".parse::<Scope>().is_err());
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// The longest scope, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Checks and takes over `scope`.
    ///
    /// # Errors
    ///
    /// See [`ScopeError`].
    pub fn new(scope: impl AsRef<str>) -> Result<Self, ScopeError> {
        let scope = scope.as_ref();
        check(scope)?;
        Ok(Self(scope.into()))
    }

    /// The text of the scope.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a pattern: `*`, or something that ends in `:*`.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        is_pattern(&self.0)
    }

    /// Whether a key with this scope may do what asks for `required`.
    ///
    /// `required` is one plain scope. Text that isn't, a pattern among it, is covered by nothing.
    #[must_use]
    pub fn covers(&self, required: &str) -> bool {
        is_plain(required) && covers(&self.0, required)
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(scope: &str) -> Result<Self, ScopeError> {
        Self::new(scope)
    }
}

impl AsRef<str> for Scope {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The scopes that a key holds: a list, possibly empty, or no restriction at all.
///
/// An empty list allows nothing. That a key may do everything is said by name, with
/// [`Scopes::unrestricted`], and never follows from a list that happens to be empty.
///
/// ```
/// use tower_api_key::Scopes;
///
/// let scopes = Scopes::of(["notes:read", "tags:*"])?;
/// assert!(scopes.allows("notes:read") && scopes.allows("tags:write"));
/// assert!(!scopes.allows("notes:write"));
///
/// assert!(!Scopes::none().allows("notes:read"));
/// assert!(Scopes::unrestricted().allows("notes:read"));
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Clone, Default)]
pub struct Scopes {
    granted: Granted,
}

#[derive(Clone)]
enum Granted {
    /// Separated by one space each, without repetition.
    List(Arc<str>),
    Unrestricted,
}

impl Default for Granted {
    fn default() -> Self {
        Self::List("".into())
    }
}

impl Scopes {
    /// The most scopes that a key can hold.
    pub const MAX_COUNT: usize = 256;
    /// How many bytes the scopes of a new key may have together, with a space between them.
    pub const MAX_BYTES: usize = 4_096;
    const FEW: usize = 16;

    /// The given scopes; repeated ones count once.
    ///
    /// # Errors
    ///
    /// The first [`ScopeError`] among them.
    pub fn of<I>(scopes: I) -> Result<Self, ScopeError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let mut list = String::new();
        let mut count = 0;
        // Once there are many: to look through all for each takes a millisecond.
        let mut known: Option<HashSet<String>> = None;
        for scope in scopes {
            let scope = scope.as_ref();
            check(scope)?;
            let is_new = match &mut known {
                Some(known) => known.insert(scope.to_owned()),
                None => list.split(' ').all(|known| known != scope),
            };
            if !is_new {
                continue;
            }
            count += 1;
            if count == Self::FEW {
                let all = list.split(' ').chain([scope]);
                known = Some(all.map(str::to_owned).collect());
            }
            if count > Self::MAX_COUNT {
                return Err(ScopeError::TooMany);
            }
            if !list.is_empty() {
                list.push(' ');
            }
            list.push_str(scope);
        }
        Ok(Self {
            granted: Granted::List(list.into()),
        })
    }

    /// No scope: the key identifies its owner and opens nothing that asks for a scope.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything, today and in future.
    ///
    /// More than the scope `*`, which doesn't [cover](Self::covers) it.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self {
            granted: Granted::Unrestricted,
        }
    }

    /// Whether the key isn't restricted at all.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        matches!(self.granted, Granted::Unrestricted)
    }

    /// Whether `required`, one plain scope, is among what the key may do.
    ///
    /// Text that isn't a plain scope (empty, a list, a pattern) is never allowed.
    #[must_use]
    pub fn allows(&self, required: &str) -> bool {
        is_plain(required) && self.allows_plain(required)
    }

    /// [`Scopes::allows`] for a text that is known to be a plain scope.
    pub(crate) fn allows_plain(&self, required: &str) -> bool {
        match &self.granted {
            Granted::Unrestricted => true,
            Granted::List(_) => self.iter().any(|granted| covers(granted, required)),
        }
    }

    /// How many bytes they have together, with a space between them.
    pub(crate) fn len_in_bytes(&self) -> usize {
        match &self.granted {
            Granted::List(list) => list.len(),
            Granted::Unrestricted => 0,
        }
    }

    /// Whether these scopes allow all that `others` allow, today and in future.
    ///
    /// Ask it before one caller makes a key for another: nobody should hand out more than they hold.
    /// Only an unrestricted key covers an unrestricted one; `*` doesn't.
    ///
    /// ```
    /// use tower_api_key::Scopes;
    ///
    /// let held = Scopes::of(["notes:*", "tags:read"])?;
    /// assert!(held.covers(&Scopes::of(["notes:draft:*", "tags:read"])?));
    /// assert!(!held.covers(&Scopes::of(["*"])?));
    /// assert!(!Scopes::of(["*"])?.covers(&Scopes::unrestricted()));
    /// # Ok::<(), tower_api_key::ScopeError>(())
    /// ```
    #[must_use]
    pub fn covers(&self, others: &Scopes) -> bool {
        let granted = |other| self.iter().any(|granted| covers(granted, other));
        self.is_unrestricted() || (!others.is_unrestricted() && others.iter().all(granted))
    }

    /// The scopes in the order they were given.
    ///
    /// None where the key is [unrestricted](Self::is_unrestricted), as where it may do nothing:
    /// before you show them, ask which of the two it is.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let list = match &self.granted {
            Granted::List(list) => list,
            Granted::Unrestricted => "",
        };
        list.split(' ').filter(|scope| !scope.is_empty())
    }
}

/// Whether the same scopes were given, in whatever order.
impl PartialEq for Scopes {
    fn eq(&self, other: &Self) -> bool {
        self.is_unrestricted() == other.is_unrestricted()
            && self.iter().count() == other.iter().count()
            && self
                .iter()
                .all(|scope| other.iter().any(|known| known == scope))
    }
}

impl Eq for Scopes {}

/// Reads scopes that are separated by spaces (RFC 6749 §3.3).
impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(scopes: &str) -> Result<Self, ScopeError> {
        Self::of(scopes.split(' ').filter(|scope| !scope.is_empty()))
    }
}

/// The scopes separated by spaces (RFC 6749 §3.3), or `"unrestricted"` with its quotes, which can't
/// be read back as a scope.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.granted {
            Granted::List(list) => list,
            Granted::Unrestricted => "\"unrestricted\"",
        })
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.granted {
            Granted::List(_) => f.debug_list().entries(self.iter()).finish(),
            Granted::Unrestricted => f.write_str("Unrestricted"),
        }
    }
}

/// Why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The text is empty.
    #[error("a scope is empty")]
    Empty,
    /// The text is longer than [`Scope::MAX_LEN`].
    #[error("a scope has {0} bytes, more than {max}", max = Scope::MAX_LEN)]
    TooLong(usize),
    /// There are more than [`Scopes::MAX_COUNT`].
    #[error("a key holds at most {max} scopes", max = Scopes::MAX_COUNT)]
    TooMany,
    /// A character is not in RFC 6749 §3.3 `%x21 / %x23-5B / %x5D-7E`, or is a comma.
    #[error(
        "the scope {0:?} has a character other than visible ASCII without comma, quote and backslash"
    )]
    Character(String),
    /// A `*` stands neither alone nor at the end after a colon with something before it.
    #[error(
        "the scope {0:?} has a `*` that is neither the whole scope nor its end, as in `notes:*`"
    )]
    Wildcard(String),
    /// A pattern stands where one plain scope is asked for.
    #[error("{0:?} is a pattern, but a route asks for one plain scope")]
    Pattern(String),
}

/// Checks what a route asks for: a scope that isn't a pattern.
pub(crate) fn parse_required(scope: &str) -> Result<Scope, ScopeError> {
    let scope = Scope::new(scope)?;
    if scope.is_pattern() {
        return Err(ScopeError::Pattern(scope.as_str().to_owned()));
    }
    Ok(scope)
}

fn check(scope: &str) -> Result<(), ScopeError> {
    if scope.is_empty() {
        return Err(ScopeError::Empty);
    }
    if scope.len() > Scope::MAX_LEN {
        return Err(ScopeError::TooLong(scope.len()));
    }
    if !scope.bytes().all(is_scope_byte) {
        return Err(ScopeError::Character(scope.to_owned()));
    }
    let before_wildcard = match scope.strip_suffix('*') {
        Some(before) if before.is_empty() || (before.len() > 1 && before.ends_with(':')) => before,
        _ => scope,
    };
    if before_wildcard.contains('*') {
        return Err(ScopeError::Wildcard(scope.to_owned()));
    }
    Ok(())
}

const fn is_scope_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e) && byte != b','
}

fn is_pattern(scope: &str) -> bool {
    scope.ends_with('*')
}

/// Whether a route can ask for this text. A `const`, for the `scopes!` macro.
#[doc(hidden)]
#[must_use]
pub const fn is_plain(scope: &str) -> bool {
    let bytes = scope.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !is_scope_byte(bytes[at]) || bytes[at] == b'*' {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && bytes.len() <= Scope::MAX_LEN
}

/// Whether what `granted` says allows all that `required` says. Both may be patterns.
fn covers(granted: &str, required: &str) -> bool {
    match granted.strip_suffix('*') {
        Some(prefix) => required.len() > prefix.len() && required.starts_with(prefix),
        None => granted == required,
    }
}
