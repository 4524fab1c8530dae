//! Lowercase hex, for hashes in databases and peppers in files.
//!
//! By arithmetic: a table that is indexed by a pepper's digits would tell the processor's cache
//! about them.

/// The lowercase hex digits of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(nibble + b'0' + u8::from(nibble > 9) * (b'a' - b'0' - 10));
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
        .collect()
}

/// The bytes that `text` says; nothing where it has another character or an odd length.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    // Never grown: what a vector leaves behind when it moves isn't wiped.
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    let decimal = digit.wrapping_sub(b'0');
    let letter = (digit | 0x20).wrapping_sub(b'a');
    if decimal < 10 {
        Some(decimal)
    } else if letter < 6 {
        Some(letter + 10)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(decode(text.as_bytes()), Some(all));
    }

    #[test]
    fn what_is_not_hex_is_refused() {
        for text in ["0", "0g", "g0", "0/", "0:", "0@", "0`", " 0", "é"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decode(b"Ff"), Some(vec![255]));
    }
}
