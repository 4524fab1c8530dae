//! The layer on axum: which requests it covers, whoever composes the router how, and which context
//! they get.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[path = "routing/cached.rs"]
mod cached;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Extension, Router,
    routing::{any, get},
};
use http::HeaderName;
use support::{
    Fixture, USER,
    oneshot::{REACHED, get_as, handler, request, send, who},
};
use tower::Layer;
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, Brand, CredentialHeader, KeyId,
    KeyResolver, NewApiKey, Pepper, Peppers, RequireScope, Scopes, VerifyError,
};
use tower_http::cors::CorsLayer;

const FOREIGN: &str = "a.session.token";

/// An unrestricted context of a user that the layer has never heard of.
fn forged() -> AuthContext {
    AuthContext::new(
        KeyId::from_bytes([7; 24]),
        "mallory",
        Scopes::unrestricted(),
    )
}

#[tokio::test]
async fn layer_covers_what_is_there_and_route_layer_covers_routes_alone() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let keys = || ApiKeyLayer::new(fixture.store.clone());
    let routes = || Router::new().route("/notes", get(handler));
    let late = |app: Router| app.route("/late", get(handler));
    let own_fallbacks = || {
        let routes = routes().fallback(handler);
        routes.method_not_allowed_fallback(handler)
    };
    let nest = |routes| Router::new().nest("/in", routes);
    let one = |method| Router::new().route("/notes", method);

    // How a router is put together, and what requests to it get without a key, and with one.
    #[rustfmt::skip]
    let table = [
        ("layer", late(routes().layer(keys())),
         "GET /notes 401 200, HEAD /notes 401 200, OPTIONS /notes 401 405, POST /notes 401 405, \
          GET /unknown 401 404, GET /late 200 200, POST /late 405 405"),
        ("route_layer", late(routes().route_layer(keys())),
         "GET /notes 401 200, HEAD /notes 401 200, OPTIONS /notes 401 405, POST /notes 401 405, \
          GET /unknown 404 404, GET /late 200 200, POST /late 405 405"),
        ("layer after the fallbacks", own_fallbacks().layer(keys()),
         "GET /notes 401 200, GET /unknown 401 200, POST /notes 401 200"),
        ("route_layer after the fallbacks", own_fallbacks().route_layer(keys()),
         "GET /notes 401 200, GET /unknown 200 200, POST /notes 401 200"),
        ("layer before the fallback", routes().layer(keys()).fallback(handler),
         "GET /notes 401 200, GET /unknown 200 200"),
        ("layer on a method", one(get(handler).layer(keys())),
         "GET /notes 401 200, POST /notes 401 405, GET /unknown 404 404"),
        ("layer on a method, then another", one(get(handler).layer(keys()).post(handler)),
         "GET /notes 401 200, POST /notes 200 200"),
        ("layer on a method, with any and a fallback",
         one(any(handler).get(handler).layer(keys())),
         "GET /notes 401 200, POST /notes 401 200"),
        ("route_layer on a method leaves any open",
         one(any(handler).get(handler).route_layer(keys())),
         "GET /notes 401 200, POST /notes 200 200"),
        ("route_layer on a method", one(get(handler).route_layer(keys())),
         "GET /notes 401 200, POST /notes 405 405"),
        ("layer around a nest", late(nest(routes()).layer(keys())),
         "GET /in/notes 401 200, POST /in/notes 401 405, GET /in/unknown 401 404, \
          GET /unknown 401 404, GET /late 200 200"),
        ("route_layer around a nest", late(nest(routes()).route_layer(keys())),
         "GET /in/notes 401 200, GET /in/unknown 404 404, GET /late 200 200"),
        ("layer inside a nest", nest(routes().layer(keys())),
         "GET /in/notes 401 200, POST /in/notes 401 405, GET /in/unknown 404 404"),
        ("layer inside a nest with a fallback", nest(routes().fallback(handler).layer(keys())),
         "GET /in/notes 401 200, GET /in/unknown 401 200, GET /unknown 404 404"),
        ("route_layer inside a nest", nest(routes().route_layer(keys())),
         "GET /in/notes 401 200, POST /in/notes 401 405, GET /in/unknown 404 404"),
        ("layer, then merged into others", late(Router::new()).merge(routes().layer(keys())),
         "GET /notes 401 200, GET /late 200 200, GET /unknown 401 404"),
        ("layer, then others merged in", routes().layer(keys()).merge(late(Router::new())),
         "GET /notes 401 200, GET /late 200 200, GET /unknown 404 404"),
        ("route_layer, then merged", late(Router::new()).merge(routes().route_layer(keys())),
         "GET /notes 401 200, GET /late 200 200, GET /unknown 404 404"),
        ("merged, then layer", late(Router::new()).merge(routes()).layer(keys()),
         "GET /notes 401 200, GET /late 401 200, GET /unknown 401 404"),
    ];
    for (how, app, expected) in table {
        let mut rows = Vec::new();
        for row in expected.split(", ") {
            let mut cells = row.split(' ');
            let (method, path) = (cells.next().unwrap(), cells.next().unwrap());
            let refused = send(&app, request(method, path, None)).await;
            let admitted = send(&app, request(method, path, Some(&token))).await;
            if refused.status == 401 {
                assert_eq!(refused.challenge(), r#"Bearer realm="api""#);
                assert_eq!(refused.body.is_empty(), method == "HEAD", "{how}: {row}");
            }
            let statuses = [refused.status.as_str(), admitted.status.as_str()].join(" ");
            rows.push(format!("{method} {path} {statuses}"));
        }
        assert_eq!(rows.join(", "), expected, "{how}");
    }
}

#[tokio::test]
async fn a_preflight_passes_a_cors_layer_outside_and_needs_a_key_before_one_inside() {
    let store = Fixture::new().await.store;
    let routes = || Router::new().route("/notes", get(handler));
    let outside = routes()
        .layer(ApiKeyLayer::new(store.clone()))
        .layer(CorsLayer::permissive());
    let inside = routes()
        .layer(CorsLayer::permissive())
        .layer(ApiKeyLayer::new(store));
    let ask = |app: Router, method: &'static str| async move {
        let mut request = request(method, "/notes", None);
        let headers = request.headers_mut();
        headers.insert("origin", "https://example.org".parse().unwrap());
        headers.insert("access-control-request-method", "GET".parse().unwrap());
        let answer = send(&app, request).await;
        let allowed = answer.headers.contains_key("access-control-allow-origin");
        (answer.status.as_u16(), allowed)
    };
    assert_eq!(ask(outside.clone(), "OPTIONS").await, (200, true));
    // The script that sent the request may read why it was turned away.
    assert_eq!(ask(outside, "GET").await, (401, true));
    assert_eq!(ask(inside.clone(), "OPTIONS").await, (401, false));
    assert_eq!(ask(inside, "GET").await, (401, false));
}

#[tokio::test]
async fn no_spelling_of_a_path_reaches_a_handler_without_a_key() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let layer = || ApiKeyLayer::new(fixture.store.clone());
    let routes = || {
        Router::new()
            .route("/notes", get(handler))
            .route("/{*rest}", get(handler))
    };
    let apps = [
        routes().fallback(handler).layer(layer()),
        routes().route_layer(layer()),
        Router::new().fallback_service(routes().layer(layer())),
        Router::new().fallback_service(layer().layer(routes())),
    ];
    let paths = "/notes //notes /notes/ /%6eotes /./notes /x/../notes /NOTES /notes%2f /notes;a=b \
                 /notes?a=b /%2e/notes /notes%00 http://example.org//notes // *";
    for (how, app) in apps.into_iter().enumerate() {
        let mut reached = 0;
        for path in paths.split_ascii_whitespace() {
            for method in ["GET", "HEAD"] {
                let refused = send(&app, request(method, path, None)).await;
                assert!(!refused.status.is_success(), "app {how}: {method} {path}");
                assert_ne!(refused.body, REACHED, "app {how}: {method} {path}");
            }
            let let_in = get_as(&app, path, Some(&token)).await;
            reached += usize::from(let_in.body == REACHED);
        }
        assert!(reached > 10, "app {how}: {reached} reached it with a key");
    }
}

#[tokio::test]
async fn a_context_that_was_there_before_the_layer_is_removed_or_replaced() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["notes:read"]).await;
    let layer = || ApiKeyLayer::new(fixture.store.clone());
    for (how, layer) in [
        ("optional", layer().optional()),
        ("foreign", layer().optional().pass_foreign_tokens()),
        ("foreign only", layer().pass_foreign_tokens()),
        ("required", layer()),
    ] {
        let app = Router::new()
            .route("/who", get(who))
            .route("/guarded", get(who).route_layer(RequireScope("admin")))
            .layer(layer)
            .layer(Extension(forged()));
        for presented in [None, Some(FOREIGN)] {
            let answer = get_as(&app, "/who", presented).await;
            let passed = match presented {
                None => how == "optional" || how == "foreign",
                Some(_) => how.starts_with("foreign"),
            };
            assert_eq!(answer.status == 200, passed, "{how}: {presented:?}");
            if passed {
                assert_eq!(answer.body, "nobody", "{how}: {presented:?}");
            }
            let guarded = get_as(&app, "/guarded", presented).await;
            assert_eq!(guarded.status, 401, "{how}: {presented:?}");
        }
        assert_eq!(get_as(&app, "/who", Some(&token)).await.body, USER, "{how}");
        let guarded = get_as(&app, "/guarded", Some(&token)).await;
        assert_eq!(guarded.status, 403, "{how}");
    }
}

#[tokio::test]
async fn of_two_layers_the_inner_one_decides() {
    let inner = Fixture::new().await;
    let peppers = Peppers::new(Pepper::random("v1").unwrap());
    let outer = ApiKeyStore::builder(support::Breakable::default())
        .peppers(peppers)
        .brand(Brand::new("outer").unwrap())
        .build()
        .await
        .unwrap();
    let new = NewApiKey::for_user("outer", Scopes::unrestricted());
    let outer_token = outer.create(new).await.unwrap();
    let outer_token = outer_token.token().expose();
    let inner_token = inner.token(&["notes:read"]).await;
    let in_outer_header = || [CredentialHeader::named(HeaderName::from_static("x-outer"))];
    let stack = |inner_layer: ApiKeyLayer<ApiKeyStore>| {
        Router::new()
            .route("/who", get(who))
            .route("/guarded", get(who).route_layer(RequireScope("admin")))
            .layer(inner_layer.realm("inner"))
            .layer(
                ApiKeyLayer::new(outer.clone())
                    .credential_headers(in_outer_header())
                    .optional(),
            )
    };
    let required = stack(ApiKeyLayer::new(inner.store.clone()));
    let optional = stack(ApiKeyLayer::new(inner.store.clone()).optional());

    // What is asked for, with an outer key or not, with an inner key or not: status and caller.
    let table = [
        (&required, "/who", false, false, 401, None),
        (&required, "/who", true, false, 401, None),
        (&required, "/who", false, true, 200, Some(USER)),
        (&required, "/who", true, true, 200, Some(USER)),
        (&required, "/guarded", true, true, 403, None),
        (&optional, "/who", true, false, 200, Some("nobody")),
        (&optional, "/guarded", true, false, 401, None),
        (&optional, "/who", true, true, 200, Some(USER)),
    ];
    for (row, (app, path, with_outer, with_inner, status, body)) in table.into_iter().enumerate() {
        let mut request = request("GET", path, with_inner.then_some(&inner_token));
        if with_outer {
            let value = outer_token.parse().unwrap();
            request.headers_mut().insert("x-outer", value);
        }
        let answer = send(app, request).await;
        assert_eq!(answer.status, status, "row {row}");
        match body {
            Some(body) => assert_eq!(answer.body, body, "row {row}"),
            None => assert!(answer.challenge().starts_with(r#"Bearer realm="inner""#)),
        }
    }
}

#[tokio::test]
async fn one_resolver_serves_every_route_and_every_clone_of_a_layer() {
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl KeyResolver for Counting {
        async fn resolve(&self, token: &ApiKeyToken) -> Result<AuthContext, VerifyError> {
            let asked = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            let name = asked.to_string();
            Ok(AuthContext::new(
                token.key_id().unwrap(),
                name,
                Scopes::none(),
            ))
        }
    }

    let layer = ApiKeyLayer::new(Counting::default());
    let app = Router::new()
        .route("/a", get(who))
        .route("/b", get(who).post(who))
        .route_layer(layer.clone())
        .route("/c", get(who).layer(layer.clone()))
        .nest(
            "/d",
            Router::new().route("/", get(who)).layer(layer.realm("d")),
        );
    let token = support::unknown_token();
    let asked = ["GET /a", "GET /b", "POST /b", "GET /c", "GET /d", "GET /a"];
    for (before, line) in asked.into_iter().enumerate() {
        let (method, path) = line.split_once(' ').unwrap();
        let answer = send(&app, request(method, path, Some(&token))).await;
        assert_eq!(answer.body, (before + 1).to_string(), "{line}");
    }
}
