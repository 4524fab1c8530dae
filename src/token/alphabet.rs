//! base64url (RFC 4648 §5), read by arithmetic.
//!
//! On every request an id is decoded and a secret is checked. Both are done for sixteen bytes at a time,
//! in loops without branches or tables, which compilers turn into a few vector instructions. So no table is indexed by
//! a byte of a secret, and every byte is looked at whatever the others are.

use zeroize::Zeroizing;

type Lanes = [u8; 16];

/// Whether all of the 43 characters of a secret are of the alphabet. The last sixteen overlap those
/// before them.
#[inline]
pub(super) fn is_base64url(secret: &[u8; 43]) -> bool {
    let ([first, second], _) = secret.as_chunks::<16>() else {
        return false;
    };
    let mut others = [0; 16];
    for lanes in [first, second, secret.last_chunk().unwrap_or(first)] {
        decode_lanes(lanes, &mut others);
    }
    others == [0; 16]
}

/// The 24 bytes that 32 characters stand for.
#[inline]
pub(super) fn decode(text: &[u8; 32]) -> Option<[u8; 24]> {
    let mut others = [0; 16];
    let mut bytes = [0; 24];
    for (half, into) in text
        .as_chunks::<16>()
        .0
        .iter()
        .zip(bytes.as_chunks_mut::<12>().0)
    {
        let sextets = decode_lanes(half, &mut others);
        for (eight, into) in sextets
            .as_chunks()
            .0
            .iter()
            .zip(into.as_chunks_mut::<6>().0)
        {
            into.copy_from_slice(&join(*eight).to_be_bytes()[2..]);
        }
    }
    (others == [0; 16]).then_some(bytes)
}

/// The 16 bytes that 22 characters stand for. The last one's spare bits have to be 0: one text for each.
pub(crate) fn decode_16(text: &[u8; 22]) -> Option<[u8; 16]> {
    let mut filled = Zeroizing::new([b'A'; 32]);
    filled[..22].copy_from_slice(text);
    let bytes = Zeroizing::new(decode(&filled)?);
    let (bytes, rest) = bytes.split_first_chunk::<16>()?;
    (*rest == [0; 8]).then_some(*bytes)
}

/// What each character stands for. `others` keeps a bit for each that stands for nothing.
#[inline]
fn decode_lanes(text: &Lanes, others: &mut Lanes) -> Lanes {
    let mut sextets = [0; 16];
    for ((sextet, other), &byte) in sextets.iter_mut().zip(others).zip(text) {
        let upper = byte.wrapping_sub(b'A');
        let lower = byte.wrapping_sub(b'a');
        let digit = byte.wrapping_sub(b'0');
        let is_upper = mask(upper < 26);
        let is_lower = mask(lower < 26);
        let is_digit = mask(digit < 10);
        let is_dash = mask(byte == b'-');
        let is_line = mask(byte == b'_');
        *sextet = (is_upper & upper)
            | (is_lower & lower.wrapping_add(26))
            | (is_digit & digit.wrapping_add(52))
            | (is_dash & 0x3e)
            | (is_line & 0x3f);
        *other |= !(is_upper | is_lower | is_digit | is_dash | is_line);
    }
    sextets
}

#[inline]
fn mask(is: bool) -> u8 {
    u8::from(is).wrapping_neg()
}

/// Eight times six bits, the first of them the highest: two, four and then all of them at a time.
#[inline]
fn join(sextets: [u8; 8]) -> u64 {
    let ones = u64::from_le_bytes(sextets);
    let pairs = ((ones & 0x003f_003f_003f_003f) << 6) | ((ones >> 8) & 0x003f_003f_003f_003f);
    let fours = ((pairs & 0x0000_0fff_0000_0fff) << 12) | ((pairs >> 16) & 0x0000_0fff_0000_0fff);
    ((fours & 0x00ff_ffff) << 24) | (fours >> 32)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::{decode, decode_16, is_base64url};

    #[test]
    fn the_arithmetic_alphabet_is_base64url_for_every_byte_in_every_place() {
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            for place in 0..43 {
                let mut secret = [b'a'; 43];
                secret[place] = byte;
                assert_eq!(is_base64url(&secret), expected, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn every_id_is_decoded_as_the_library_does() {
        for byte in 0..=255_u8 {
            for place in 0..32 {
                for around in [b'a', b'Z', b'0', b'-', b'_'] {
                    let mut text = [around; 32];
                    text[place] = byte;
                    let library = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
                    let ours = decode(&text).map(Vec::from);
                    assert_eq!(ours, library, "{byte:#x} at {place}");
                }
            }
        }
        let mut bytes = [0_u8; 24];
        for round in 0..1_000_u32 {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = byte
                    .wrapping_mul(181)
                    .wrapping_add(u8::try_from((round as usize + at * 7) % 251).unwrap_or(0));
            }
            let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let text: &[u8; 32] = text.as_bytes().first_chunk().expect("32 characters");
            assert_eq!(decode(text), Some(bytes));
        }
    }

    #[test]
    fn every_ticket_is_decoded_as_the_library_does() {
        for byte in 0..=255_u8 {
            for place in 0..22 {
                for around in [b'A', b'Q', b'w', b'-'] {
                    let mut text = [around; 22];
                    text[21] = b'g';
                    text[place] = byte;
                    let library = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
                    let ours = decode_16(&text).map(Vec::from);
                    assert_eq!(ours, library, "{byte:#x} at {place}");
                }
            }
        }
    }
}
