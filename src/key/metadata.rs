//! What a service keeps with a key.

use crate::error::InvalidKey;

/// What a service keeps with a key: one JSON text of at most 4 KiB, which this crate doesn't look into.
///
/// With the feature `json` it is made of anything that [`serde`] can write, and read as what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// The longest text, in bytes.
    pub const MAX_LEN: usize = 4_096;

    /// What a backend has stored. It isn't looked at whether it is JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] where it is longer than [`Self::MAX_LEN`].
    pub fn from_stored(text: impl Into<Box<str>>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if text.len() > Self::MAX_LEN {
            return Err(InvalidKey {
                field: "metadata",
                problem: "is longer than 4,096 bytes",
            });
        }
        Ok(Self(text))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
