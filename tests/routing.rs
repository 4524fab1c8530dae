//! The layer and its guards on axum: which requests they cover, whoever composes the router how.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::{
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Extension, Router,
    body::{Body, HttpBody, to_bytes},
    routing::{MethodRouter, any, get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode, header::WWW_AUTHENTICATE};
use hyper::body::Frame;
use support::{Fixture, USER};
use tower::{Layer, ServiceExt};
use tower_api_key::{
    AllOf, AnyOf, ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, Brand, CredentialHeader,
    KeyId, KeyResolver, NewApiKey, Pepper, Peppers, RequireScope, RequiredScopes, Scopes,
    VerifyError, scopes,
};
use tower_http::cors::CorsLayer;

scopes! {
    NotesRead = "notes:read";
    NotesWrite = "notes:write";
    Admin = "admin";
}

const REACHED: &str = "the handler was reached";
const FOREIGN: &str = "a.session.token";

async fn handler() -> &'static str {
    REACHED
}

async fn who(auth: Option<AuthContext>) -> String {
    auth.map_or("nobody".to_owned(), |auth| auth.user_id().to_owned())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn challenge(&self) -> &str {
        let challenge = self.headers.get(WWW_AUTHENTICATE);
        challenge.map_or("none", |challenge| challenge.to_str().unwrap())
    }
}

fn request(method: &str, path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.into()).unwrap(),
    }
}

async fn get_as(app: &Router, path: &str, token: Option<&str>) -> Answer {
    send(app, request("GET", path, token)).await
}

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
            Ok(AuthContext::new(token.key_id(), name, Scopes::none()))
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

/// Every guard that asks for `notes:read`, for any of two scopes, and for all of two.
fn guarded() -> [(&'static str, [Router; 3]); 3] {
    let routers = |routes: [MethodRouter; 3]| routes.map(|route| Router::new().route("/", route));
    let [one, any, all] = routers([get(handler), get(handler), get(handler)]);
    let on_router = [
        one.layer(RequireScope(NotesRead)),
        any.layer(RequireScope(AnyOf(vec![
            "notes:write".to_owned(),
            "admin".to_owned(),
        ]))),
        all.route_layer(RequireScope(AllOf([NotesRead.as_ref(), "notes:write"]))),
    ];
    let on_methods = [
        get(handler).route_layer(RequireScope("notes:read")),
        get(handler).layer(RequireScope(AnyOf(["notes:write", "admin"]))),
        get(handler).layer(RequireScope(AllOf(["notes:read", "notes:write"]))),
    ];
    let extractors = [
        get(async |_: RequireScope<NotesRead>| REACHED),
        get(async |_: RequireScope<AnyOf<(NotesWrite, Admin)>>| REACHED),
        get(async |_: RequireScope<AllOf<(NotesRead, NotesWrite)>>| REACHED),
    ];
    [
        ("on a router", on_router),
        ("on a method router", routers(on_methods)),
        ("as an extractor", routers(extractors)),
    ]
}

#[tokio::test]
async fn guards_let_in_who_holds_the_scopes_and_nobody_else() {
    let fixture = Fixture::new().await;
    let granted: [(&[&str], [u16; 3]); 11] = [
        (&[], [403, 403, 403]),
        (&["notes:read"], [200, 403, 403]),
        (&["notes:write"], [403, 200, 403]),
        (&["notes:read", "notes:write"], [200, 200, 200]),
        (&["notes:*"], [200, 200, 200]),
        (&["*"], [200, 200, 200]),
        (&["admin"], [403, 200, 403]),
        (
            &["notes:readonly", "notes:read:x", "notes"],
            [403, 403, 403],
        ),
        (&["NOTES:READ", "Admin", "xnotes:read"], [403, 403, 403]),
        (&["notes:read:*", "notes:writ"], [403, 403, 403]),
        (&["admin:*", "note:*"], [403, 403, 403]),
    ];
    let mut table = vec![(None, [401, 401, 401])];
    for (scopes, statuses) in granted {
        table.push((Some(fixture.token(scopes).await), statuses));
    }
    let unrestricted = NewApiKey::for_user(USER, Scopes::unrestricted());
    table.push((Some(fixture.issue(unrestricted).await), [200, 200, 200]));

    let asked = ["notes:read", "notes:write admin", "notes:read notes:write"];
    for (guard, routers) in guarded() {
        for (at, router) in routers.into_iter().enumerate() {
            let bare = get_as(&router, "/", None).await;
            assert_eq!(bare.status, 500, "{guard} without a layer");
            assert!(bare.body.contains(r#""code":"misconfigured""#), "{guard}");
            assert_eq!(bare.challenge(), "none");

            let app = router.layer(ApiKeyLayer::new(fixture.store.clone()).optional());
            for (row, (token, statuses)) in table.iter().enumerate() {
                let answer = get_as(&app, "/", token.as_deref()).await;
                let case = format!("{guard}, {}, row {row}", asked[at]);
                assert_eq!(answer.status, statuses[at], "{case}");
                match statuses[at] {
                    200 => assert_eq!(answer.body, REACHED, "{case}"),
                    401 => assert!(answer.body.contains("missing_credentials"), "{case}"),
                    _ => {
                        let scope = asked[at];
                        let challenge = format!(
                            r#"Bearer realm="api", error="insufficient_scope", scope="{scope}""#
                        );
                        assert_eq!(answer.challenge(), challenge, "{case}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn guards_and_extractors_answer_500_where_no_layer_is_around_them() {
    let app = Router::new()
        .route("/context", get(async |_: AuthContext| REACHED))
        .route("/optional", get(who));
    for path in ["/context", "/optional"] {
        let answer = get_as(&app, path, None).await;
        assert_eq!(answer.status, 500, "{path}");
        assert!(answer.body.contains(r#""code":"misconfigured""#), "{path}");
    }
    let app = app.layer(ApiKeyLayer::new(Fixture::new().await.store).optional());
    assert_eq!(get_as(&app, "/context", None).await.status, 401);
    assert_eq!(get_as(&app, "/optional", None).await.body, "nobody");

    let wrong_way_round = Router::new()
        .route("/", get(handler))
        .layer(ApiKeyLayer::new(Fixture::new().await.store))
        .layer(RequireScope("notes:read"));
    assert_eq!(get_as(&wrong_way_round, "/", None).await.status, 500);
}

#[test]
fn a_guard_for_no_valid_scope_panics_when_it_is_made() {
    // Not later: axum puts the layers of a method router on when the first connection comes.
    fn panics<S: RequiredScopes>(scopes: S) -> bool {
        panic::catch_unwind(AssertUnwindSafe(|| drop(RequireScope(scopes)))).is_err()
    }
    let too_long = "a".repeat(257);
    for scope in [
        "", " ", "a b", "a,b", "é", "a\"", "a\\", "a\n", "*", "notes:*", "no*tes", &too_long,
    ] {
        let in_lists = [[scope, "notes:read"], ["notes:read", scope]];
        assert!(panics(scope), "{scope:?}");
        assert!(panics(AnyOf(in_lists[0])), "{scope:?}");
        assert!(panics(AllOf(in_lists[1])), "{scope:?}");
    }
    assert!(panics(AnyOf([""; 0])));
    assert!(panics(AllOf(Vec::<String>::new())));
    assert!(!panics("notes:read"));
    assert!(!panics(AnyOf(["notes:read", "admin"])));
}

#[tokio::test]
async fn whoever_is_turned_away_is_answered_before_the_body_is_read() {
    /// Says whether anyone asked for its data.
    struct Watched(Arc<AtomicBool>);

    impl HttpBody for Watched {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.store(true, Ordering::SeqCst);
            Poll::Ready(None)
        }
    }

    let fixture = Fixture::new().await;
    let reader = fixture.token(&["notes:read"]).await;
    let writer = fixture.token(&["notes:write"]).await;
    let read = async |body: Bytes| body.len().to_string();
    let app = Router::new()
        .route("/layer", post(read).route_layer(RequireScope(NotesWrite)))
        .route(
            "/extractor",
            post(async |_: RequireScope<NotesWrite>, _: Bytes| "0"),
        )
        .layer(ApiKeyLayer::new(fixture.store.clone()).optional());
    for path in ["/layer", "/extractor"] {
        let unknown = support::unknown_token();
        for (token, status) in [
            (None, 401),
            (Some(&unknown), 401),
            (Some(&reader), 403),
            (Some(&writer), 200),
        ] {
            let polled = Arc::new(AtomicBool::new(false));
            let body = Body::new(Watched(polled.clone()));
            let request = request("POST", path, token.map(String::as_str)).map(|_| body);
            assert_eq!(send(&app, request).await.status, status, "{path}");
            let was_read = polled.load(Ordering::SeqCst);
            assert_eq!(was_read, status == 200, "{path}: {status}");
        }
    }
}

#[tokio::test]
async fn scopes_are_enforced_for_every_family_of_routes_and_source_of_keys() {
    let fixture = Fixture::new().await;
    let reader = fixture.token(&["notes:read"]).await;
    let writer = fixture.token(&["notes:write"]).await;
    let header = HeaderName::from_static("x-api-key");
    let sources = [CredentialHeader::bearer(), CredentialHeader::named(header)];
    let app = Router::new()
        .route("/plain", get(handler).post(handler))
        .route("/any", any(handler))
        .route("/with/{id}", get(handler))
        .route("/all/{*rest}", get(handler))
        .route_service("/service", get(handler))
        .nest("/nested", Router::new().route("/notes", get(handler)))
        .nest_service("/mounted", Router::new().route("/notes", get(handler)))
        .merge(Router::new().route("/merged", get(handler)))
        .fallback(handler)
        .layer(RequireScope("notes:write"))
        .layer(ApiKeyLayer::new(fixture.store.clone()).credential_headers(sources));
    let families = "GET /plain, POST /plain, HEAD /plain, DELETE /any, OPTIONS /any, GET /with/1, \
                    GET /all/of/it, GET /service, GET /nested/notes, GET /mounted/notes, \
                    GET /merged, GET /unknown";
    for line in families.split(", ") {
        let (method, path) = line.split_once(' ').unwrap();
        let anonymous = send(&app, request(method, path, None)).await;
        assert_eq!(anonymous.status, 401, "{line}");
        for (token, status) in [(&reader, 403), (&writer, 200)] {
            let bearer = send(&app, request(method, path, Some(token))).await;
            assert_eq!(bearer.status, status, "{line}");
            let mut named = request(method, path, None);
            named
                .headers_mut()
                .insert("x-api-key", token.parse().unwrap());
            assert_eq!(send(&app, named).await.status, status, "{line}");
        }
    }
}

#[tokio::test]
async fn a_handler_is_tested_with_a_context_made_by_hand() {
    async fn list(auth: AuthContext, _: RequireScope<NotesRead>) -> String {
        format!("the notes of {}", auth.user_id())
    }

    let auth = |scopes: &[&str]| {
        AuthContext::new(
            KeyId::from_bytes([7; 24]),
            "user_2",
            Scopes::of(scopes).unwrap(),
        )
    };
    let app = |auth| Router::new().route("/", get(list)).layer(Extension(auth));
    let enough = auth(&["notes:read"]);

    let called = list(enough.clone(), RequireScope(NotesRead)).await;
    assert_eq!(called, "the notes of user_2");
    assert_eq!(get_as(&app(enough), "/", None).await.body, called);

    let denied = get_as(&app(auth(&["notes:write"])), "/", None).await;
    assert_eq!(denied.status, 403);
    assert_eq!(
        denied.challenge(),
        r#"Bearer realm="api", error="insufficient_scope", scope="notes:read""#
    );
    assert_eq!(denied.headers["content-type"], "application/problem+json");
    assert_eq!(
        denied.body,
        concat!(
            r#"{"type":"about:blank","title":"Forbidden","status":403,"code":"insufficient_scope","#,
            r#""detail":"The API key lacks a scope that is required here.","scope":"notes:read"}"#
        )
    );
}
