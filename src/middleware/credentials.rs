//! Which header a token comes in, and which of its bytes are the token.

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::RejectionReason;
use crate::token::{ApiKeyToken, TokenFormat};

/// A request header that a key may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialHeader {
    name: HeaderName,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// `Bearer`, spaces, the token.
    Bearer,
    /// The whole value is the token.
    None,
}

impl CredentialHeader {
    /// `Authorization: Bearer <token>` (RFC 6750 §2.1). The scheme's case doesn't matter.
    #[must_use]
    pub fn bearer() -> Self {
        Self {
            name: AUTHORIZATION,
            scheme: Scheme::Bearer,
        }
    }

    /// A header whose whole value is the token, as in `X-Api-Key: <token>`.
    ///
    /// Caches on the way know that a response to `Authorization` is private (RFC 9111 §3.5). They
    /// don't know that of other headers: answer with `Cache-Control: private` or `no-store`.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_api_key::CredentialHeader;
    ///
    /// let header = CredentialHeader::named(HeaderName::from_static("x-api-key"));
    /// ```
    #[must_use]
    pub fn named(name: HeaderName) -> Self {
        Self {
            name,
            scheme: Scheme::None,
        }
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// What this header holds of a credential. It is hidden from logs from now on: `Debug` of the
    /// value shows `Sensitive`, and HPACK doesn't index it.
    fn text_in<'h>(&self, headers: &'h mut HeaderMap) -> Result<Option<&'h [u8]>, RejectionReason> {
        // Where no header has two values, this one hasn't.
        let may_repeat = headers.len() > headers.keys_len();
        if may_repeat && headers.get_all(&self.name).iter().nth(1).is_some() {
            return Err(RejectionReason::InvalidRequest);
        }
        let Some(value) = headers.get_mut(&self.name) else {
            return Ok(None);
        };
        value.set_sensitive(true);
        match self.scheme {
            Scheme::None => Ok(Some(value.as_bytes())),
            Scheme::Bearer => after_bearer(value.as_bytes()),
        }
    }
}

/// What a request's headers hold for the layer.
#[derive(Debug)]
pub(super) enum Presented<'a> {
    /// No credentials that the layer reads.
    Nothing,
    /// A token that is somebody else's to check.
    Foreign,
    /// In this header, a well-formed token of ours.
    Token(&'a HeaderName),
}

/// No token of any format is near this long. What is longer is refused by its length, unless it is
/// foreign and passed on.
const MAX_LEN: usize = 1_024;

/// Reads the one credential of a request, and hides the headers that it looks at. A token of ours comes
/// to be in `token`.
///
/// `pass_foreign` says what becomes of a token that isn't of `format`: it is passed on, whatever
/// its length, or it is malformed.
#[inline]
pub(super) fn read<'a>(
    headers: &mut HeaderMap,
    from: &'a [CredentialHeader],
    format: &TokenFormat,
    pass_foreign: bool,
    token: &mut ApiKeyToken,
) -> Result<Presented<'a>, RejectionReason> {
    let Some((name, text)) = only(headers, from)? else {
        return Ok(Presented::Nothing);
    };
    if format.read(text, token) {
        return Ok(Presented::Token(name));
    }
    let foreign = pass_foreign && !format.claims(text);
    if !foreign && text.len() > MAX_LEN {
        Err(RejectionReason::InvalidToken)
    } else if text.is_empty() || text.iter().any(|&byte| is_control(byte) || byte == b',') {
        Err(RejectionReason::InvalidRequest)
    } else if foreign {
        Ok(Presented::Foreign)
    } else {
        Err(RejectionReason::InvalidToken)
    }
}

/// The credential, still unread, if there is exactly one (RFC 6750 §2: never more than one).
fn only<'h, 'a>(
    headers: &'h mut HeaderMap,
    from: &'a [CredentialHeader],
) -> Result<Option<(&'a HeaderName, &'h [u8])>, RejectionReason> {
    let mut found = from.first();
    if from.len() > 1 {
        found = None;
        for header in from {
            if header.text_in(headers)?.is_some() && found.replace(header).is_some() {
                return Err(RejectionReason::InvalidRequest);
            }
        }
    }
    let Some(header) = found else {
        return Ok(None);
    };
    let text = header.text_in(headers)?;
    Ok(text.map(|text| (&header.name, text)))
}

/// What follows `Bearer` and its spaces; nothing where the scheme is another one.
fn after_bearer(value: &[u8]) -> Result<Option<&[u8]>, RejectionReason> {
    const BEARER: &[u8] = b"bearer";
    // As almost everybody writes it.
    if let Some(rest) = value.strip_prefix(b"Bearer ")
        && rest.first() != Some(&b' ')
    {
        return Ok(Some(rest));
    }
    let Some((scheme, rest)) = value.split_at_checked(BEARER.len()) else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Ok(None);
    }
    match rest.first() {
        Some(b' ') => {
            let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
            Ok(Some(&rest[spaces..]))
        }
        // `BearerToken`, say, is a scheme of its own.
        Some(&byte) if is_token_char(byte) => Ok(None),
        _ => Err(RejectionReason::InvalidRequest),
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// `tchar` of RFC 9110 §5.6.2, which schemes are made of.
fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
