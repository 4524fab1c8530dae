//! Layers over one store: they share its cache, and a fresh one doesn't believe it.

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, AuthContext, ManualClock, NewApiKey, Peppers, Rejection,
    ResponseForRejection, Scopes,
};

use crate::{
    FOREIGN,
    support::{
        USER,
        feed::{Reading, Remote, Subscribing},
        id_of,
        oneshot::{get_as, request, send, who},
        start, unknown_token, with_wrong_secret,
    },
};

/// A store on a backend that doesn't tell of changes: only what is written through the store reaches
/// its cache. The clock stands still, so nothing grows too old.
async fn store() -> (ApiKeyStore, Remote) {
    let backend = Remote::default();
    backend.set_subscribing(Subscribing::Nothing);
    let builder = ApiKeyStore::builder(backend.clone()).peppers(Peppers::ephemeral());
    let store = builder.clock(ManualClock::new(start())).build().await;
    (store.unwrap(), backend)
}

async fn new_token(store: &ApiKeyStore) -> String {
    let new = NewApiKey::for_user(USER, Scopes::none());
    store.create(new).await.unwrap().token().expose().to_owned()
}

/// The caller, and whether the handler can see the key.
async fn seen(auth: Option<AuthContext>, headers: HeaderMap) -> String {
    let sees = headers.contains_key("authorization");
    format!("{}, {sees}", who(auth).await)
}

async fn ask(app: &Router, token: Option<&str>) -> (StatusCode, String) {
    let answer = get_as(app, "/", token).await;
    (answer.status, answer.body)
}

fn behind<F>(layer: ApiKeyLayer<ApiKeyStore, F>) -> Router
where
    F: ResponseForRejection<Body> + Send + Sync + 'static,
{
    Router::new().route("/", get(seen)).layer(layer)
}

#[tokio::test]
async fn a_revocation_that_was_made_elsewhere_counts_at_once_behind_a_fresh_layer() {
    let (store, backend) = store().await;
    let layer = || ApiKeyLayer::new(store.clone());
    let plain = layer();
    let own_words = |rejection: Rejection| -> Response {
        (StatusCode::IM_A_TEAPOT, rejection.code()).into_response()
    };
    // Bad keys get this status. Then what becomes of requests without a key, and of foreign tokens,
    // and whether the handler sees the key.
    #[rustfmt::skip]
    let table = [
        ("fresh", behind(plain.clone().fresh()), 401, 401, 401, true),
        ("optional", behind(layer().fresh().optional()), 401, 200, 401, true),
        ("optional first", behind(layer().optional().fresh()), 401, 200, 401, true),
        ("foreign", behind(layer().fresh().pass_foreign_tokens()), 401, 401, 200, true),
        ("stripped", behind(layer().fresh().strip_credentials()), 401, 401, 401, false),
        ("in own words", behind(layer().fresh().rejection_response(own_words)), 418, 418, 418, true),
    ];
    let plain = behind(plain);
    for (how, fresh, bad, anonymous, foreign, sees) in table {
        let token = new_token(&store).await;
        let let_in = (StatusCode::OK, format!("{USER}, {sees}"));
        let cached = (StatusCode::OK, format!("{USER}, true"));
        for reads in 1..=3 {
            let before = backend.reads();
            assert_eq!(ask(&fresh, Some(&token)).await, let_in, "{how}");
            assert_eq!(ask(&plain, Some(&token)).await, cached, "{how}");
            assert_eq!(backend.reads() - before, 1, "{how}, {reads}");
        }
        for presented in [
            with_wrong_secret(&token),
            unknown_token(),
            format!("{token}."),
        ] {
            assert_eq!(ask(&fresh, Some(&presented)).await.0, bad, "{how}");
        }
        assert_eq!(ask(&fresh, None).await.0, anonymous, "{how}");
        assert_eq!(ask(&fresh, Some(FOREIGN)).await.0, foreign, "{how}");

        backend.revoke_elsewhere(&token).await;
        assert_eq!(ask(&plain, Some(&token)).await, cached, "{how}");
        let (status, body) = ask(&fresh, Some(&token)).await;
        assert_eq!(status, bad, "{how}");
        assert!(body.contains("revoked"), "{how}: {body}");
        // What was read for the one is known to the other.
        assert_eq!(ask(&plain, Some(&token)).await.0, 401, "{how}");
    }
}

#[tokio::test]
async fn a_fresh_layer_inside_a_plain_one_asks_for_its_own_routes_alone() {
    let (store, backend) = store().await;
    let plain = ApiKeyLayer::new(store.clone());
    let app = Router::new()
        .route("/notes", get(who))
        .route("/pay", get(who).layer(plain.clone().fresh()))
        .route_layer(plain);
    let token = new_token(&store).await;
    let status = async |path, token| get_as(&app, path, token).await.status.as_u16();
    for (path, reads) in [
        ("/notes", 1),
        ("/notes", 1),
        ("/pay", 2),
        ("/pay", 3),
        ("/notes", 3),
    ] {
        assert_eq!(status(path, Some(&*token)).await, 200);
        assert_eq!(status(path, None).await, 401);
        assert_eq!(backend.reads(), reads, "{path}");
    }
    // What is cached is no answer where a fresh one is asked for, and stays.
    backend.set_reading(Reading::Fails);
    for (path, expected) in [
        ("/notes", 200),
        ("/pay", 503),
        ("/notes", 200),
        ("/pay", 503),
    ] {
        assert_eq!(status(path, Some(&token)).await, expected, "{path}");
    }
    backend.set_reading(Reading::Answers);
    backend.revoke_elsewhere(&token).await;
    for (path, expected) in [("/notes", 200), ("/pay", 401), ("/notes", 401)] {
        assert_eq!(status(path, Some(&token)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn layers_on_several_routes_share_one_cache_and_hear_of_each_revocation() {
    let (store, backend) = store().await;
    let layer = ApiKeyLayer::new(store.clone());
    let inner = Router::new().route("/", get(who));
    let app = Router::new()
        .route("/a", get(who))
        .route("/b", get(who).post(who))
        .route_layer(layer.clone())
        .route("/c", get(who).layer(layer.clone()))
        .route("/d", get(who).layer(layer.clone().optional()))
        .route("/e", get(who).layer(ApiKeyLayer::new(store.clone())))
        .nest("/f", inner.layer(layer.realm("f")));
    let routes = [
        "GET /a", "GET /b", "POST /b", "GET /c", "GET /d", "GET /e", "GET /f",
    ];
    let token = new_token(&store).await;
    let ask = async |line: &str| {
        let (method, path) = line.split_once(' ').unwrap();
        send(&app, request(method, path, Some(&token))).await
    };
    for line in routes {
        assert_eq!(ask(line).await.body, USER, "{line}");
    }
    assert_eq!(store.cache_stats().loads, 1);
    assert_eq!(backend.keys_read(), 1);

    assert!(store.revoke(&id_of(&token)).await.unwrap());
    let read = backend.keys_read();
    for line in routes {
        let answer = ask(line).await;
        assert_eq!(answer.status, 401, "{line}");
        assert!(answer.body.contains("revoked"), "{line}: {}", answer.body);
    }
    assert_eq!(store.cache_stats().loads, 2);
    assert_eq!(backend.keys_read() - read, 1);
}
