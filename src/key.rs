//! The stored record of a key, and what one is made from.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    clock::{saturating_add, storable},
    error::InvalidKey,
    scope::Scopes,
    token::{ApiKeyToken, Brand, DisplayPrefix, KeyId, LookupKey, SecretHash},
};

/// A key as it is stored: everything but its secret.
///
/// Sources and backends make these from their rows: [`ApiKey::new`] takes what every key has, and
/// the fields can be set afterwards. Times have whole milliseconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiKey {
    /// The public half of the token.
    pub id: KeyId,
    /// Who the key belongs to.
    pub user_id: String,
    /// What its owner calls it.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// The first 16 characters of the token, for lists.
    pub display_prefix: DisplayPrefix,
    /// What the secret is checked against.
    pub secret_hash: SecretHash,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it no longer works.
    pub expires_at: Option<SystemTime>,
    /// When it last let somebody in, to the minute.
    pub last_used_at: Option<SystemTime>,
    /// When it was revoked, for good.
    pub revoked_at: Option<SystemTime>,
    /// When it was suspended, until it is enabled again.
    pub disabled_at: Option<SystemTime>,
    /// Counts the changes, from 1. Being used isn't one.
    pub version: u64,
}

impl ApiKey {
    /// A key that is valid without end, has the version 1, and was created in 1970.
    ///
    /// `secret_hash` comes from [`Peppers::hash`](crate::Peppers::hash), or from where it was kept.
    /// The display prefix is that of a token of the brand `pk`. Set the other fields to what is
    /// known.
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use tower_api_key::{ApiKey, ApiKeyToken, Pepper, Peppers, Scopes};
    ///
    /// let peppers = Peppers::new(Pepper::random("v1")?);
    /// let token = ApiKeyToken::generate(&Default::default())?;
    /// let scopes = Scopes::of(["notes:read"])?;
    /// let mut key = ApiKey::new(token.key_id(), "user_1", scopes, peppers.hash(&token)?);
    /// key.name = Some("CI".to_owned());
    /// key.created_at = SystemTime::now();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(
        id: KeyId,
        user_id: impl Into<String>,
        scopes: Scopes,
        secret_hash: SecretHash,
    ) -> Self {
        Self {
            id,
            user_id: user_id.into(),
            name: None,
            scopes,
            display_prefix: DisplayPrefix::of(&Brand::default(), &id),
            secret_hash,
            created_at: UNIX_EPOCH,
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
            disabled_at: None,
            version: 1,
        }
    }

    /// What this record is stored and found under.
    #[must_use]
    pub fn lookup_key(&self) -> LookupKey {
        self.id.lookup_key()
    }

    /// Whether the key works at `now`, and if not, why.
    ///
    /// A key that is revoked and expired is called revoked.
    #[must_use]
    pub fn status(&self, now: SystemTime) -> KeyStatus {
        match self.ended() {
            Some(ended) => ended,
            None if self.expires_at.is_some_and(|end| now >= end) => KeyStatus::Expired,
            None => KeyStatus::Active,
        }
    }

    /// What the key is whatever the time.
    pub(crate) fn ended(&self) -> Option<KeyStatus> {
        if self.revoked_at.is_some() {
            Some(KeyStatus::Revoked)
        } else {
            self.disabled_at.map(|_| KeyStatus::Disabled)
        }
    }
}

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyStatus {
    /// It works.
    Active,
    /// Its `expires_at` has come.
    Expired,
    /// It is suspended, and may be enabled again.
    Disabled,
    /// It was revoked, for good.
    Revoked,
}

impl KeyStatus {
    /// The name of the state: `active`, `expired`, `disabled`, `revoked`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a key is to be, for [`ApiKeyStore::create`](crate::ApiKeyStore::create).
///
/// ```
/// use std::time::Duration;
/// use tower_api_key::{NewApiKey, Scopes};
///
/// let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?)
///     .name("CI")
///     .expires_in(Duration::from_secs(90 * 24 * 60 * 60));
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is made before it is given to `ApiKeyStore::create`"]
pub struct NewApiKey {
    user_id: String,
    name: Option<String>,
    scopes: Scopes,
    expiry: Expiry,
    /// That of the key that makes it.
    latest_end: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy)]
enum Expiry {
    Never,
    At(SystemTime),
    In(Duration),
}

impl Expiry {
    fn end(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(storable(end)),
            Self::In(duration) => Some(saturating_add(now, duration)),
        }
    }
}

impl NewApiKey {
    /// The longest user id and the longest name, in bytes.
    pub const MAX_TEXT_LEN: usize = 255;

    /// A key of `user_id` with these scopes, without a name, valid without end.
    ///
    /// A user id has 1 to 255 bytes, none of them a character
    /// that controls lines or the direction of text.
    pub fn for_user(user_id: impl Into<String>, scopes: Scopes) -> Self {
        Self {
            user_id: user_id.into(),
            name: None,
            scopes,
            expiry: Expiry::Never,
            latest_end: None,
        }
    }

    /// What the owner will know it by: at most 255 bytes, with the same exceptions as a
    /// user id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The moment from which on the key no longer works. One that has passed makes a key that never
    /// worked.
    ///
    /// It is stored in whole milliseconds, between 1970 and the end of 9999.
    pub fn expires_at(mut self, end: SystemTime) -> Self {
        self.expiry = Expiry::At(end);
        self
    }

    /// How long the key works, counted from its creation, the end of 9999 at the latest.
    pub fn expires_in(mut self, duration: Duration) -> Self {
        self.expiry = Expiry::In(duration);
        self
    }

    pub(crate) fn user_id(&self) -> &str {
        &self.user_id
    }

    pub(crate) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// The same with an end, or an earlier one.
    pub(crate) fn ends_by(mut self, end: Option<SystemTime>) -> Self {
        self.latest_end = end;
        self
    }

    /// The record of such a key, made at `now` for `token`.
    pub(crate) fn into_key(
        self,
        token: &ApiKeyToken,
        secret_hash: SecretHash,
        now: SystemTime,
    ) -> ApiKey {
        let mut key = ApiKey::new(token.key_id(), self.user_id, self.scopes, secret_hash);
        key.display_prefix = token.display_prefix();
        key.name = self.name;
        key.created_at = now;
        key.expires_at = self.expiry.end(now);
        if let Some(latest) = self.latest_end {
            key.expires_at = Some(key.expires_at.map_or(latest, |end| end.min(latest)));
        }
        key
    }

    pub(crate) fn check(&self) -> Result<(), InvalidKey> {
        if self.user_id.is_empty() {
            return Err(InvalidKey {
                field: "user_id",
                problem: "is empty",
            });
        }
        check_text("user_id", &self.user_id)?;
        check_text("name", self.name.as_deref().unwrap_or_default())
    }
}

/// What is to change of a key, for [`ApiKeyStore::update`](crate::ApiKeyStore::update). What isn't named
/// stays as it is.
///
/// ```
/// use tower_api_key::{KeyUpdate, Scopes};
///
/// let update = KeyUpdate::new().scopes(Scopes::of(["notes:read"])?).never_expires().if_version(3);
/// # Ok::<(), tower_api_key::ScopeError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing changes before it is given to `ApiKeyStore::update`"]
pub struct KeyUpdate {
    name: Option<NewName>,
    scopes: Option<Scopes>,
    expiry: Option<Expiry>,
    version: Option<u64>,
}

#[derive(Debug, Clone)]
enum NewName {
    None,
    Is(String),
}

impl KeyUpdate {
    /// One that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another name, of the same form as [`NewApiKey::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(NewName::Is(name.into()));
        self
    }

    /// No name any more.
    pub fn no_name(mut self) -> Self {
        self.name = Some(NewName::None);
        self
    }

    /// Other scopes in place of those that it has.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// Another end; see [`NewApiKey::expires_at`]. A key that has expired works again where this one is in
    /// the future.
    pub fn expires_at(mut self, end: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(end));
        self
    }

    /// An end that is counted from the update; see [`NewApiKey::expires_in`].
    pub fn expires_in(mut self, duration: Duration) -> Self {
        self.expiry = Some(Expiry::In(duration));
        self
    }

    /// No end any more.
    pub fn never_expires(mut self) -> Self {
        self.expiry = Some(Expiry::Never);
        self
    }

    /// Only where the key has this [version](ApiKey::version) still: nothing that another has changed
    /// meanwhile is overwritten.
    pub fn if_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn is_for(&self, key: &ApiKey) -> bool {
        self.version.is_none_or(|version| version == key.version)
    }

    pub(crate) fn apply(&self, key: &mut ApiKey, now: SystemTime) {
        match &self.name {
            Some(NewName::Is(name)) => key.name = Some(name.clone()),
            Some(NewName::None) => key.name = None,
            None => {}
        }
        if let Some(scopes) = &self.scopes {
            key.scopes = scopes.clone();
        }
        if let Some(expiry) = self.expiry {
            key.expires_at = expiry.end(now);
        }
    }

    pub(crate) fn check(&self) -> Result<(), InvalidKey> {
        match &self.name {
            Some(NewName::Is(name)) => check_text("name", name),
            _ => Ok(()),
        }
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), InvalidKey> {
    if text.len() > NewApiKey::MAX_TEXT_LEN {
        return Err(InvalidKey {
            field,
            problem: "is longer than 255 bytes",
        });
    }
    if text.chars().any(could_forge_a_line) {
        return Err(InvalidKey {
            field,
            problem: "has a character that controls lines or the direction of text, and could forge a log line",
        });
    }
    Ok(())
}

/// Control characters, line and paragraph separators, and what turns the direction of text.
fn could_forge_a_line(char: char) -> bool {
    let marks = ['\u{61c}', '\u{200e}', '\u{200f}'];
    char.is_control()
        || marks.contains(&char)
        || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A key that was just made, with its token: the one time that the token can be had.
#[derive(Debug, Clone)]
#[must_use = "the token can't be had again"]
pub struct IssuedKey {
    pub(crate) token: ApiKeyToken,
    pub(crate) key: ApiKey,
}

impl IssuedKey {
    /// The plaintext, to be handed to the owner.
    #[must_use]
    pub fn token(&self) -> &ApiKeyToken {
        &self.token
    }

    /// What was stored.
    #[must_use]
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// The token and the key.
    #[must_use]
    pub fn into_parts(self) -> (ApiKeyToken, ApiKey) {
        (self.token, self.key)
    }
}
