//! Why a key was revoked.

use std::{fmt, str::FromStr};

use super::check_text;
use crate::error::InvalidKey;

/// Why a key was revoked. It is kept with the key, and told by [`events`](crate::ApiKeyStore::events).
///
/// As text (`Display`, `FromStr`, a database's column) it is `leaked`, `rotated`, `owner_left`,
/// `superseded`, or what [`Other`](Self::Other) says.
///
/// ```
/// use tower_api_key::RevocationReason;
///
/// assert_eq!(RevocationReason::OwnerLeft.to_string(), "owner_left");
/// assert_eq!("leaked".parse(), Ok(RevocationReason::Leaked));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevocationReason {
    /// Somebody may have its token who must not.
    Leaked,
    /// Another key has taken its place.
    Rotated,
    /// Who it belonged to has left.
    OwnerLeft,
    /// Something else does its work now.
    Superseded,
    /// Something else, in 1 to 255 bytes, none of them a character that controls lines or the direction of
    /// text.
    Other(String),
}

impl RevocationReason {
    /// The text that stands for it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Leaked => "leaked",
            Self::Rotated => "rotated",
            Self::OwnerLeft => "owner_left",
            Self::Superseded => "superseded",
            Self::Other(text) => text,
        }
    }

    /// It, as it is going to be read: a text that stands for another reason is that one.
    pub(crate) fn checked(self) -> Result<Self, InvalidKey> {
        let field = "revocation_reason";
        if self.as_str().is_empty() {
            return Err(InvalidKey {
                field,
                problem: "is empty",
            });
        }
        check_text(field, self.as_str())?;
        let Ok(read) = self.as_str().parse();
        Ok(read)
    }
}

/// Every text is one: what isn't one of ours is [`Other`](RevocationReason::Other).
impl FromStr for RevocationReason {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "leaked" => Self::Leaked,
            "rotated" => Self::Rotated,
            "owner_left" => Self::OwnerLeft,
            "superseded" => Self::Superseded,
            other => Self::Other(other.to_owned()),
        })
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
