//! Such tokens in requests: on a real socket, beside new tokens and foreign ones.

use serde_json::json;
use tower_api_key::{ApiKeyBackend, ApiKeyLayer, MemoryBackend, NewApiKey, Scopes};

use super::{Old, old, record, store_on};
use crate::support::{
    USER,
    echo::{ask, named, outcome, serve},
    http1, http2,
};

#[tokio::test]
async fn opaque_tokens_are_let_in_beside_new_ones_and_sessions_are_passed_on() {
    let Old { raw_key, key_hash } = old();
    let backend = MemoryBackend::new();
    assert!(backend.insert(&record(&key_hash)).await.unwrap());
    let (store, _) = store_on(backend).await;
    let new = NewApiKey::for_user(USER, Scopes::none());
    let new = store.create(new).await.unwrap().token().expose().to_owned();
    let layer = ApiKeyLayer::new(store).pass_foreign_tokens();
    let server = serve(layer).await;

    let unknown = format!("pylon_{}", "0".repeat(48));
    let session = "pylon_8f14e45f-ceea-467f-9d1b-6f2f1c2b3a4d";
    let long_session = format!("pylon_{}", "a".repeat(2_000));
    for client in [http1(), http2()] {
        for (token, expected) in [
            (&*raw_key, "let in"),
            (&*new, "let in"),
            (&*raw_key, "let in"),
            (&*unknown, "invalid_token"),
            ("pk.malformed", "invalid_token"),
            (session, "anonymous"),
            (&*long_session, "anonymous"),
        ] {
            let value = format!("Bearer {token}");
            let headers = [("authorization", value.as_bytes())];
            let answer = outcome(&client, &server.url("/"), &headers).await;
            assert_eq!(answer, expected, "{token}");
        }
        let value = format!("bearer  {raw_key}");
        let headers = [("authorization", value.as_bytes())];
        let (status, seen) = ask(&client, &server.url("/"), &headers).await;
        assert_eq!(status, 200);
        // Logs hide the header.
        assert_eq!(seen["authorization"], json!([value, true]));
        let guarded = server.url("/guarded");
        let response = client.get(&guarded).bearer_auth(&raw_key).send().await;
        assert_eq!(response.unwrap().status(), 200);
        let response = client.get(&guarded).bearer_auth(&new).send().await;
        assert_eq!(response.unwrap().status(), 403);
    }
}

#[tokio::test]
async fn a_layer_that_passes_nothing_on_rejects_what_only_begins_like_a_token() {
    let Old { raw_key, key_hash } = old();
    let backend = MemoryBackend::new();
    assert!(backend.insert(&record(&key_hash)).await.unwrap());
    let (store, _) = store_on(backend).await;
    let layer = ApiKeyLayer::new(store).credential_headers([named("x-api-key")]);
    let server = serve(layer).await;
    for (token, expected) in [
        (&*raw_key, "let in"),
        (&raw_key[..53], "invalid_token"),
        (
            "pylon_8f14e45f-ceea-467f-9d1b-6f2f1c2b3a4d",
            "invalid_token",
        ),
    ] {
        let headers = [("x-api-key", token.as_bytes())];
        let answer = outcome(&http1(), &server.url("/"), &headers).await;
        assert_eq!(answer, expected, "{token}");
    }
}
