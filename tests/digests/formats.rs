//! Which texts are such tokens, and which formats there can be.

use proptest::prelude::*;
use tower_api_key::{
    ApiKeyStore, ApiKeyToken, Brand, CachedResolver, ConfigError, DigestFormat, MemoryBackend,
    Peppers, SecretHash, TokenAlphabet, TokenFormat,
};

use super::{old, pepper, pylon, vectors};

fn format() -> TokenFormat {
    TokenFormat::default().with_digests(pylon()).unwrap()
}

#[test]
fn the_vectors_are_read_and_hashed_as_they_say() {
    for vector in vectors() {
        let token = format().parse(&vector.raw_key).unwrap();
        assert_eq!(token.expose(), vector.raw_key);
        let hash = Peppers::new(pepper()).hash(&token).unwrap();
        assert_eq!(hash.to_hex(), vector.key_hash);
        assert_eq!(hash.pepper(), None);
        let look_up = SecretHash::from_digest_hex(&vector.key_hash.to_uppercase()).unwrap();
        assert_eq!(look_up.to_hex(), vector.key_hash);
        let bytes = token.lookup_key();
        for (byte, digits) in bytes
            .as_bytes()
            .iter()
            .zip(vector.key_hash.as_bytes().chunks(2))
        {
            assert_eq!(format!("{byte:02x}").as_bytes(), digits);
        }
        assert_eq!(token.key_id(), None);
        // Nobody else's store takes it for a token.
        assert!(vector.raw_key.parse::<ApiKeyToken>().is_err());
    }
}

#[test]
fn a_text_with_the_prefix_and_another_length_or_alphabet_is_somebody_elses() {
    let token = old().raw_key;
    let format = format();
    assert!(format.claims(&token));
    let foreign = [
        // A session of the same issuer.
        "pylon_8f14e45f-ceea-467f-9d1b-6f2f1c2b3a4d".to_owned(),
        token.to_uppercase(),
        token.replace("pylon_", "Pylon_"),
        token.replace('f', "F"),
        token.replace('f', "g"),
        token[1..].to_owned(),
        format!("{token}0"),
        format!("0{token}"),
        token[..53].to_owned(),
        format!("{}\u{e9}", &token[..52]),
        format!("{} ", &token[..53]),
        "pylon_".to_owned(),
        String::new(),
    ];
    for text in foreign {
        assert!(
            !format.claims(&text) && format.parse(&text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn tokens_of_the_brand_are_read_as_before_beside_other_formats() {
    let token = ApiKeyToken::generate(&Brand::default()).unwrap();
    let read = format().parse(token.expose()).unwrap();
    assert_eq!(read.expose(), token.expose());
    assert!(read.key_id().is_some() && read.key_id() == token.key_id());
    assert!(format().claims("pk.anything"));
    assert!(format().parse("pk.anything").is_err());
}

#[test]
fn g12_a_format_that_can_t_be_one_is_an_error() {
    let new = |prefix: &str, len| DigestFormat::new(prefix, len, TokenAlphabet::Hex);
    for (prefix, len) in [("", 16), ("a", 17), ("A-._~+/z9", 25), ("", 255)] {
        let format = new(prefix, len).unwrap();
        assert_eq!((format.prefix(), format.len()), (prefix, len));
        assert_eq!(format.alphabet(), TokenAlphabet::Hex);
    }
    let long = "a".repeat(300);
    for (prefix, len) in [
        ("", 15),
        ("", 0),
        ("", 256),
        ("", usize::MAX),
        ("abc", 18),
        (&*long, 320),
        (&*long, 255),
        ("a b", 64),
        ("a,b", 64),
        ("a=b", 64),
        ("a\n", 64),
        ("\u{e9}", 64),
        ("\0", 64),
    ] {
        let error = new(prefix, len).unwrap_err();
        assert!(
            matches!(error, ConfigError::DigestFormat { .. }),
            "{prefix}"
        );
        assert!(prefix.len() < 2 || !error.to_string().contains(prefix));
    }
}

#[tokio::test]
async fn g12_a_format_that_begins_as_the_brand_does_is_an_error_at_start() {
    let like = |prefix| DigestFormat::new(prefix, 90, TokenAlphabet::Base64Url).unwrap();
    let acme = || Brand::new("acme").unwrap();
    for prefix in ["acme.", "acme.key_", "acme.x"] {
        assert!(TokenFormat::new(acme()).with_digests(like(prefix)).is_err());
        let store = ApiKeyStore::builder(MemoryBackend::new()).digest_format(like(prefix));
        let store = store.peppers(Peppers::new(pepper())).brand(acme());
        let error = store.build().await.unwrap_err();
        assert!(matches!(error, ConfigError::DigestFormat { .. }));
        let resolver = CachedResolver::builder(MemoryBackend::new()).brand(acme());
        let resolver = resolver.peppers(Peppers::new(pepper()));
        let resolver = resolver.digest_format(like(prefix)).build().await;
        assert!(matches!(resolver, Err(ConfigError::DigestFormat { .. })));
    }
    // No other can be begun as the brand is: none of their characters is a dot.
    for prefix in ["", "a", "acme", "acme_", "acmee.", "xacme.", "pk."] {
        let format = TokenFormat::new(acme()).with_digests(like(prefix)).unwrap();
        assert!(format.claims(format!("{prefix}{}", "a".repeat(90 - prefix.len()))));
    }
}

#[test]
fn there_may_be_several_formats_and_they_may_overlap() {
    let other = DigestFormat::new("", 54, TokenAlphabet::Alphanumeric).unwrap();
    let wide = DigestFormat::new("py", 54, TokenAlphabet::Base64Url).unwrap();
    let format = format().with_digests(wide).unwrap();
    let format = format.with_digests(other).unwrap();
    for text in [
        old().raw_key,
        format!("py{}", "-".repeat(52)),
        "A".repeat(54),
    ] {
        assert_eq!(format.parse(&text).unwrap().expose(), text);
    }
    assert!(!format.claims("-".repeat(54)));
}

#[test]
fn a_token_of_any_length_is_read_whole_and_wiped_copies_are_the_same() {
    for len in [16, 64, 96, 97, 98, 99, 128, 254, 255] {
        let digests = DigestFormat::new("", len, TokenAlphabet::Alphanumeric).unwrap();
        let format = TokenFormat::default().with_digests(digests).unwrap();
        let text: String = ('0'..='9').cycle().take(len).collect();
        let token = format.parse(&text).unwrap();
        assert_eq!(token.expose(), text);
        let copy = token.clone();
        let hash = |token| Peppers::new(pepper()).hash(token).unwrap().to_hex();
        assert_eq!(hash(&copy), hash(&token));
        drop(token);
        assert_eq!(copy.expose(), text);
    }
}

#[test]
fn nothing_of_the_secret_is_shown() {
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (prefix, shown) in [
        ("", "*"),
        ("k", "k"),
        ("pylon_", "pylon_"),
        ("a-prefix-of-more-than-16_", "a-prefix-of-more"),
    ] {
        let len = prefix.len() + secret.len();
        let digests = DigestFormat::new(prefix, len, TokenAlphabet::LowerHex).unwrap();
        let format = TokenFormat::default().with_digests(digests).unwrap();
        let token = format.parse(format!("{prefix}{secret}")).unwrap();
        assert_eq!(token.display_prefix().as_str(), shown);
        assert_eq!(shown.parse(), Ok(token.display_prefix()));
        assert_eq!(format!("{token:?}"), format!("ApiKeyToken({shown}..)"));
        let hash = Peppers::new(pepper()).hash(&token).unwrap();
        let all = format!("{:?} {hash:?} {:?}", token.lookup_key(), format);
        assert!(
            !all.contains("0123") && !all.contains(&hash.to_hex()[..8]),
            "{all}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn the_parser_agrees_with_a_second_reading_of_the_format(
        text in "(pylon_|pylon|Pylon_|pylon_x)?[0-9a-g]{46,50}|pylon_.{48}|.{54}"
    ) {
        let is_one = text.len() == 54
            && text.starts_with("pylon_")
            && text[6..].chars().all(|char| "0123456789abcdef".contains(char));
        prop_assert_eq!(format().claims(&text), is_one);
        prop_assert_eq!(format().parse(&text).is_ok(), is_one);
    }
}
