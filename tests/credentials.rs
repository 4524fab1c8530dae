//! Which credentials a layer finds in real requests, and where it looks for them.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use support::{
    Fixture, Server,
    echo::{Fields, named, outcome, serve},
    http1, http2, with_wrong_secret,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, CredentialHeader};

#[tokio::test]
async fn the_header_is_read_by_its_grammar_over_both_versions_of_http() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let token = token.as_bytes();
    let server = serve(ApiKeyLayer::new(fixture.store.clone())).await;
    // A value in which `$` stands for a good token.
    let cases: &[(&[u8], &str)] = &[
        (b"Bearer $", "let in"),
        (b"bearer $", "let in"),
        (b"BEARER $", "let in"),
        (b"bEaReR     $", "let in"),
        (b"Bearer", "invalid_request"),
        (b"bearer", "invalid_request"),
        (b"Bearer ", "invalid_request"),
        (b"Bearer    ", "invalid_request"),
        // HTAB is no space: after the scheme, before the token, and within it.
        (b"Bearer\t$", "invalid_request"),
        (b"Bearer \t$", "invalid_request"),
        (b"Bearer $\tx", "invalid_request"),
        (b"Bearer $,$", "invalid_request"),
        (b"Bearer $, Basic dTpw", "invalid_request"),
        (b"Bearer ,", "invalid_request"),
        (b"Bearer,$", "invalid_request"),
        (b"Bearer: $", "invalid_request"),
        (b"Bearer=$", "invalid_request"),
        (b"Bearer\"$\"", "invalid_request"),
        (b"Bearer $ $", "invalid_token"),
        (b"Bearer Bearer $", "invalid_token"),
        (b"Bearer \"$\"", "invalid_token"),
        (b"Bearer token=$", "invalid_token"),
        (b"Bearer $=", "invalid_token"),
        (b"Bearer $\x80", "invalid_token"),
        (b"Bearer \xff\xfe", "invalid_token"),
        ("Bearer ключ".as_bytes(), "invalid_token"),
        (b"Bearer\xa0$", "invalid_request"),
        (b"", "missing_credentials"),
        (b"$", "missing_credentials"),
        (b"BearerX $", "missing_credentials"),
        (b"Bearer$", "missing_credentials"),
        (b"Beare r $", "missing_credentials"),
        (b"Token $", "missing_credentials"),
        (b"Basic dTpw", "missing_credentials"),
        (b"Basic x, Bearer $", "missing_credentials"),
        (
            b"AWS4-HMAC-SHA256 Credential=AKIA/20300101/eu/s3/aws4_request, SignedHeaders=host, Signature=00",
            "missing_credentials",
        ),
    ];
    for client in [http1(), http2()] {
        for (value, expected) in cases {
            let value: Vec<_> = value.split(|&byte| byte == b'$').collect();
            let value = value.join(token);
            let headers = [("authorization", &*value)];
            let outcome = outcome(&client, &server.url("/"), &headers).await;
            assert_eq!(outcome, *expected, "{}", value.escape_ascii());
        }
    }
}

#[tokio::test]
async fn white_space_at_the_end_is_of_http1_and_in_http2_a_part_of_the_token() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let server = serve(ApiKeyLayer::new(fixture.store.clone())).await;
    // RFC 9112 §5 has the recipient of HTTP/1.1 cut it off; HTTP/2 has no such rule.
    for (end, over_http1, over_http2) in [
        ("  ", "let in", "invalid_token"),
        ("\t", "let in", "invalid_request"),
    ] {
        let value = format!("Bearer {token}{end}");
        let headers = [("authorization", value.as_bytes())];
        let url = server.url("/");
        assert_eq!(outcome(&http1(), &url, &headers).await, over_http1);
        assert_eq!(outcome(&http2(), &url, &headers).await, over_http2);
    }
}

/// The whole answer to a request with these header lines, sent as they are.
async fn send_raw(server: &Server, lines: &str) -> String {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn bytes_that_no_client_should_send_never_open_the_door() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let server = serve(ApiKeyLayer::new(fixture.store.clone()).optional()).await;
    let good = format!("AUTHORIZATION: Bearer {token}");
    assert!(send_raw(&server, &good).await.starts_with("HTTP/1.1 200 "));
    for lines in [
        format!("authorization: Bearer {token}\0"),
        format!("authorization: Bearer \0{token}"),
        format!("authorization: Bearer\0{token}"),
        format!("authorization: Bearer {token}\u{1}"),
        format!("authorization: Bearer {token}\u{7f}"),
        format!("authorization: Bearer {token}\rx"),
        format!("authorization: Bearer\r\n {token}"),
        format!("authorization : Bearer {token}"),
        format!("{good}\r\nauthorization: Bearer {token}"),
    ] {
        let answer = send_raw(&server, &lines).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lines:?}: {answer}");
    }
}

#[tokio::test]
async fn a_header_of_hundreds_of_kilobytes_is_answered_as_a_short_one_is() {
    let fixture = Fixture::new().await;
    let server = serve(ApiKeyLayer::new(fixture.store.clone())).await;
    let client = http1();
    for len in [64 << 10, 300 << 10] {
        for (start, fill, end, expected) in [
            // The length comes before any look at the bytes.
            ("Bearer ", "a", "", "invalid_token"),
            ("Bearer ", ",", "", "invalid_token"),
            ("Bearer a", "\t", "a", "invalid_token"),
            ("Bearer pk.", ".", "", "invalid_token"),
            ("Bearer ", " ", "x", "invalid_token"),
            ("Bearer ", " ", ",", "invalid_request"),
            ("Bearer ", " ", "", "invalid_request"),
            ("Bearer", "\t", "a", "invalid_request"),
            ("Bearer", "r", "", "missing_credentials"),
            ("Basic ", "a", "", "missing_credentials"),
        ] {
            let value = format!("{start}{}{end}", fill.repeat(len));
            let headers = [("authorization", value.as_bytes())];
            let outcome = outcome(&client, &server.url("/"), &headers).await;
            assert_eq!(outcome, expected, "{start}{fill}..{end}");
        }
    }
    assert_eq!(fixture.backend.reads(), 0);
}

#[tokio::test]
async fn two_authorization_headers_are_refused_whatever_they_are_and_in_every_mode() {
    let fixture = Fixture::new().await;
    let good = format!("Bearer {}", fixture.token(&[]).await);
    let wrong = with_wrong_secret(&good);
    let values = [
        &good,
        &wrong,
        "Basic dTpw",
        "Bearer eyJ.e30.c2ln",
        "Bearer",
        "",
    ];
    let layer = ApiKeyLayer::new(fixture.store.clone());
    for layer in [
        layer.clone().optional().pass_foreign_tokens(),
        layer
            .clone()
            .credential_headers([named("x-api-key"), CredentialHeader::bearer()]),
        layer,
    ] {
        let server = serve(layer).await;
        for client in [http1(), http2()] {
            for (first, second) in values.iter().flat_map(|a| values.map(|b| (a, b))) {
                let pair = [first, second].map(|value| ("authorization", value.as_bytes()));
                let outcome = outcome(&client, &server.url("/"), &pair).await;
                assert_eq!(outcome, "invalid_request", "{first:?} and {second:?}");
            }
        }
    }
    assert_eq!(fixture.backend.reads(), 0);
}

#[tokio::test]
async fn a_key_is_read_from_the_headers_that_are_named_and_from_one_of_them_only() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let bearer = format!("Bearer {token}");
    let twice = format!("{token},{token}");
    let long = "a".repeat(2_000);
    let x = |value: &'static str| ("x-api-key", value.as_bytes());
    let good = ("authorization", bearer.as_bytes());
    let x_good = ("x-api-key", token.as_bytes());
    let basic = ("authorization", &b"Basic dTpw"[..]);
    let jwt = ("authorization", &b"Bearer eyJ.e30.c2ln"[..]);

    let layer = ApiKeyLayer::new(fixture.store.clone());
    let (a, b) = (CredentialHeader::bearer(), named("x-api-key"));
    let alone = &serve(layer.clone().credential_headers([b.clone()])).await;
    let either = &serve(layer.clone().credential_headers([a.clone(), b.clone()])).await;
    let reversed = &serve(layer.pass_foreign_tokens().credential_headers([b, a])).await;
    let cases: &[(&Server, Fields<'_>, &str)] = &[
        (alone, &[x_good], "let in"),
        (alone, &[x_good, good], "let in"),
        (alone, &[good], "missing_credentials"),
        (alone, &[x_good, x_good], "invalid_request"),
        (alone, &[x("")], "invalid_request"),
        (alone, &[("x-api-key", twice.as_bytes())], "invalid_request"),
        (alone, &[("x-api-key", bearer.as_bytes())], "invalid_token"),
        (alone, &[("x-api-key", long.as_bytes())], "invalid_token"),
        (either, &[good], "let in"),
        (either, &[x_good], "let in"),
        (either, &[basic, x_good], "let in"),
        (either, &[good, x_good], "invalid_request"),
        (either, &[good, x("")], "invalid_request"),
        (either, &[jwt, x_good], "invalid_request"),
        (either, &[good, x_good, x_good], "invalid_request"),
        (reversed, &[good], "let in"),
        (reversed, &[x_good], "let in"),
        (reversed, &[x_good, good], "invalid_request"),
        (reversed, &[x("eyJ.e30.c2ln"), good], "invalid_request"),
        (reversed, &[jwt, x_good], "invalid_request"),
    ];
    for client in [http1(), http2()] {
        for (at, (server, headers, expected)) in cases.iter().enumerate() {
            let outcome = outcome(&client, &server.url("/"), headers).await;
            assert_eq!(outcome, *expected, "case {at}");
        }
    }
}

#[test]
#[should_panic(expected = "one header at least")]
fn a_layer_that_reads_no_header_is_refused_when_it_is_made() {
    let _ = ApiKeyLayer::new(ApiKeyStore::in_memory()).credential_headers([]);
}

#[test]
#[should_panic(expected = "authorization is named twice")]
fn a_header_that_is_named_twice_is_refused_when_the_layer_is_made() {
    let twice = [CredentialHeader::bearer(), named("authorization")];
    let _ = ApiKeyLayer::new(ApiKeyStore::in_memory()).credential_headers(twice);
}

#[tokio::test]
async fn a_key_in_the_query_or_in_a_cookie_is_never_read() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let query = format!("/?access_token={token}&api_key={token}&authorization=Bearer%20{token}");
    let cookie = format!("authorization=Bearer {token}; x-api-key={token}");
    let layer = ApiKeyLayer::new(fixture.store.clone());
    let headers = [("cookie", cookie.as_bytes())];
    for (layer, expected) in [
        (layer.clone(), "missing_credentials"),
        (layer.optional(), "anonymous"),
    ] {
        let server = serve(layer).await;
        let outcome = outcome(&http1(), &server.url(&query), &headers).await;
        assert_eq!(outcome, expected);
    }
}
