//! Why a request is turned away, and how HTTP says it.

use std::{error::Error, fmt, sync::Arc};

use http::{HeaderValue, StatusCode};

use crate::{error::Unavailable, scope::is_plain, verify::VerifyError};

/// A request is turned away.
///
/// [`ResponseForRejection`](super::ResponseForRejection) makes a response of it, and every such
/// response carries it in its extensions, for layers further out.
///
/// ```
/// use tower_api_key::{Rejection, RejectionReason};
///
/// let rejection = Rejection::new(RejectionReason::MissingCredentials);
/// assert_eq!(rejection.status(), 401);
/// assert_eq!(rejection.challenge().unwrap(), r#"Bearer realm="api""#);
/// ```
#[derive(Debug, Clone)]
pub struct Rejection {
    reason: RejectionReason,
    realm: Realm,
}

/// Why a request is turned away.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RejectionReason {
    /// The request has no credentials that the layer reads.
    MissingCredentials,
    /// It has more than one, or one that breaks the syntax of the header.
    InvalidRequest,
    /// The token is malformed or unknown, or its secret is wrong. Which of these is not said.
    InvalidToken,
    /// The token is right, its key has expired.
    Expired,
    /// The token is right, its key was revoked.
    Revoked,
    /// The token is right, its key is suspended.
    Disabled,
    /// The key lacks scopes.
    #[non_exhaustive]
    InsufficientScope {
        /// The scopes that the route asks for, separated by spaces.
        required: Arc<str>,
        /// Whether any one of them is enough.
        any: bool,
    },
    /// Whether the key is good can't be told now.
    Unavailable(Unavailable),
    /// A guard ran on a request that no layer had seen.
    Misconfigured,
}

impl Rejection {
    /// A rejection in the realm `api`.
    #[must_use]
    pub fn new(reason: RejectionReason) -> Self {
        Self::in_realm(reason, Realm::default())
    }

    pub(crate) fn in_realm(reason: RejectionReason, realm: Realm) -> Self {
        Self { reason, realm }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &RejectionReason {
        &self.reason
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.reason {
            RejectionReason::InvalidRequest => StatusCode::BAD_REQUEST,
            RejectionReason::InsufficientScope { .. } => StatusCode::FORBIDDEN,
            RejectionReason::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            RejectionReason::Misconfigured => StatusCode::INTERNAL_SERVER_ERROR,
            RejectionReason::MissingCredentials
            | RejectionReason::InvalidToken
            | RejectionReason::Expired
            | RejectionReason::Revoked
            | RejectionReason::Disabled => StatusCode::UNAUTHORIZED,
        }
    }

    /// The name of the reason for programs. It doesn't change between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.reason {
            RejectionReason::MissingCredentials => "missing_credentials",
            RejectionReason::InvalidRequest => "invalid_request",
            RejectionReason::InvalidToken => "invalid_token",
            RejectionReason::Expired => "expired",
            RejectionReason::Revoked => "revoked",
            RejectionReason::Disabled => "disabled",
            RejectionReason::InsufficientScope { .. } => "insufficient_scope",
            RejectionReason::Unavailable(_) => "unavailable",
            RejectionReason::Misconfigured => "misconfigured",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub fn detail(&self) -> &'static str {
        match self.reason {
            RejectionReason::MissingCredentials => "An API key is required.",
            RejectionReason::InvalidRequest => {
                "Send exactly one API key, in the form that is asked for."
            }
            RejectionReason::InvalidToken => "The API key is not valid.",
            RejectionReason::Expired => "The API key has expired.",
            RejectionReason::Revoked => "The API key was revoked.",
            RejectionReason::Disabled => "The API key is disabled.",
            RejectionReason::InsufficientScope { any: false, .. } => {
                "The API key lacks a scope that is required here."
            }
            RejectionReason::InsufficientScope { any: true, .. } => {
                "The API key has none of the scopes of which one is required here."
            }
            RejectionReason::Unavailable(_) => {
                "API keys can't be checked at the moment. Try again."
            }
            RejectionReason::Misconfigured => "This route checks API keys, but nothing reads them.",
        }
    }

    /// The scopes that the route asks for, separated by spaces, where some are missing. A text
    /// with characters that no scope has is left out.
    #[must_use]
    pub fn required_scope(&self) -> Option<&str> {
        match &self.reason {
            RejectionReason::InsufficientScope { required, .. } => {
                required.split(' ').all(is_plain).then_some(&**required)
            }
            _ => None,
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750 §3); none where no credentials would help.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        let realm = &self.realm;
        let challenge = match &self.reason {
            RejectionReason::MissingCredentials => format!("Bearer realm={realm}"),
            RejectionReason::InvalidRequest => {
                format!(r#"Bearer realm={realm}, error="invalid_request""#)
            }
            RejectionReason::InvalidToken => {
                format!(r#"Bearer realm={realm}, error="invalid_token""#)
            }
            RejectionReason::Expired | RejectionReason::Revoked | RejectionReason::Disabled => {
                let detail = self.detail().trim_end_matches('.');
                format!(
                    r#"Bearer realm={realm}, error="invalid_token", error_description="{detail}""#
                )
            }
            RejectionReason::InsufficientScope { .. } => {
                let error = format!(r#"Bearer realm={realm}, error="insufficient_scope""#);
                match self.required_scope() {
                    Some(scope) => format!(r#"{error}, scope="{scope}""#),
                    None => error,
                }
            }
            RejectionReason::Unavailable(_) | RejectionReason::Misconfigured => return None,
        };
        HeaderValue::try_from(challenge).ok()
    }

    /// The value of `Retry-After`, in seconds, where trying again may help.
    #[must_use]
    pub fn retry_after(&self) -> Option<HeaderValue> {
        matches!(self.reason, RejectionReason::Unavailable(_))
            .then(|| HeaderValue::from_static("1"))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            RejectionReason::Unavailable(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<VerifyError> for RejectionReason {
    /// Where what could be told apart becomes one.
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Malformed(_) | VerifyError::Unknown | VerifyError::WrongSecret => {
                Self::InvalidToken
            }
            VerifyError::Expired => Self::Expired,
            VerifyError::Revoked => Self::Revoked,
            VerifyError::Disabled => Self::Disabled,
            VerifyError::Unavailable(error) => Self::Unavailable(error),
        }
    }
}

/// The protection space that a challenge names (RFC 9110 §11.5), quoted and escaped already.
#[derive(Clone)]
pub(crate) struct Realm(Arc<str>);

impl Realm {
    /// `realm` as a quoted-string; nothing where it has other than visible ASCII and spaces.
    pub(crate) fn new(realm: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        realm
            .bytes()
            .all(allowed)
            .then(|| Self(Quoted(realm).to_string().into()))
    }
}

impl Default for Realm {
    fn default() -> Self {
        Self(r#""api""#.into())
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A quoted-string (RFC 9110 §5.6.4) of a text of visible ASCII and spaces.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for part in self.0.split_inclusive(['"', '\\']) {
            match part.char_indices().next_back() {
                Some((at, last @ ('"' | '\\'))) => write!(f, "{}\\{last}", &part[..at])?,
                _ => f.write_str(part)?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_is_quoted_and_escaped_and_has_no_control_characters() {
        let quoted = |realm| Realm::new(realm).map(|realm| realm.to_string());
        assert_eq!(quoted("the api").as_deref(), Some(r#""the api""#));
        assert_eq!(quoted(r#"a"b\c""#).as_deref(), Some(r#""a\"b\\c\"""#));
        assert_eq!(quoted("").as_deref(), Some(r#""""#));
        for realm in ["a\r\nSet-Cookie: x", "tab\t", "é", "\u{7f}"] {
            assert_eq!(quoted(realm), None, "{realm:?}");
        }
    }

    #[test]
    fn a_required_scope_that_a_program_made_up_cannot_split_the_header() {
        let rejection = Rejection::new(RejectionReason::InsufficientScope {
            required: "a\" evil=\"\\".into(),
            any: false,
        });
        assert_eq!(
            rejection.challenge().unwrap(),
            r#"Bearer realm="api", error="insufficient_scope""#
        );
    }
}
