//! Names that are short enough to be copied.

use std::num::NonZeroU8;

/// Between 1 and `N` bytes of ASCII, in place. Compares and hashes like the text. An `Option` of it is no
/// longer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ShortText<const N: usize> {
    bytes: [u8; N],
    len: NonZeroU8,
}

impl<const N: usize> ShortText<N> {
    /// `text`, if it has between `at_least` and `N` bytes, all of them `allowed` and ASCII.
    pub(super) fn new(text: &str, at_least: usize, allowed: fn(u8) -> bool) -> Option<Self> {
        let mut bytes = [0; N];
        let len = NonZeroU8::new(u8::try_from(text.len()).ok()?)?;
        let fits = text.len() >= at_least && text.is_ascii() && text.bytes().all(allowed);
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        fits.then_some(Self { bytes, len })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len.get())]
    }

    pub(super) fn as_str(&self) -> &str {
        ascii(self.as_bytes())
    }
}

/// The text that `bytes` are, which were checked to be ASCII.
pub(super) fn ascii(bytes: &[u8]) -> &str {
    debug_assert!(bytes.is_ascii());
    str::from_utf8(bytes).unwrap_or("(not ASCII)")
}

#[cfg(test)]
mod tests {
    use super::ShortText;

    #[test]
    fn a_text_is_taken_whole_or_not_at_all() {
        let taken = |text| {
            let text = ShortText::<3>::new(text, 2, |byte| byte != b'-');
            text.map(|text| text.as_str().to_owned())
        };
        for text in ["ab", "abc"] {
            assert_eq!(taken(text).as_deref(), Some(text));
        }
        assert_eq!(size_of::<Option<ShortText<15>>>(), 16);
        for text in ["", "a", "abcd", "a-b", "é", &"a".repeat(300)] {
            assert_eq!(taken(text), None, "{text}");
        }
    }
}
