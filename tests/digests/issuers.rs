//! Tokens of issuers that people come from, in requests.

use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyStoreBuilder, Brand, ConfigError, DigestAlgorithm,
    DigestFormat, Imported, MemoryBackend, OldKey, ParseSecretHashError, Peppers, SecretHash,
    TokenAlphabet, TokenFormat,
};

use super::{pepper, strict};
use crate::support::{
    USER,
    echo::{outcome, serve},
    http1,
};

const SANCTUM: &str = "Zq8sT1xw5bYkLr0uVnE2cJdHfGmPaQ9oWi37XyBz";
const SANCTUM_SHA256: &str = "5bda37e786f1a97b2100ce464e0b8899f94cc83472006a3031ff1648981fc11f";
const KNOX: &str = "9d4f6a2be01c83577f0e9b1d2c3a4856e7f8091a2b3c4d5e6f708192a3b4c5d6";
const KNOX_SHA512: &str = "50b4bf07df92540b833a0069f2fa596b0df66c2eeb4d9d57727f1f56eac047bc\
     2376b574c1815d420744c231790beb776aa4d986a28b15b6b881bb66ff20f7bd";
const BASE64: &str = "q0J+8k/VdQm3bXyL1hZ5rT7wPz2uNcGf9eAs4YiKo6M=";
const BASE64_SHA256: &str = "a0de39e8b790c2c9fc083271ea81ea002f17238613eba1d40cce80a75f3448d6";
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.\
     3q2-7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs";
const JWT_SHA256: &str = "1df62c01b783d2ad192b4c8b4a6ae4be1e8d680019a7846268df418ad520e814";

fn sanctum() -> DigestFormat {
    let format = DigestFormat::new("", SANCTUM.len(), TokenAlphabet::Alphanumeric).unwrap();
    format.with_id_before('|').unwrap()
}

fn knox() -> DigestFormat {
    let format = DigestFormat::new("", KNOX.len(), TokenAlphabet::LowerHex).unwrap();
    format.algorithm(DigestAlgorithm::Sha512)
}

fn base64() -> DigestFormat {
    DigestFormat::new("", BASE64.len(), TokenAlphabet::Base64).unwrap()
}

fn jwt() -> DigestFormat {
    DigestFormat::new("eyJ", JWT.len(), TokenAlphabet::Jwt).unwrap()
}

async fn store_with(formats: impl IntoIterator<Item = DigestFormat>) -> ApiKeyStore {
    let builder = ApiKeyStore::builder(MemoryBackend::new()).peppers(Peppers::new(pepper()));
    let builder = formats
        .into_iter()
        .fold(builder, ApiKeyStoreBuilder::digest_format);
    builder.build().await.unwrap()
}

#[tokio::test]
async fn imported_keys_of_each_issuer_are_let_in_by_a_request() {
    let store = store_with([sanctum(), knox(), base64(), jwt()]).await;
    for old in [
        OldKey::by_digest(SANCTUM_SHA256, USER),
        OldKey::by_sha512(KNOX_SHA512, USER),
        OldKey::by_sha512(KNOX_SHA512.to_uppercase(), USER),
        OldKey::by_digest(BASE64_SHA256, USER),
        OldKey::by_digest(JWT_SHA256, USER),
    ] {
        let imported = store.import(old.scopes(["notes:read"]), &strict()).await;
        assert!(!matches!(imported.unwrap(), Imported::Refused(_)));
    }
    let server = serve(ApiKeyLayer::new(store.clone())).await;
    let with_id = |id: &str| format!("{id}|{SANCTUM}");
    let good = [
        with_id("63"),
        with_id("9e1f4c1e-5d3a-4c62-8f0c-1b2d3e4f5a6b"),
        KNOX.to_owned(),
        BASE64.to_owned(),
        JWT.to_owned(),
    ];
    let bad = [
        with_id("63").replace('Z', "z"),
        with_id(""),
        with_id("6 3"),
        with_id("6|3"),
        with_id("6.3"),
        with_id(&"6".repeat(37)),
        SANCTUM.to_owned(),
        KNOX.replace('9', "8"),
        BASE64.replace("o6M=", "o6=M"),
        BASE64.replace('M', "N"),
        JWT.replace("eyJz", "eyJt"),
    ];
    let client = http1();
    let good = good.iter().map(|token| (token, "let in"));
    for (token, expected) in good.chain(bad.iter().map(|token| (token, "invalid_token"))) {
        let value = format!("Bearer {token}");
        let headers = [("authorization", value.as_bytes())];
        let answer = outcome(&client, &server.url("/"), &headers).await;
        assert_eq!(answer, expected, "{token}");
    }
    assert!(store.revoke_token(with_id("64")).await.unwrap());
    let verified = store.verify(with_id("63")).await;
    assert_eq!(crate::support::outcome(&verified), "revoked");
}

#[tokio::test]
async fn a_key_whose_algorithm_no_format_has_is_refused() {
    for (formats, old) in [
        (knox(), OldKey::by_digest(SANCTUM_SHA256, USER)),
        (sanctum(), OldKey::by_sha512(KNOX_SHA512, USER)),
    ] {
        let store = store_with([formats]).await;
        let imported = store.import(old.scopes(["notes:read"]), &strict()).await;
        let Imported::Refused(row) = imported.unwrap() else {
            panic!("it was imported");
        };
        assert!(row.to_string().contains("takes no such tokens"), "{row}");
    }
}

#[test]
fn a_sha512_digest_is_128_hex_digits() {
    let hash = SecretHash::from_sha512_hex(KNOX_SHA512).unwrap();
    assert_eq!(hash.to_hex(), KNOX_SHA512[..64]);
    for wrong in [
        "",
        &KNOX_SHA512[..127],
        &KNOX_SHA512[..64],
        &format!("{KNOX_SHA512}0"),
        &KNOX_SHA512.replace('b', "g"),
        &format!("{}\u{e9}", &KNOX_SHA512[..126]),
    ] {
        let read: Result<_, ParseSecretHashError> = SecretHash::from_sha512_hex(wrong);
        assert!(read.is_err(), "{wrong}");
    }
}

#[test]
fn of_a_token_with_an_id_the_id_is_shown_and_no_more() {
    let format = TokenFormat::default().with_digests(sanctum()).unwrap();
    let token = format.parse(format!("63|{SANCTUM}")).unwrap();
    assert_eq!(token.display_prefix().as_str(), "63|");
    assert_eq!(token.expose(), format!("63|{SANCTUM}"));
    let long = format!("{}|{SANCTUM}", "9".repeat(36));
    let token = format.parse(long).unwrap();
    assert_eq!(token.display_prefix().as_str(), "9".repeat(16));
}

#[test]
fn a_separator_that_a_header_or_a_new_token_has_is_refused() {
    let format = || DigestFormat::new("", 40, TokenAlphabet::Alphanumeric).unwrap();
    for separator in "|:;~_+/=!#$%&*@^".chars() {
        let format = format().with_id_before(separator).unwrap();
        let formats = TokenFormat::default().with_digests(format).unwrap();
        assert!(formats.claims(format!("pk{separator}{SANCTUM}")));
    }
    for separator in [
        '.', ',', '-', 'a', '7', ' ', '"', '\\', '\n', '\0', '\u{e9}',
    ] {
        let error = format().with_id_before(separator).unwrap_err();
        assert!(matches!(error, ConfigError::DigestFormat { .. }));
    }
}

#[test]
fn g12_an_alphabet_with_a_dot_needs_a_prefix_that_no_new_token_has() {
    let acme = || TokenFormat::new(Brand::new("acme").unwrap());
    for (prefix, is_refused) in [
        ("", true),
        ("a", true),
        ("acme", true),
        ("acme.", true),
        ("eyJ", false),
        ("acmee", false),
        ("b", false),
    ] {
        let format = DigestFormat::new(prefix, 90, TokenAlphabet::Jwt).unwrap();
        let formats = acme().with_digests(format);
        assert_eq!(formats.is_err(), is_refused, "{prefix}");
    }
}
