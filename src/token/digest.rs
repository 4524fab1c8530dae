//! How the tokens of another issuer look, of which only a digest was ever kept.

use super::{ApiKeyToken, Brand, DisplayPrefix, hash};
use crate::error::ConfigError;

/// How the tokens of another issuer look: one opaque string, of which only a digest was ever kept,
/// SHA-256 unless [another algorithm](Self::algorithm) is named.
///
/// A text is such a token where prefix, length and alphabet are right, all three: the same issuer may have
/// put the prefix before other tokens, too. New keys never look like this.
///
/// ```
/// use tower_api_key::{Brand, DigestFormat, TokenAlphabet, TokenFormat};
///
/// let old = DigestFormat::new("pylon_", 54, TokenAlphabet::LowerHex)?;
/// let format = TokenFormat::new(Brand::default()).with_digests(old)?;
/// assert!(format.claims("pylon_afeb07edffef95fd562a499593f4c80c965bdabb64d42bf9"));
/// assert!(!format.claims("pylon_a session"));
/// # Ok::<(), tower_api_key::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestFormat {
    prefix: Box<str>,
    len: usize,
    alphabet: TokenAlphabet,
    algorithm: DigestAlgorithm,
    /// Follows an id that is no part of the digest.
    id_separator: Option<u8>,
}

/// What a digest of a token was computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DigestAlgorithm {
    /// SHA-256 (FIPS 180-4), 64 hex digits.
    #[default]
    Sha256,
    /// SHA-512 (FIPS 180-4), 128 hex digits. The first 32 bytes are kept.
    Sha512,
}

/// The characters after the prefix of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenAlphabet {
    /// `[0-9a-f]`
    LowerHex,
    /// `[0-9A-Fa-f]`
    Hex,
    /// `[0-9A-Za-z]`
    Alphanumeric,
    /// `[0-9A-Za-z_-]`
    Base64Url,
    /// `[0-9A-Za-z+/]`, with at most two `=` at the end (RFC 4648 §4).
    Base64,
    /// `[0-9A-Za-z_.-]`: base64url in parts, as a JWT is.
    Jwt,
}

impl DigestFormat {
    /// How many characters have to come after the prefix, at the least.
    pub const MIN_RANDOM_LEN: usize = 16;
    /// How long a token is at the most, in bytes.
    pub const MAX_LEN: usize = 255;
    /// The maximum length of an [id before the token](Self::with_id_before), in bytes.
    pub const MAX_ID_LEN: usize = 36;

    /// Tokens that begin with `prefix`, are `len` bytes long in all, and have characters of `alphabet`
    /// after the prefix.
    ///
    /// The prefix may be shown and logged, its first 16 characters. It may be empty.
    ///
    /// # Errors
    ///
    /// [`ConfigError::DigestFormat`] where the prefix has other characters than `[A-Za-z0-9._~+/-]`, the
    /// length leaves less than [`MIN_RANDOM_LEN`](Self::MIN_RANDOM_LEN) characters after it, or is more than
    /// [`MAX_LEN`](Self::MAX_LEN).
    pub fn new(prefix: &str, len: usize, alphabet: TokenAlphabet) -> Result<Self, ConfigError> {
        let wrong = |problem| Err(ConfigError::DigestFormat { problem });
        // `token68` of RFC 9110 §11.2, which a bearer token is (RFC 6750 §2.1).
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if !prefix.bytes().all(allowed) {
            return wrong("has a prefix with other characters than [A-Za-z0-9._~+/-]");
        }
        if len > Self::MAX_LEN {
            return wrong("has a length of more than 255");
        }
        if len < prefix.len().saturating_add(Self::MIN_RANDOM_LEN) {
            return wrong("leaves less than 16 characters after its prefix");
        }
        Ok(Self {
            prefix: prefix.into(),
            len,
            alphabet,
            algorithm: DigestAlgorithm::Sha256,
            id_separator: None,
        })
    }

    /// Sets what the digests were computed with.
    #[must_use]
    pub fn algorithm(mut self, algorithm: DigestAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Has the tokens begin with an id and `separator`, which are not part of the digest, nor of
    /// the length and the prefix: Laravel Sanctum's are `63|` and what was hashed.
    ///
    /// The id is 1 to 36 characters of `[0-9A-Za-z-]`. It may be shown and logged, and is not
    /// compared with anything.
    ///
    /// ```
    /// use tower_api_key::{DigestFormat, TokenAlphabet, TokenFormat};
    ///
    /// let sanctum = DigestFormat::new("", 40, TokenAlphabet::Alphanumeric)?.with_id_before('|')?;
    /// let format = TokenFormat::default().with_digests(sanctum)?;
    /// assert!(format.claims("63|Zq8sT1xw5bYkLr0uVnE2cJdHfGmPaQ9oWi37XyBz"));
    /// # Ok::<(), tower_api_key::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::DigestFormat`] if the separator is not one of `|:;~_+/=!#$%&*@^`: a comma
    /// separates header values, and a dot follows the brand of a new token.
    pub fn with_id_before(mut self, separator: char) -> Result<Self, ConfigError> {
        if !"|:;~_+/=!#$%&*@^".contains(separator) {
            return Err(ConfigError::DigestFormat {
                problem: "has a separator that is not one of |:;~_+/=!#$%&*@^",
            });
        }
        self.id_separator = u8::try_from(separator).ok();
        Ok(self)
    }

    /// What the tokens begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How long a token is, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no token is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What the tokens are made of after the prefix.
    #[must_use]
    pub fn alphabet(&self) -> TokenAlphabet {
        self.alphabet
    }

    pub(super) fn has(&self, algorithm: DigestAlgorithm) -> bool {
        self.algorithm == algorithm
    }

    pub(super) fn claims(&self, text: &[u8]) -> bool {
        self.hashed(text).is_some()
    }

    /// Returns what of the text was hashed, if it is one of these tokens.
    fn hashed<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        let hashed = match self.id_separator {
            None => text,
            Some(separator) => {
                let (id, rest) = text.split_at_checked(text.len().checked_sub(self.len)?)?;
                let (last, id) = id.split_last()?;
                let is_id = (1..=Self::MAX_ID_LEN).contains(&id.len())
                    && id
                        .iter()
                        .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
                (*last == separator && is_id).then_some(rest)?
            }
        };
        let rest = hashed.strip_prefix(self.prefix.as_bytes())?;
        (hashed.len() == self.len && self.alphabet.has_all(rest)).then_some(hashed)
    }

    /// Whether some text that begins with the brand and a dot would be one of these tokens. An id
    /// has no dot.
    pub(super) fn meets(&self, brand: &Brand) -> bool {
        let (prefix, brand) = (self.prefix.as_bytes(), brand.as_bytes());
        let begins_with_brand = prefix
            .strip_prefix(brand)
            .is_some_and(|rest| rest.first() == Some(&b'.'));
        // Only one alphabet has a dot, and it also has all characters of a brand.
        let may_go_on_as_brand = self.alphabet == TokenAlphabet::Jwt && brand.starts_with(prefix);
        self.id_separator.is_none() && (begins_with_brand || may_go_on_as_brand)
    }
}

impl TokenAlphabet {
    /// Whether all of these bytes are of the alphabet. By arithmetic and to the end, as for the secrets of
    /// our own tokens: they are a secret.
    fn has_all(self, bytes: &[u8]) -> bool {
        let hex = |byte| among(byte, b'0', 10) | among(byte, b'a', 6);
        let alphanumeric = |byte| among(byte, b'0', 10) | among(byte | 0x20, b'a', 26);
        match self {
            Self::LowerHex => all(bytes, hex),
            Self::Hex => all(bytes, |byte| hex(byte) | among(byte, b'A', 6)),
            Self::Alphanumeric => all(bytes, alphanumeric),
            Self::Base64Url => all(bytes, |byte| {
                alphanumeric(byte) | among(byte, b'-', 1) | among(byte, b'_', 1)
            }),
            Self::Base64 => {
                // The padding says no more than the length.
                let bytes = bytes.strip_suffix(b"=").unwrap_or(bytes);
                let bytes = bytes.strip_suffix(b"=").unwrap_or(bytes);
                all(bytes, |byte| {
                    alphanumeric(byte) | among(byte, b'+', 1) | among(byte, b'/', 1)
                })
            }
            // A dot and a hyphen are neighbours.
            Self::Jwt => all(bytes, |byte| {
                alphanumeric(byte) | among(byte, b'-', 2) | among(byte, b'_', 1)
            }),
        }
    }
}

/// Whether `is_one`, which says 0 or 1, says 1 of all.
fn all(bytes: &[u8], is_one: impl Fn(u8) -> u8) -> bool {
    bytes.iter().fold(1, |all, &byte| all & is_one(byte)) == 1
}

/// 1 where `byte` is one of the `count` that begin with `first`, and otherwise 0.
fn among(byte: u8, first: u8, count: u8) -> u8 {
    u8::from(byte.wrapping_sub(first) < count)
}

/// What a token has that is one opaque string.
#[derive(Clone)]
pub(super) struct Digest {
    pub(super) words: hash::Words,
    prefix_len: u8,
}

impl Digest {
    pub(super) fn prefix_len(&self) -> usize {
        usize::from(self.prefix_len)
    }
}

impl ApiKeyToken {
    /// Becomes the token that `bytes` are, which `format` claims.
    #[cold]
    pub(super) fn read_opaque(&mut self, format: &DigestFormat, bytes: &[u8]) -> Option<()> {
        let hashed = format.hashed(bytes)?;
        let words = match format.algorithm {
            DigestAlgorithm::Sha256 => hash::digest(hashed),
            DigestAlgorithm::Sha512 => hash::digest_512(hashed),
        };
        // More is never shown.
        let public = (bytes.len() - hashed.len() + format.prefix.len()).min(DisplayPrefix::MAX_LEN);
        let digest = Digest {
            words,
            prefix_len: u8::try_from(public).ok()?,
        };
        self.lookup_key = hash::lookup_key(&words);
        self.keep(bytes)?;
        self.digest = Some(digest);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ApiKeyToken, Brand, Pepper, Peppers, SecretHash, TokenFormat},
        DigestFormat, TokenAlphabet,
    };

    #[test]
    fn a_wrong_bit_anywhere_in_the_digest_is_a_wrong_secret() {
        let peppers = Peppers::new(Pepper::random("v1").expect("randomness"));
        let format = DigestFormat::new("old_", 52, TokenAlphabet::LowerHex).expect("a format");
        let format = TokenFormat::default()
            .with_digests(format)
            .expect("formats");
        let token = format
            .parse(format!("old_{}", "7".repeat(48)))
            .expect("a token");
        let right = token.digest.as_ref().expect("a digest").words;
        let verify = |hash| peppers.verify(&token, Some(&hash)).expect("an answer");
        assert!(verify(SecretHash::digest(right)));
        for bit in 0..256 {
            let mut wrong = right;
            wrong[bit / 64] ^= 1 << (bit % 64);
            assert!(!verify(SecretHash::digest(wrong)), "bit {bit}");
        }
        // Not even where it is the same: it is the hash of something else.
        let pepper = "v1".parse().expect("an id");
        assert!(!verify(SecretHash::hmac(pepper, right)));
        assert!(!verify(SecretHash::digest([0; 4])));
        assert!(!peppers.verify(&token, None).expect("an answer"));

        let native = ApiKeyToken::generate(&Brand::default()).expect("randomness");
        let hash = peppers.hash(&native).expect("a hash");
        let digest = SecretHash::from_digest_hex(&hash.to_hex()).expect("64 digits");
        let verify = |hash| peppers.verify(&native, Some(&hash)).expect("an answer");
        assert!(verify(hash) && !verify(digest));
    }

    #[test]
    fn each_alphabet_has_its_characters_and_no_other_byte_in_any_place() {
        type Has = fn(&u8) -> bool;
        let alphabets: [(TokenAlphabet, Has); 6] = [
            (TokenAlphabet::LowerHex, |byte| {
                b"0123456789abcdef".contains(byte)
            }),
            (TokenAlphabet::Hex, u8::is_ascii_hexdigit),
            (TokenAlphabet::Alphanumeric, u8::is_ascii_alphanumeric),
            (TokenAlphabet::Base64Url, |byte| {
                byte.is_ascii_alphanumeric() || b"-_".contains(byte)
            }),
            (TokenAlphabet::Base64, |byte| {
                byte.is_ascii_alphanumeric() || b"+/".contains(byte)
            }),
            (TokenAlphabet::Jwt, |byte| {
                byte.is_ascii_alphanumeric() || b"-_.".contains(byte)
            }),
        ];
        for (alphabet, has) in alphabets {
            for byte in 0..=255_u8 {
                for place in [0, 1, 15, 16, 46, 47] {
                    let mut text = [b'0'; 48];
                    text[place] = byte;
                    // Padding.
                    let is_end = (alphabet, byte, place) == (TokenAlphabet::Base64, b'=', 47);
                    assert_eq!(
                        alphabet.has_all(&text),
                        has(&byte) || is_end,
                        "{alphabet:?}: {byte:#x} at {place}"
                    );
                }
            }
        }
    }
}
