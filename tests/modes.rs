//! Whom a layer passes without a key where it is told to, and what it leaves of credentials for the
//! handler.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use http::StatusCode;
use serde_json::{Value, json};
use support::{
    Fixture, Server,
    echo::{Fields, ask, named, outcome, serve},
    http1, http2, with_wrong_secret,
};
use tower_api_key::{ApiKeyLayer, CredentialHeader};

#[tokio::test]
async fn an_optional_layer_lets_in_who_has_no_credentials_and_refuses_bad_ones() {
    let fixture = Fixture::new().await;
    let good = format!("Bearer {}", fixture.token(&[]).await);
    let wrong = with_wrong_secret(&good);
    let revoked = format!("Bearer {}", fixture.revoked_token().await);
    let list = format!("{good},");
    let server = serve(ApiKeyLayer::new(fixture.store.clone()).optional()).await;
    let client = http1();
    for (path, authorization, expected) in [
        ("/", None, "anonymous"),
        ("/", Some("Basic dTpw"), "anonymous"),
        ("/", Some(&*good), "let in"),
        ("/", Some(&*wrong), "invalid_token"),
        ("/", Some(&*revoked), "revoked"),
        ("/", Some("Bearer eyJ.e30.c2ln"), "invalid_token"),
        ("/", Some("Bearer"), "invalid_request"),
        ("/", Some(&*list), "invalid_request"),
        // A handler or a guard that wants a caller is not optional.
        ("/whoami", None, "missing_credentials"),
        ("/guarded", None, "missing_credentials"),
        ("/guarded", Some("Basic dTpw"), "missing_credentials"),
    ] {
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| ("authorization", value.as_bytes()))
            .collect();
        let outcome = outcome(&client, &server.url(path), &headers).await;
        assert_eq!(outcome, expected, "{path} {authorization:?}");
    }
}

#[tokio::test]
async fn foreign_tokens_are_passed_on_without_a_context_and_our_own_are_still_checked() {
    let fixture = Fixture::new().await;
    let good = fixture.token(&[]).await;
    let server = serve(ApiKeyLayer::new(fixture.store.clone()).pass_foreign_tokens()).await;
    let client = http1();

    let long_jwt = format!("eyJ.{}.c2ln", "e".repeat(20 << 10));
    for token in ["eyJ.e30.c2ln", &long_jwt, "pkx.key", "pk", "PK.key"] {
        let value = format!("Bearer {token}");
        let headers = [("authorization", value.as_bytes())];
        let (status, body) = ask(&client, &server.url("/"), &headers).await;
        let reached = json!({ "user": null, "authorization": [value, true], "x-api-key": null });
        assert_eq!((status, body), (StatusCode::OK, reached));
        for guarded in ["/whoami", "/guarded"] {
            let outcome = outcome(&client, &server.url(guarded), &headers).await;
            assert_eq!(outcome, "missing_credentials");
        }
    }
    assert_eq!(fixture.backend.reads(), 0);

    let long = format!("pk.{}", "a".repeat(20 << 10));
    for (token, expected) in [
        (&*good, "let in"),
        (&*with_wrong_secret(&good), "invalid_token"),
        ("pk.garbage", "invalid_token"),
        (&*long, "invalid_token"),
        ("e30,e30", "invalid_request"),
        ("", "invalid_request"),
    ] {
        let value = format!("Bearer {token}");
        let headers = [("authorization", value.as_bytes())];
        let outcome = outcome(&client, &server.url("/"), &headers).await;
        assert_eq!(outcome, expected, "{token}");
    }
    // The layer isn't optional.
    let nothing = outcome(&client, &server.url("/"), &[]).await;
    assert_eq!(nothing, "missing_credentials");
}

#[tokio::test]
async fn what_may_be_a_token_is_hidden_from_logs_and_what_is_one_can_be_removed() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let bearer = format!("Bearer {token}");
    let layer = ApiKeyLayer::new(fixture.store.clone())
        .credential_headers([CredentialHeader::bearer(), named("x-api-key")])
        .pass_foreign_tokens();
    let kept = &serve(layer.clone()).await;
    // Keys in forms that the layer doesn't read pass it where it is optional.
    let optional = &serve(layer.clone().optional()).await;
    // It reads another header only, and people send both.
    let elsewhere =
        ApiKeyLayer::new(fixture.store.clone()).credential_headers([named("x-api-key")]);
    let elsewhere = &serve(elsewhere).await;
    let misplaced = ("authorization", token.as_bytes());
    let joined = format!("Basic dTpw, {bearer}");
    let joined = ("authorization", joined.as_bytes());
    let stripped = &serve(layer.strip_credentials()).await;

    let good = ("authorization", bearer.as_bytes());
    let x_good = ("x-api-key", token.as_bytes());
    let basic = ("authorization", &b"Basic dTpw"[..]);
    let jwt = ("authorization", &b"Bearer eyJ.e30.c2ln"[..]);
    let saw_basic = json!(["Basic dTpw", true]);
    let saw_jwt = json!(["Bearer eyJ.e30.c2ln", true]);
    let null = Value::Null;
    let cases: &[(&Server, Fields<'_>, Value, Value)] = &[
        (kept, &[good], json!([bearer, true]), null.clone()),
        (
            kept,
            &[x_good, basic],
            saw_basic.clone(),
            json!([token, true]),
        ),
        (kept, &[jwt], saw_jwt.clone(), null.clone()),
        (
            elsewhere,
            &[x_good, good],
            json!([bearer, true]),
            json!([token, true]),
        ),
        (
            elsewhere,
            &[good, x_good, good],
            json!([bearer, true]),
            json!([token, true]),
        ),
        (optional, &[misplaced], json!([token, true]), null.clone()),
        (
            optional,
            &[joined],
            json!([format!("Basic dTpw, {bearer}"), true]),
            null.clone(),
        ),
        (stripped, &[good], null.clone(), null.clone()),
        (stripped, &[x_good, basic], saw_basic, null.clone()),
        (stripped, &[jwt], saw_jwt, null),
    ];
    for client in [http1(), http2()] {
        for (at, (server, headers, authorization, x_api_key)) in cases.iter().enumerate() {
            let (_, body) = ask(&client, &server.url("/"), headers).await;
            assert_eq!(body["authorization"], *authorization, "case {at}");
            assert_eq!(body["x-api-key"], *x_api_key, "case {at}");
        }
    }
}
