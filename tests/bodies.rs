//! The layer and its guard without axum: whatever type the bodies have, and on a bare hyper server.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use axum::{Extension, Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use support::{
    Fixture, USER,
    bare::{request, whoami},
    unknown_token, with_wrong_secret,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_api_key::{ApiKeyLayer, AuthContext, Rejection, RejectionReason, RequireScope};

async fn text(body: Full<Bytes>) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn a_service_over_full_bytes_answers_as_axum_does_to_the_byte() {
    let fixture = Fixture::new().await;
    let keys = ApiKeyLayer::new(fixture.store.clone()).realm("notes");
    let guard = RequireScope("notes:read");
    let bare = ServiceBuilder::new()
        .layer(keys.clone())
        .layer(guard.clone())
        .service(service_fn(whoami::<Full<Bytes>>));
    let axum = Router::new()
        .route(
            "/",
            get(async |Extension(auth): Extension<AuthContext>| auth.user_id().to_owned()),
        )
        .route_layer(guard)
        .route_layer(keys);

    let reader = fixture.token(&["notes:read"]).await;
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    let table = [
        (bearer(&reader), 200, USER),
        (
            bearer(&fixture.token(&["notes:write"]).await),
            403,
            "insufficient_scope",
        ),
        (vec![], 401, "missing_credentials"),
        (
            vec!["Basic dXNlcjpwYXNz".to_owned()],
            401,
            "missing_credentials",
        ),
        (bearer("pk.key_short.secret"), 401, "invalid_token"),
        (bearer(&unknown_token()), 401, "invalid_token"),
        (bearer(&with_wrong_secret(&reader)), 401, "invalid_token"),
        (bearer(&fixture.expired_token().await), 401, "expired"),
        (bearer(&fixture.revoked_token().await), 401, "revoked"),
        (bearer(&fixture.disabled_token().await), 401, "disabled"),
        (bearer(""), 400, "invalid_request"),
        (
            [bearer(&reader), bearer(&reader)].concat(),
            400,
            "invalid_request",
        ),
        (bearer(&reader), 503, "unavailable"),
    ];
    for (headers, status, said) in table {
        fixture.set_broken(status == 503);
        let mut to_bare = request::<Full<Bytes>>(None);
        let mut to_axum = request::<Body>(None);
        for header in headers {
            to_bare
                .headers_mut()
                .append("authorization", header.parse().unwrap());
            to_axum
                .headers_mut()
                .append("authorization", header.parse().unwrap());
        }
        let (bare_head, bare_body) = bare.clone().oneshot(to_bare).await.unwrap().into_parts();
        let (mut axum_head, axum_body) = axum.clone().oneshot(to_axum).await.unwrap().into_parts();

        assert_eq!(bare_head.status, status, "{said}");
        assert_eq!(axum_head.status, status, "{said}");
        let body = text(bare_body).await;
        assert!(body.contains(said), "{said}: {body}");
        assert_eq!(
            body,
            axum_body.collect().await.unwrap().to_bytes(),
            "{said}"
        );
        if status != 200 {
            // axum adds the length itself; servers do for the other.
            axum_head.headers.remove(CONTENT_LENGTH);
            assert_eq!(bare_head.headers, axum_head.headers, "{said}");
        }
    }
}

#[tokio::test]
async fn a_guard_without_a_layer_answers_500_to_whatever_is_sent() {
    let service = ServiceBuilder::new()
        .layer(RequireScope("notes:read"))
        .service(service_fn(whoami::<Full<Bytes>>));
    let token = Fixture::new().await.token(&["notes:read"]).await;
    for token in [None, Some(&*token)] {
        let response = service.clone().oneshot(request(token)).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!response.headers().contains_key("www-authenticate"));
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert!(matches!(rejection.reason(), RejectionReason::Misconfigured));
        assert_ne!(text(response.into_body()).await, "nobody");
    }
}

#[tokio::test]
async fn a_guard_behind_a_layer_that_maps_bodies_answers_with_an_empty_one() {
    let fixture = Fixture::new().await;
    let service = ServiceBuilder::new()
        .layer(
            ApiKeyLayer::new(fixture.store.clone())
                .realm("notes")
                .optional(),
        )
        .map_response(|response: Response<Full<Bytes>>| response.map(Body::new))
        .layer(RequireScope("notes:read"))
        .service(service_fn(whoami::<()>));
    let lacking = fixture.token(&[]).await;
    let enough = fixture.token(&["notes:read"]).await;
    let insufficient = r#"Bearer realm="notes", error="insufficient_scope", scope="notes:read""#;
    for (token, status, challenge, body) in [
        (None, 401, Some(r#"Bearer realm="notes""#), ""),
        (Some(&lacking), 403, Some(insufficient), ""),
        (Some(&enough), 200, None, USER),
    ] {
        let request = request(token.map(String::as_str));
        let (head, sent) = service.clone().oneshot(request).await.unwrap().into_parts();
        assert_eq!(head.status, status);
        let said = head.headers.get("www-authenticate");
        assert_eq!(said.map(|said| said.to_str().unwrap()), challenge);
        assert!(!head.headers.contains_key("content-type"));
        assert_eq!(sent.collect().await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn a_bare_hyper_server_is_guarded_over_http1_and_http2() {
    let fixture = Fixture::new().await;
    let service = ServiceBuilder::new()
        .layer(ApiKeyLayer::new(fixture.store.clone()))
        .layer(RequireScope("notes:read"))
        .service(service_fn(whoami::<hyper::body::Incoming>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // An error is a client that went away.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });

    let reader = fixture.token(&["notes:read"]).await;
    let writer = fixture.token(&["notes:write"]).await;
    for client in [support::http1(), support::http2()] {
        for (token, status, said) in [
            (None, 401, r#""code":"missing_credentials""#),
            (Some(unknown_token()), 401, r#""code":"invalid_token""#),
            (Some(writer.clone()), 403, r#""scope":"notes:read""#),
            (Some(reader.clone()), 200, USER),
        ] {
            let mut request = client.get(&url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status);
            let challenged = response.headers().contains_key("www-authenticate");
            assert_eq!(challenged, status != 200);
            assert!(response.text().await.unwrap().contains(said), "{said}");
        }
    }
    server.abort();
}
