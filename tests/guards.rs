//! The guards on axum, as layers and as extractors: who is let in, and what everybody else is told.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::{
    error::Error,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Extension, Router,
    body::{Body, HttpBody},
    extract::Path,
    http::Response,
    response::IntoResponse,
    routing::{MethodRouter, any, get, post},
};
use bytes::Bytes;
use http::HeaderName;
use hyper::body::Frame;
use serde_json::Value;
use support::{
    Fixture, USER,
    oneshot::{REACHED, get_as, handler, request, send, who},
};
use tower_api_key::{
    AllOf, AnyOf, ApiKeyLayer, AuthContext, BackendError, CredentialHeader, KeyId, NewApiKey,
    Rejection, RejectionReason, RequireScope, RequiredScopes, Scopes, scopes,
};

scopes! {
    NotesRead = "notes:read";
    NotesWrite = "notes:write";
    Admin = "admin";
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
async fn any_of_says_that_one_of_the_scopes_is_enough_and_lists_them() {
    let fixture = Fixture::new().await;
    let reader = fixture.token(&["notes:read"]).await;
    for (guard, [_, any, _]) in guarded() {
        let app = any.layer(ApiKeyLayer::new(fixture.store.clone()));
        let denied = get_as(&app, "/", Some(&reader)).await;
        assert_eq!(denied.status, 403, "{guard}");
        let problem: Value = serde_json::from_str(&denied.body).unwrap();
        assert_eq!(
            problem["detail"], "The API key has none of the scopes of which one is required here.",
            "{guard}"
        );
        assert_eq!(problem["scope"], "notes:write admin", "{guard}");
    }
}

#[tokio::test]
async fn a_layer_takes_its_scopes_as_types_arrays_vecs_and_slices() {
    fn guarded_by<S: RequiredScopes + 'static>(scopes: S) -> Router {
        Router::new()
            .route("/", get(handler))
            .layer(RequireScope(scopes))
    }

    let owned = || vec!["notes:write".to_owned(), "admin".to_owned()];
    let slice: &[&str] = &["notes:write", "admin"];
    let of_any = [
        guarded_by(AnyOf((NotesWrite, Admin))),
        guarded_by(AnyOf((NotesWrite, "admin"))),
        guarded_by(AnyOf([NotesWrite.as_ref(), "admin"])),
        guarded_by(AnyOf(["notes:write", "admin"])),
        guarded_by(AnyOf(vec!["notes:write", "admin"])),
        guarded_by(AnyOf(owned())),
        guarded_by(AnyOf(slice)),
    ];
    let of_all = [
        guarded_by(AllOf((NotesWrite, Admin))),
        guarded_by(AllOf((NotesWrite, "admin"))),
        guarded_by(AllOf([NotesWrite.as_ref(), "admin"])),
        guarded_by(AllOf(["notes:write", "admin"])),
        guarded_by(AllOf(vec!["notes:write", "admin"])),
        guarded_by(AllOf(owned())),
        guarded_by(AllOf(slice)),
    ];

    let fixture = Fixture::new().await;
    let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="notes:write admin""#;
    for (scopes, with_any, with_all) in [
        (&[][..], 403, 403),
        (&["notes:read"], 403, 403),
        (&["notes:write"], 200, 403),
        (&["admin"], 200, 403),
        (&["notes:write", "admin"], 200, 200),
    ] {
        let token = fixture.token(scopes).await;
        for (apps, status) in [(&of_any, with_any), (&of_all, with_all)] {
            for (at, app) in apps.iter().enumerate() {
                let case = format!("{scopes:?}, layer {at}");
                let app = app.clone().layer(ApiKeyLayer::new(fixture.store.clone()));
                let answer = get_as(&app, "/", Some(&token)).await;
                assert_eq!(answer.status, status, "{case}");
                let told = if status == 200 { "none" } else { challenge };
                assert_eq!(answer.challenge(), told, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_handler_that_asks_for_a_scope_answers_as_a_guard_there_would() {
    async fn project(
        auth: AuthContext,
        Path(id): Path<u32>,
    ) -> Result<&'static str, Response<Body>> {
        auth.require_scope(&format!("project:{id}"))?;
        Ok(REACHED)
    }

    let fixture = Fixture::new().await;
    let routes = || {
        Router::new().route("/project/{id}", get(project)).route(
            "/guarded",
            get(handler).route_layer(RequireScope("project:7")),
        )
    };
    let keys = || ApiKeyLayer::new(fixture.store.clone());
    let in_own_words = |rejection: Rejection| {
        let mut response = Response::new(Body::from(format!("no: {rejection}")));
        *response.status_mut() = rejection.status();
        let challenge = rejection.challenge().unwrap();
        response.headers_mut().insert("www-authenticate", challenge);
        response
    };
    let problem = concat!(
        r#"{"type":"about:blank","title":"Forbidden","status":403,"code":"insufficient_scope","#,
        r#""detail":"The API key lacks a scope that is required here.","scope":"project:7"}"#
    );
    let replaced = "no: The API key lacks a scope that is required here.";
    for (app, realm, body) in [
        (routes().layer(keys()), "api", problem),
        (routes().layer(keys().realm("notes")), "notes", problem),
        (
            routes().layer(keys().realm("notes").rejection_response(in_own_words)),
            "notes",
            replaced,
        ),
        (
            routes().layer(keys().rejection_response(in_own_words).realm("notes")),
            "notes",
            replaced,
        ),
    ] {
        for scopes in [&["project:7"][..], &["project:*"], &["project:8", "*"]] {
            let token = fixture.token(scopes).await;
            let answer = get_as(&app, "/project/7", Some(&token)).await;
            assert_eq!((answer.status.as_u16(), &*answer.body), (200, REACHED));
        }
        for scopes in [&[][..], &["project:8"], &["project:77", "project:7:*"]] {
            let token = fixture.token(scopes).await;
            let answer = get_as(&app, "/project/7", Some(&token)).await;
            assert_eq!((answer.status.as_u16(), &*answer.body), (403, body));
            let challenge =
                format!(r#"Bearer realm="{realm}", error="insufficient_scope", scope="project:7""#);
            assert_eq!(answer.challenge(), challenge);
            let guard = get_as(&app, "/guarded", Some(&token)).await;
            assert_eq!((answer.status, answer.body), (guard.status, guard.body));
            assert_eq!(answer.headers, guard.headers);
        }
    }
}

/// What a key that may do everything gets where the handler asks for `text`.
async fn assert_never_held_and_not_repeated(text: &'static str) {
    let fixture = Fixture::new().await;
    let app = Router::new()
        .route(
            "/",
            get(async move |auth: AuthContext| auth.require_scope::<Body>(text).map(|()| REACHED)),
        )
        .layer(ApiKeyLayer::new(fixture.store.clone()));
    let unrestricted = NewApiKey::for_user(USER, Scopes::unrestricted());
    for token in [
        fixture.token(&["a", "b", "*"]).await,
        fixture.issue(unrestricted).await,
    ] {
        let denied = get_as(&app, "/", Some(&token)).await;
        assert_eq!(denied.status, 403, "{text:?}");
        assert_eq!(
            denied.challenge(),
            r#"Bearer realm="api", error="insufficient_scope""#,
            "{text:?}"
        );
        let problem: Value = serde_json::from_str(&denied.body).unwrap();
        assert_eq!(problem["code"], "insufficient_scope", "{text:?}");
        assert_eq!(problem.get("scope"), None, "{text:?}");
    }
}

#[tokio::test]
async fn a_text_that_is_no_scope_is_never_held_and_not_repeated_in_the_answer() {
    for text in ["a\nb", "é", "", " ", "a\"b", "a\\", "a,b", "notes:*"] {
        assert_never_held_and_not_repeated(text).await;
    }
}

#[tokio::test]
async fn a_text_with_a_space_is_no_list_of_scopes() {
    assert_never_held_and_not_repeated("a b").await;
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

#[tokio::test]
async fn a_client_that_says_it_speaks_grpc_does_not_turn_a_denial_into_a_success() {
    let app = Router::new().route("/", get(handler).layer(RequireScope("admin")));
    for (kind, grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpcfoo", false),
        ("application/json", false),
    ] {
        let mut request = request("GET", "/", None);
        request
            .headers_mut()
            .insert("content-type", kind.parse().unwrap());
        let answer = send(&app, request).await;
        assert_eq!(answer.status, 500, "{kind}");
        assert_eq!(answer.headers.contains_key("grpc-status"), grpc, "{kind}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_handler_can_answer_with_a_rejection_itself() {
    let outage = BackendError::unavailable("the cable was pulled");
    for (reason, status) in [
        (RejectionReason::MissingCredentials, 401),
        (RejectionReason::Unavailable(outage.into()), 503),
    ] {
        let rejection = Rejection::new(reason);
        let cause = rejection.source().and_then(Error::source);
        assert_eq!(cause.is_some(), status == 503);
        let response = rejection.clone().into_response();
        assert_eq!(response.status(), status);
        let challenge = response.headers().get("www-authenticate").cloned();
        assert_eq!(challenge, rejection.challenge());
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 503
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
        let carried: &Rejection = response.extensions().get().unwrap();
        assert_eq!(carried.code(), rejection.code());
    }
}
