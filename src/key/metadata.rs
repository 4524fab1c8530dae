//! What a service keeps with a key.

#[cfg(feature = "json")]
use serde::{Serialize, de::DeserializeOwned};

use super::json::is_json;
use crate::error::InvalidKey;

/// What a service keeps with a key: one JSON text of at most 4 KiB. What it says is the service's own business.
/// It is no place for secrets: `Debug` shows it, with what could forge a line of a log escaped.
///
/// [`from_json`](Self::from_json) takes a text. With the feature `json` it is made of anything that serde can write,
/// too, and read as what it was:
///
#[cfg_attr(feature = "json", doc = "```")]
#[cfg_attr(not(feature = "json"), doc = "```ignore")]
/// use tower_api_key::{Metadata, NewApiKey, Scopes};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Made {
///     by: String,
///     ticket: u32,
/// }
///
/// let made = Metadata::new(&Made { by: "ops".to_owned(), ticket: 4_711 })?;
/// let new = NewApiKey::for_user("user_1", Scopes::of(["notes:read"])?).metadata(made.clone());
///
/// assert_eq!(made.get::<Made>()?.ticket, 4_711);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// The longest text, in bytes.
    pub const MAX_LEN: usize = 4_096;

    /// The JSON text that stands for `value`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] where it can't be written as JSON, and those of [`from_json`](Self::from_json).
    #[cfg(feature = "json")]
    pub fn new(value: &(impl Serialize + ?Sized)) -> Result<Self, InvalidKey> {
        let text = serde_json::to_string(value).map_err(|_| refused("can't be written as JSON"))?;
        Self::from_json(text)
    }

    /// A JSON text as it stands.
    ///
    /// ```
    /// use tower_api_key::Metadata;
    ///
    /// let metadata = Metadata::from_json(r#"{"by":"ops"}"#)?;
    /// assert_eq!(metadata.as_str(), r#"{"by":"ops"}"#);
    /// assert!(Metadata::from_json("by ops").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] where it isn't JSON (RFC 8259), or is longer than [`Self::MAX_LEN`]; and where many programs
    /// couldn't read it: nested more than 127 deep, with a number beyond those of 64 bits, or with an escape that is
    /// half a character.
    pub fn from_json(text: impl Into<Box<str>>) -> Result<Self, InvalidKey> {
        let metadata = Self::from_stored(text)?;
        metadata.check()?;
        Ok(metadata)
    }

    /// What the text stands for.
    ///
    /// # Errors
    ///
    /// [`ReadMetadataError`] where it isn't a `T`.
    #[cfg(feature = "json")]
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, ReadMetadataError> {
        serde_json::from_str(&self.0).map_err(ReadMetadataError)
    }

    /// What a backend has stored, for [`ApiKey::metadata`](crate::ApiKey::metadata) when a record is read. It isn't
    /// checked to be JSON. No key is created with it, or changed to have it, where it isn't.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] where it is longer than [`Self::MAX_LEN`].
    pub fn from_stored(text: impl Into<Box<str>>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if text.len() > Self::MAX_LEN {
            return Err(refused("is longer than 4,096 bytes"));
        }
        Ok(Self(text))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it isn't JSON, it can't be stored. So NUL is in none, which not every database takes.
    pub(crate) fn check(&self) -> Result<(), InvalidKey> {
        if is_json(&self.0) {
            Ok(())
        } else {
            Err(refused("isn't JSON that can be read"))
        }
    }
}

fn refused(problem: &'static str) -> InvalidKey {
    InvalidKey {
        field: "metadata",
        problem,
    }
}

/// A key's [`Metadata`] isn't what it was to be read as.
#[cfg(feature = "json")]
#[derive(Debug, thiserror::Error)]
#[error("the metadata can't be read as what was asked for")]
pub struct ReadMetadataError(#[source] serde_json::Error);
