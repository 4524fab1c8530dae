//! What the names of our tables begin with.

use std::fmt;

use super::OpenError;

/// A part of an identifier that was checked, so that it can stand in a statement.
#[derive(Clone, Debug)]
pub(in crate::backend) struct TablePrefix(String);

impl TablePrefix {
    const MAX_LEN: usize = 32;

    /// # Errors
    ///
    /// [`OpenError::Identifier`].
    pub(in crate::backend) fn new(text: &str) -> Result<Self, OpenError> {
        let is_start = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let is_identifier = text.bytes().next().is_some_and(is_start)
            && text
                .bytes()
                .all(|byte| is_start(byte) || byte.is_ascii_digit());
        if is_identifier && text.len() <= Self::MAX_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(OpenError::Identifier(text.to_owned()))
        }
    }
}

/// Tables are `tower_api_keys` and so on.
impl Default for TablePrefix {
    fn default() -> Self {
        Self("tower_api_".to_owned())
    }
}

impl fmt::Display for TablePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
