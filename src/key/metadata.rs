//! What a service keeps with a key.

#[cfg(feature = "json")]
use serde::{Serialize, de::DeserializeOwned};

use crate::error::InvalidKey;

/// What a service keeps with a key: one JSON text of at most 4 KiB, which this crate doesn't look into.
/// It is no place for secrets: `Debug` shows it, with what could forge a line of a log escaped.
///
/// With the feature `json` it is made of anything that serde can write, and read as what it was:
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
    /// [`InvalidKey`] where it can't be written as JSON, or is longer than [`Self::MAX_LEN`].
    #[cfg(feature = "json")]
    pub fn new(value: &(impl Serialize + ?Sized)) -> Result<Self, InvalidKey> {
        let text = serde_json::to_string(value).map_err(|_| refused("can't be written as JSON"))?;
        Self::from_stored(text)
    }

    /// A JSON text as it stands.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] where it isn't valid JSON, is nested more than 127 deep, has a number beyond those of
    /// 64 bits, or is longer than [`Self::MAX_LEN`].
    #[cfg(feature = "json")]
    pub fn from_json(text: impl Into<Box<str>>) -> Result<Self, InvalidKey> {
        let metadata = Self::from_stored(text)?;
        // As something, so that whatever is accepted can be read again.
        match metadata.get::<serde_json::Value>() {
            Ok(_) => Ok(metadata),
            Err(_) => Err(refused("isn't JSON")),
        }
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

    /// What a backend has stored. It isn't looked at whether it is JSON.
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

    /// No JSON text is empty, or has other control characters than white space. Not every database takes
    /// those.
    pub(crate) fn check(&self) -> Result<(), InvalidKey> {
        let is_other = |char: char| char.is_control() && !['\t', '\n', '\r'].contains(&char);
        if self.0.is_empty() || self.0.chars().any(is_other) {
            return Err(refused("isn't JSON"));
        }
        Ok(())
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
