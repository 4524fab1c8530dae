//! What a token looks like, against vectors and a second reading of its grammar, and how new ones
//! are made.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use std::{error::Error, fmt, marker::PhantomData};

use proptest::{collection::vec, prelude::*};
use rand::{TryCryptoRng, TryRng};
use serde::Deserialize;
use tower_api_key::{
    ApiKeyToken, Brand, ClaimHash, DisplayPrefix, HandoffToken, KeyId, Pepper, Peppers, SecretHash,
    TokenFormat,
};

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[derive(Deserialize)]
struct Vectors {
    native: Vec<Native>,
    well_formed: Vec<String>,
    malformed: Vec<String>,
}

#[derive(Deserialize)]
struct Native {
    pepper: String,
    token: String,
    id: String,
    display_prefix: String,
    secret_hash: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

#[test]
fn the_vectors_are_read_and_hashed_as_they_say() {
    for vector in vectors().native {
        let token: ApiKeyToken = vector.token.parse().unwrap();
        assert_eq!(token.expose(), vector.token);
        assert_eq!(token.key_id().unwrap().to_string(), vector.id);
        assert_eq!(vector.id.parse(), Ok(token.key_id().unwrap()));
        assert_eq!(
            token.lookup_key().as_bytes(),
            token.key_id().unwrap().as_bytes()
        );
        assert_eq!(token.display_prefix().as_str(), vector.display_prefix);

        let peppers = Peppers::new(Pepper::new("v1", &vector.pepper).unwrap());
        let hash = peppers.hash(&token).unwrap();
        assert_eq!(hash.to_hex(), vector.secret_hash);
        assert_eq!(hash.pepper().unwrap().as_str(), "v1");
        let stored =
            SecretHash::from_hex(*hash.pepper().unwrap(), &vector.secret_hash.to_uppercase());
        assert_eq!(stored.unwrap().to_hex(), vector.secret_hash);
    }
}

#[test]
fn the_vectors_are_told_apart_into_well_formed_and_malformed() {
    let Vectors {
        well_formed,
        malformed,
        ..
    } = vectors();
    assert!(!well_formed.is_empty() && !malformed.is_empty());
    for text in well_formed {
        assert_eq!(text.parse::<ApiKeyToken>().unwrap().expose(), text);
    }
    for text in malformed {
        assert!(text.parse::<ApiKeyToken>().is_err(), "{text}");
    }
}

#[test]
fn the_secret_is_not_decoded_so_spare_bits_in_its_last_character_are_well_formed() {
    for last in ALPHABET.chars() {
        let text = format!("pk.key_{}.{}{last}", "a".repeat(32), "b".repeat(42));
        assert_eq!(text.parse::<ApiKeyToken>().unwrap().expose(), text);
    }
}

#[test]
fn a_brand_is_two_to_sixteen_lowercase_letters_and_digits() {
    for brand in ["pk", "00", "acme", "a234567890123456"] {
        let token = ApiKeyToken::generate(&Brand::new(brand).unwrap()).unwrap();
        let text = token.expose();
        assert!(text.starts_with(&format!("{brand}.key_")), "{token:?}");
        assert!(is_token(brand, text.as_bytes()));
        let secret = text.rsplit('.').next().unwrap();
        assert_eq!(token.display_prefix().as_str(), &text[..16]);
        assert!(!secret.starts_with(token.display_prefix().as_str()));

        let own = TokenFormat::new(Brand::new(brand).unwrap());
        assert_eq!(own.parse(text).unwrap().expose(), text);
        let other = TokenFormat::new(Brand::new("other").unwrap());
        assert!(other.parse(text).is_err() && !other.claims(text.as_bytes()));
    }
    let refused = [
        "",
        "a",
        "a2345678901234567",
        "Pk",
        "p k",
        "p.k",
        "p_",
        "pé",
        "\0\0",
    ];
    for brand in refused {
        assert!(Brand::new(brand).is_err(), "{brand:?}");
    }
}

#[test]
fn new_tokens_use_the_whole_alphabet_in_every_place() {
    const TOKENS: usize = 20_000;
    let mut counts = vec![[0_usize; 128]; 83];
    for _ in 0..TOKENS {
        let token = ApiKeyToken::generate(&Brand::default()).unwrap();
        for (place, byte) in token.expose().bytes().enumerate() {
            counts[place][usize::from(byte)] += 1;
        }
    }
    // The last character of the secret holds four bits and two that are always zero.
    for (place, kinds) in (7..39)
        .map(|at| (at, 64))
        .chain((40..82).map(|at| (at, 64)))
        .chain([(82, 16)])
    {
        let expected = TOKENS / kinds;
        let used = ALPHABET.chars().step_by(64 / kinds);
        for letter in used {
            let count = counts[place][letter as usize];
            // Ten standard deviations at the least, so that chance never fails it.
            assert!(
                count > expected / 2 && count < expected * 2,
                "{letter} came {count} times in place {place}"
            );
        }
    }
}

#[test]
fn a_token_is_made_of_the_bytes_that_the_generator_gives_in_their_order() {
    let mut rng = Counter::until(56);
    let token = ApiKeyToken::generate_with(&Brand::default(), &mut rng).unwrap();
    assert_eq!(
        token.expose(),
        "pk.key_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX.GBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc"
    );
    assert_eq!(
        token.key_id().unwrap(),
        KeyId::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    );
}

#[test]
fn a_generator_that_fails_at_any_point_makes_no_token() {
    for bytes in 0..56 {
        let mut rng = Counter::until(bytes);
        let error = ApiKeyToken::generate_with(&Brand::default(), &mut rng).unwrap_err();
        let source = error.source().unwrap();
        assert!(source.downcast_ref::<Dry>().is_some(), "{source:?}");
    }
}

#[test]
fn a_display_prefix_reads_back_and_nothing_else_passes_for_one() {
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let prefix = token.display_prefix();
    assert_eq!(prefix.to_string().parse(), Ok(prefix));
    assert_eq!(
        DisplayPrefix::of(&Brand::default(), &token.key_id().unwrap()),
        prefix
    );
    for text in [
        "",
        token.expose(),
        "pk.key_ABCDEFGH\n",
        "pk.key_ABCDEFGH ",
        "pk.key_ABCDEFG\u{e9}",
    ] {
        assert!(text.parse::<DisplayPrefix>().is_err(), "{text:?}");
    }
}

#[test]
fn a_token_shows_no_more_than_its_display_prefix() {
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let shown = format!("ApiKeyToken({}..)", token.display_prefix());
    assert_eq!(format!("{token:?}"), shown);
    assert_eq!(format!("{:?}", token.clone()), shown);
}

/// Answers for every type, unless `Comparable` does so for the type itself.
trait Incomparable {
    fn has_eq(&self) -> bool {
        false
    }
}
impl<T> Incomparable for &Subject<T> {}

trait Comparable {
    fn has_eq(&self) -> bool {
        true
    }
}
impl<T: PartialEq> Comparable for Subject<T> {}

struct Subject<T>(PhantomData<T>);

#[test]
fn what_is_secret_has_no_equals_sign_that_could_compare_it_in_varying_time() {
    let shown = &Subject::<KeyId>(PhantomData);
    let token = &Subject::<ApiKeyToken>(PhantomData);
    let hash = &Subject::<SecretHash>(PhantomData);
    let pepper = &Subject::<Pepper>(PhantomData);
    let one_time = &Subject::<HandoffToken>(PhantomData);
    assert!(shown.has_eq());
    assert!(!token.has_eq() && !hash.has_eq() && !pepper.has_eq());
    assert!(!one_time.has_eq());
    // That of a one-time token may be compared: nobody comes near it without the 128 random bits.
    let claim_hash = &Subject::<ClaimHash>(PhantomData);
    assert!(claim_hash.has_eq());
}

/// The grammar once more: three parts between two dots, and nothing else.
fn is_token(brand: &str, text: &[u8]) -> bool {
    let parts: Vec<&[u8]> = text.split(|&byte| byte == b'.').collect();
    let &[first, id, secret] = parts.as_slice() else {
        return false;
    };
    let letters = |text: &[u8]| text.iter().all(|&byte| ALPHABET.as_bytes().contains(&byte));
    first == brand.as_bytes()
        && id.starts_with(b"key_")
        && id.len() == 36
        && letters(id)
        && secret.len() == 43
        && letters(secret)
}

/// One change to a text, at a place that is taken modulo its length.
#[derive(Debug, Clone)]
enum Edit {
    Set(usize, u8),
    Flip(usize, u8),
    Insert(usize, u8),
    Delete(usize),
    Repeat(usize),
    Swap(usize, usize),
    Cut(usize),
}

impl Edit {
    fn apply(&self, text: &mut Vec<u8>) {
        let len = text.len();
        if len == 0 {
            return;
        }
        match *self {
            Self::Set(at, byte) => text[at % len] = byte,
            Self::Flip(at, bit) => text[at % len] ^= 1 << (bit % 8),
            Self::Insert(at, byte) => text.insert(at % (len + 1), byte),
            Self::Delete(at) => drop(text.remove(at % len)),
            Self::Repeat(at) => text.insert(at % len, text[at % len]),
            Self::Swap(one, other) => text.swap(one % len, other % len),
            Self::Cut(at) => text.truncate(at % len),
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = 0..84_usize;
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(b"._-AZaz09 /+=".to_vec())];
    prop_oneof![
        (at.clone(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at.clone(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (at.clone(), byte()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        at.clone().prop_map(Edit::Delete),
        at.clone().prop_map(Edit::Repeat),
        (at.clone(), at.clone()).prop_map(|(one, other)| Edit::Swap(one, other)),
        at.prop_map(Edit::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn the_parser_agrees_with_the_grammar_on_edited_tokens(
        token in "pk\\.key_[A-Za-z0-9_-]{32}\\.[A-Za-z0-9_-]{43}",
        edits in vec(edit(), 0..4),
    ) {
        let mut text = token.into_bytes();
        for edit in &edits {
            edit.apply(&mut text);
        }
        let parsed = TokenFormat::default().parse(&text);
        prop_assert_eq!(parsed.is_ok(), is_token("pk", &text));
        if let Ok(token) = parsed {
            prop_assert_eq!(token.expose().as_bytes(), &text);
        }
    }

    #[test]
    fn the_parser_agrees_with_the_grammar_on_other_texts(
        text in "(pk|PK|p|[a-z]{3})?[.:_]?(key_|KEY_|key)?[\\w-]{31,33}[.]?([A-Za-z0-9_-]{42,44}|.{40,45})[.]?"
    ) {
        prop_assert_eq!(text.parse::<ApiKeyToken>().is_ok(), is_token("pk", text.as_bytes()));
    }
}

/// Gives the bytes 0, 1, 2 and so on, and fails when it would reach its end.
struct Counter {
    next: u8,
    end: u8,
}

impl Counter {
    fn until(end: u8) -> Self {
        Self { next: 0, end }
    }
}

#[derive(Debug)]
struct Dry;

impl fmt::Display for Dry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no entropy left")
    }
}

impl Error for Dry {}

impl TryRng for Counter {
    type Error = Dry;

    fn try_next_u32(&mut self) -> Result<u32, Dry> {
        Err(Dry)
    }

    fn try_next_u64(&mut self) -> Result<u64, Dry> {
        Err(Dry)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Dry> {
        for byte in bytes {
            if self.next == self.end {
                return Err(Dry);
            }
            *byte = self.next;
            self.next += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}
