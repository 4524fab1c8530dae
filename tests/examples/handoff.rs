//! Keys that are handed over and replaced by HTTP, as clients see it.

use reqwest::{Method, Response, header::CACHE_CONTROL};
use serde_json::{Value, json};

use crate::support::process::ExampleProcess;

/// The status and the body of an answer that no cache may keep.
async fn unkept(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()[CACHE_CONTROL], "no-store", "{status}");
    (status, answer.json().await.unwrap_or_default())
}

async fn send(
    example: &ExampleProcess,
    method: Method,
    path: &str,
    key: Option<&str>,
    body: Value,
) -> Response {
    let request = example.request(method, path, key);
    let request = if body.is_null() {
        request
    } else {
        request.json(&body)
    };
    request.send().await.unwrap()
}

async fn link(example: &ExampleProcess, key: &str, body: Value) -> (u16, String) {
    let (status, text) =
        unkept(send(example, Method::POST, "/grants", Some(key), body).await).await;
    let token = text["claim_token"].as_str().unwrap_or_default();
    (status, format!("/claims/{token}"))
}

#[tokio::test]
async fn a_get_uses_nothing_up_and_a_post_gives_the_key_once_to_no_cache() {
    let example = ExampleProcess::start("handoff", &[]);
    let key = example.value("key");
    let laptop = json!({ "name": "laptop", "scopes": ["notes:read"] });
    let (status, link) = link(&example, &key, laptop).await;
    assert_eq!(status, 201);

    for method in [Method::GET, Method::HEAD, Method::GET] {
        let looked = send(&example, method, &link, None, Value::Null).await;
        assert_eq!(unkept(looked).await.0, 200);
    }
    let claim = send(&example, Method::POST, &link, None, Value::Null).await;
    let (status, issued) = unkept(claim).await;
    assert_eq!(status, 201);
    let token = issued["token"].as_str().unwrap();
    let whoami = example.get("/whoami", Some(token)).await;
    assert_eq!(whoami, (200, "laptop of user_1".to_owned()));

    let again = send(&example, Method::POST, &link, None, Value::Null).await;
    assert_eq!(unkept(again).await, (410, Value::Null));
    // Who finds it claimed already learns as which key.
    let looked = send(&example, Method::GET, &link, None, Value::Null).await;
    assert_eq!(unkept(looked).await.1["key_id"], issued["id"]);
    example.stop();
}

#[tokio::test]
async fn the_owner_is_never_taken_from_the_body_and_nobody_gives_more_than_they_hold() {
    let example = ExampleProcess::start("handoff", &[]);
    let key = example.value("key");
    let of_another =
        json!({ "name": "x", "scopes": ["notes:read"], "user_id": "user_2", "userId": "user_2" });
    let (_, link_of_another) = link(&example, &key, of_another).await;
    let looked = send(&example, Method::GET, &link_of_another, None, Value::Null).await;
    assert_eq!(unkept(looked).await.1["user_id"], "user_1");

    for scopes in [json!(["admin"]), json!(["*"]), json!(["notes:*", "keys:*"])] {
        let wider = json!({ "name": "x", "scopes": scopes });
        assert_eq!(link(&example, &key, wider).await.0, 403, "{scopes}");
    }
    let narrow = json!({ "name": "x", "scopes": ["notes:read"] });
    let (_, narrow) = link(&example, &key, narrow).await;
    let claim = send(&example, Method::POST, &narrow, None, Value::Null).await;
    let (_, issued) = unkept(claim).await;
    let token = issued["token"].as_str().unwrap();
    let path = "/grants";
    let body = json!({ "name": "x", "scopes": [] });
    let refused = send(&example, Method::POST, path, Some(token), body).await;
    assert_eq!(refused.status(), 403, "it has no scope for that");
    example.stop();
}

#[tokio::test]
async fn a_caller_replaces_their_key_and_sees_when_the_old_one_was_used() {
    let example = ExampleProcess::start("handoff", &[]);
    let old = example.value("key");
    let path = "/key/rotation";
    let answer = send(&example, Method::GET, path, Some(&old), Value::Null).await;
    assert_eq!(answer.status(), 404);
    let answer = send(&example, Method::POST, path, Some(&old), Value::Null).await;
    let (status, successor) = unkept(answer).await;
    assert_eq!(status, 201);
    let new = successor["token"].as_str().unwrap();
    for key in [old.as_str(), new] {
        let whoami = example.get("/whoami", Some(key)).await;
        assert_eq!(whoami, (200, "first of user_1".to_owned()));
        let (status, text) = example.get(path, Some(key)).await;
        assert_eq!(status, 200);
        let text: Value = serde_json::from_str(&text).unwrap();
        for time in ["rotated_at", "old_last_used_at"] {
            assert!(text[time].is_u64(), "{text}");
        }
    }
    let again = send(&example, Method::POST, path, Some(&old), Value::Null).await;
    assert_eq!(again.status(), 409);
    example.stop();
}
