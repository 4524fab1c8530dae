//! Every example, run as the program that it is, does what it says, and ends when it is asked to.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[path = "examples/handoff.rs"]
mod handoff;
#[path = "examples/live.rs"]
mod live;
#[path = "examples/own.rs"]
mod own;
mod support;

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _, process::Command};

use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};
use support::{
    folder::Folder,
    process::{ExampleProcess, binary},
    unknown_token, with_wrong_secret,
};
use tower_api_key::ApiKeyToken;

#[tokio::test]
async fn quickstart_keeps_notes_for_those_who_may_write_them() {
    let folder = Folder::new("quickstart");
    let example = ExampleProcess::start_in("quickstart", &folder.0);
    let labels: Vec<_> = example
        .lines
        .iter()
        .map(|line| line.split("pk.").next().unwrap())
        .collect();
    let listening = format!("listening on {}", example.url());
    assert_eq!(labels, ["reader: ", "writer: ", &listening]);
    let (reader, writer) = (example.value("reader"), example.value("writer"));
    let reader_id = reader
        .parse::<ApiKeyToken>()
        .unwrap()
        .key_id()
        .unwrap()
        .to_string();

    assert_eq!(example.get("/health", None).await, (200, "ok".to_owned()));
    assert_eq!(example.get("/whoami", None).await.0, 401);
    let (status, whoami) = example.get("/whoami", Some(&reader)).await;
    let expected = json!({
        "user_id": "user_1", "key_id": reader_id, "name": "reader", "scopes": ["notes:read"],
    });
    assert_eq!((status, parsed(&whoami)), (200, expected));

    for (token, status) in [(None, 401), (Some(&reader), 403), (Some(&writer), 201)] {
        let request = example.request(Method::POST, "/notes", token.map(String::as_str));
        let answer = request
            .json(&json!({ "text": "milk" }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
    }
    for token in [reader, writer] {
        let (status, notes) = example.get("/notes", Some(&token)).await;
        let expected = json!([{ "text": "milk", "by": "writer" }]);
        assert_eq!((status, parsed(&notes)), (200, expected));
    }
    example.stop();
}

#[tokio::test]
async fn quickstart_knows_the_keys_that_earlier_runs_have_printed() {
    let folder = Folder::new("quickstart-again");
    let mut printed = Vec::new();
    for run in 1..=3 {
        let example = ExampleProcess::start_in("quickstart", &folder.0);
        printed.extend([example.value("reader"), example.value("writer")]);
        let unique: BTreeSet<_> = printed.iter().collect();
        assert_eq!(unique.len(), 2 * run, "each run makes two of its own");
        for token in &printed {
            assert_eq!(example.get("/notes", Some(token)).await.0, 200);
            let wrong = with_wrong_secret(token);
            assert_eq!(example.get("/notes", Some(&wrong)).await.0, 401);
        }
        example.stop();
    }
    let names = folder.names();
    for kept in ["quickstart.db", "quickstart.pepper"] {
        assert!(names.iter().any(|name| name == kept), "{names:?}");
    }
    // And for their owner alone.
    for name in names {
        let rights = folder.join(&name).metadata().unwrap().permissions();
        assert_eq!(rights.mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn ctrl_c_ends_a_server_as_sigterm_does() {
    let folder = Folder::new("quickstart-interrupted");
    let example = ExampleProcess::start_in("quickstart", &folder.0);
    assert_eq!(example.get("/health", None).await.0, 200);
    example.stop_with("INT");
}

#[tokio::test]
async fn custom_rejection_answers_in_its_own_words_from_layer_and_guard() {
    let example = ExampleProcess::start("custom_rejection", &[]);
    let reader = example.value("reader");
    let scope = r#"Bearer realm="notes", error="insufficient_scope", scope="notes:write""#;
    for (method, token, status, challenge, code) in [
        (
            Method::GET,
            None,
            401,
            r#"Bearer realm="notes""#,
            "missing_credentials",
        ),
        (
            Method::GET,
            Some("pk.x"),
            401,
            r#"Bearer realm="notes", error="invalid_token""#,
            "invalid_token",
        ),
        (
            Method::POST,
            Some(reader.as_str()),
            403,
            scope,
            "insufficient_scope",
        ),
    ] {
        for (path, kind) in [
            ("/api/notes", "application/json"),
            ("/pages/notes", "text/html; charset=utf-8"),
        ] {
            let request = example.request(method.clone(), path, token);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status, "{path} {code}");
            assert_eq!(
                answer.headers()["www-authenticate"],
                challenge,
                "{path} {code}"
            );
            assert_eq!(answer.headers()["content-type"], kind, "{path} {code}");
            let body = answer.text().await.unwrap();
            if path == "/api/notes" {
                assert_eq!(parsed(&body)["error"]["code"], code);
            } else {
                assert!(body.contains("Questions? help@notes.example"), "{body}");
            }
        }
    }
    for path in ["/api/notes", "/pages/notes"] {
        assert_eq!(example.get(path, Some(&reader)).await.0, 200);
    }
    example.stop();
}

#[tokio::test]
async fn optional_auth_tells_keys_sessions_and_visitors_apart() {
    let example = ExampleProcess::start("optional_auth", &[]);
    let (key, session) = (example.value("key"), example.value("session"));
    let id = key.parse::<ApiKeyToken>().unwrap().key_id().unwrap();
    let bearer = |token: &str| Some(format!("Bearer {token}").into_bytes());
    let of_key = format!("{id} of user_1\n");
    for (credentials, whoami, export) in [
        (None, Some("anonymous\n"), 401),
        (Some(b"Basic YTpi".to_vec()), Some("anonymous\n"), 401),
        (bearer(&key), Some(of_key.as_str()), 200),
        (bearer(&session), Some("a session of user_2\n"), 401),
        (
            Some(format!("bEARER   {session}").into_bytes()),
            Some("a session of user_2\n"),
            401,
        ),
        (bearer(&with_wrong_secret(&key)), None, 401),
        (bearer(&unknown_token()), None, 401),
        (bearer("sess_0"), None, 401),
        (bearer("eyJhbGciOiJub25lIn0.e30."), None, 401),
        (Some(b"Bearer \xff\xfe".to_vec()), None, 401),
    ] {
        let ask = async |path| {
            let mut request = example.request(Method::GET, path, None);
            if let Some(credentials) = &credentials {
                request = request.header(AUTHORIZATION, credentials.as_slice());
            }
            request.send().await.unwrap()
        };
        let answer = ask("/whoami").await;
        let text = credentials.as_deref().map(String::from_utf8_lossy);
        assert_eq!(
            answer.status(),
            if whoami.is_some() { 200 } else { 401 },
            "{text:?}"
        );
        if let Some(whoami) = whoami {
            assert_eq!(answer.text().await.unwrap(), whoami, "{text:?}");
        } else {
            assert_eq!(
                answer.headers()["www-authenticate"],
                r#"Bearer realm="api", error="invalid_token""#
            );
        }
        assert_eq!(ask("/export").await.status(), export, "{text:?}");
    }
    example.stop();
}

#[test]
fn grpc_calls_with_and_without_a_key_and_ends() {
    let output = Command::new(binary("grpc"))
        .env("ADDR", "127.0.0.1:0")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = |of: &str| {
        stdout
            .lines()
            .find(|line| line.starts_with(of))
            .unwrap_or_default()
    };
    assert!(line("no key:").contains("Unauthenticated"), "{stdout}");
    assert!(line("wrong key:").contains("Unauthenticated"), "{stdout}");
    assert!(
        line("key without the scope:").contains("PermissionDenied"),
        "{stdout}"
    );
    assert!(line("reader:").contains("SERVING"), "{stdout}");
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}
