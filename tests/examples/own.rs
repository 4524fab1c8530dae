//! Sources, backends and resolvers of one's own.

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::post,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_api_key::{ApiKeyToken, Brand, Pepper, Peppers};

use crate::{
    parsed,
    support::{Server, folder::Folder, process::ExampleProcess, unknown_token, with_wrong_secret},
};

#[tokio::test]
async fn custom_source_sees_each_change_of_its_file() {
    let folder = Folder::new("custom_source");
    let example = ExampleProcess::start("custom_source", &[("TMPDIR", folder.0.to_str().unwrap())]);
    let path = PathBuf::from(example.value("keys"));
    assert!(path.starts_with(&folder.0), "{path:?}");
    let peppers = Peppers::new(Pepper::from_file("v1", path.with_extension("pepper")).unwrap());
    let one = example.value("reader");
    let line_of_one = fs::read_to_string(&path).unwrap();
    let two = ApiKeyToken::generate(&Brand::default()).unwrap();
    let hash_of_two = peppers.hash(&two).unwrap().to_hex();
    let line_of_two = format!(
        "{} user_2 v1 {hash_of_two} notes:read\n",
        two.key_id().unwrap()
    );
    let both = format!("{line_of_one}{line_of_two}");
    let other_scope = both.replace("notes:read", "notes:list");

    // An old time is trusted: changes show by it or by the length. One to come tells nothing.
    let old = SystemTime::now() - Duration::from_secs(3_600);
    let newer = old + Duration::from_secs(1);
    let to_come = old + Duration::from_secs(7_200);
    let mut before = (200, 401);
    for (content, modified, expected) in [
        (&line_of_one, old, (200, 401)),
        (&both, old, (200, 200)),
        (&other_scope, newer, (403, 403)),
        (&line_of_two, newer, (401, 200)),
        (&String::new(), newer, (401, 401)),
        (&both, to_come, (200, 200)),
        (&other_scope, to_come, (403, 403)),
        (&both, old, (200, 200)),
    ] {
        let ask = async || {
            let one = example.get("/notes", Some(&one)).await.0;
            let two = example.get("/notes", Some(two.expose())).await.0;
            (one, two)
        };
        write(&path, content, modified);
        becomes(expected, async || {
            let now = ask().await;
            // Each of them as before or as expected, and nothing else on the way.
            assert!([before.0, expected.0].contains(&now.0), "{content} {now:?}");
            assert!([before.1, expected.1].contains(&now.1), "{content} {now:?}");
            now
        })
        .await;
        assert_eq!(ask().await, expected, "{content}");
        before = expected;
    }

    let broken_hash = both.replace(&hash_of_two[..4], "");
    let broken = [
        both.replace(" notes:read", ""),
        both.replace("notes:read", "notes:read more"),
        both.replace("notes:read", "notes:re*ad"),
        both.replace("key_", "key-"),
        both.replace(" v1 ", " v/1 "),
        broken_hash,
        format!("\n{both}"),
        format!("{both}{line_of_one}"),
    ];
    let code = async || {
        let (status, body) = example.get("/notes", Some(&one)).await;
        let known = (status == 503).then(|| parsed(&body)["code"].clone());
        (status, known)
    };
    let unavailable = || (503, Some(json!("unavailable")));
    for content in broken {
        write(&path, &content, newer);
        becomes(unavailable(), code).await;
        assert_eq!(code().await, unavailable(), "{content}");
        write(&path, &both, old);
        becomes((200, None), code).await;
    }
    // No file at all.
    fs::remove_file(&path).unwrap();
    becomes(unavailable(), code).await;
    write(&path, &both, old);
    becomes((200, None), code).await;
    example.stop();

    let again = ExampleProcess::start("custom_source", &[("KEYS_FILE", path.to_str().unwrap())]);
    assert_eq!(
        again.lines.len(),
        2,
        "no key is made where there is a file: {:?}",
        again.lines
    );
    assert_eq!(again.get("/notes", Some(&one)).await.0, 200);
    again.stop();
}

#[tokio::test]
async fn custom_backend_lists_its_keys_in_pages_and_ends_them() {
    let example = ExampleProcess::start("custom_backend", &[]);
    let [laptop, ci, stranger] = ["laptop", "ci", "stranger"].map(|name| example.value(name));

    let (status, first) = example.get("/keys?limit=1", Some(&laptop)).await;
    let first = parsed(&first);
    assert_eq!((status, names(&first).len()), (200, 1));
    let after = first["next"].as_str().unwrap();
    let (_, second) = example
        .get(&format!("/keys?limit=1&after={after}"), Some(&laptop))
        .await;
    let second = parsed(&second);
    assert_eq!(second["next"], Value::Null);
    let mut both = [names(&first), names(&second)].concat();
    both.sort_unstable();
    assert_eq!(both, ["ci", "laptop"]);
    assert_eq!(
        example.get("/keys?after=nowhere", Some(&laptop)).await.0,
        400
    );
    let (_, strangers) = example.get("/keys", Some(&stranger)).await;
    assert_eq!(names(&parsed(&strangers)), ["stranger"]);

    assert_eq!(
        example.get("/keys", Some(&ci)).await.0,
        403,
        "it was made without scopes"
    );
    let revoke = example.request(Method::DELETE, "/keys/current", Some(&ci));
    assert_eq!(revoke.send().await.unwrap().status(), 204);
    let (status, problem) = example.get("/keys", Some(&ci)).await;
    assert_eq!(
        (status, &parsed(&problem)["code"]),
        (401, &json!("revoked"))
    );
    let (_, list) = example.get("/keys", Some(&laptop)).await;
    for key in parsed(&list)["keys"].as_array().unwrap() {
        let (name, token) = if key["name"] == "ci" {
            ("revoked", &ci)
        } else {
            ("active", &laptop)
        };
        assert_eq!((&key["status"], &key["used"]), (&json!(name), &json!(true)));
        assert_eq!(key["prefix"], token[..16]);
    }
    example.stop();
}

#[tokio::test]
async fn custom_resolver_believes_its_identity_service() {
    let example = ExampleProcess::start("custom_resolver", &[]);
    let reader = example.value("reader");
    assert_eq!(
        example.get("/notes", Some(&reader)).await,
        (200, "the notes of user_1\n".to_owned())
    );
    for token in [with_wrong_secret(&reader), unknown_token()] {
        assert_eq!(example.get("/notes", Some(&token)).await.0, 401);
    }
    example.stop();
}

#[tokio::test]
async fn custom_resolver_takes_no_answer_for_no_answer() {
    let answer = async |form: String| -> Response {
        // What the token's secret begins with says how the service behaves today.
        let mood = form
            .strip_prefix("token=")
            .and_then(|token| token.split('.').nth(2));
        match mood.unwrap().split('_').next().unwrap() {
            "active" => Json(json!({ "active": true, "sub": "ada", "scope": "a notes:read" }))
                .into_response(),
            "scopeless" => Json(json!({ "active": true, "sub": "ada" })).into_response(),
            "inactive" => Json(json!({ "active": false })).into_response(),
            "nobody" => Json(json!({ "active": true, "scope": "notes:read" })).into_response(),
            "odd" => {
                Json(json!({ "active": true, "sub": "ada", "scope": "no*tes" })).into_response()
            }
            "empty" => "{}".into_response(),
            "failing" => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"active":false}"#).into_response(),
            "denying" => (StatusCode::UNAUTHORIZED, r#"{"active":false}"#).into_response(),
            "moved" => Redirect::temporary("/elsewhere").into_response(),
            _ => std::future::pending().await,
        }
    };
    let elsewhere = async || Json(json!({ "active": true, "sub": "ada", "scope": "notes:read" }));
    let service = Router::new()
        .route("/introspect", post(answer))
        .route("/elsewhere", post(elsewhere));
    let service = Server::start(service).await;
    let url = service.url("/introspect");
    let example = ExampleProcess::start("custom_resolver", &[("INTROSPECTION_URL", &url)]);
    for (mood, expected) in [
        ("active", 200),
        ("scopeless", 403),
        ("inactive", 401),
        ("nobody", 503),
        ("odd", 503),
        ("empty", 503),
        ("failing", 503),
        ("denying", 503),
        ("moved", 503),
        ("hanging", 503),
    ] {
        let token = format!("pk.key_{}.{mood:_<43}", "a".repeat(32));
        assert_eq!(
            example.get("/notes", Some(&token)).await.0,
            expected,
            "{mood}"
        );
    }
    example.stop();

    let example = ExampleProcess::start(
        "custom_resolver",
        &[("INTROSPECTION_URL", "http://127.0.0.1:9")],
    );
    assert_eq!(
        example.get("/notes", Some(&unknown_token())).await.0,
        503,
        "nobody is there"
    );
    example.stop();
}

fn names(page: &Value) -> Vec<&str> {
    let keys = page["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| key["name"].as_str().unwrap())
        .collect()
}

/// Replaces the file, so that nobody sees half of it.
fn write(path: &Path, content: &str, modified: SystemTime) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    let file = fs::File::options().write(true).open(&new).unwrap();
    file.set_modified(modified).unwrap();
    fs::rename(new, path).unwrap();
}

/// Asks until the answer is the expected one. The time limit lies below that after which keys are
/// read again, whatever was told.
async fn becomes<T: PartialEq + Debug>(expected: T, mut ask: impl AsyncFnMut() -> T) {
    let mut last = None;
    let asking = async {
        while last.as_ref() != Some(&expected) {
            last = Some(ask().await);
        }
    };
    let became = timeout(Duration::from_secs(45), asking).await;
    assert!(became.is_ok(), "{last:?} doesn't become {expected:?}");
}
