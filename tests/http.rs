//! What clients and outer layers get to see of a rejection, from a real server, to the byte.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    http::{Response, header::WWW_AUTHENTICATE},
    middleware::map_response,
    routing::get,
};
use reqwest::{Client, Version};
use support::{Fixture, Server, USER, http1, http2, id_of, unknown_token, with_wrong_secret};
use tower_api_key::{
    ApiKey, ApiKeyLayer, ApiKeyStore, AuthContext, BackendError, CachedResolver, KeySource,
    LookupKey, Pepper, Peppers, Rejection, RejectionReason, RequireScope, ResponseForRejection,
};

/// A response with everything but its date.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    /// A problem, with one header beside those that describe the body.
    fn problem(status: u16, header: Option<(&str, &str)>, body: &str) -> Self {
        let len = body.len().to_string();
        let described = [
            ("content-type", "application/problem+json"),
            ("content-length", &len),
            ("cache-control", "no-store"),
        ];
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            status,
            headers: described.into_iter().chain(header).map(pair).collect(),
            body: body.to_owned(),
        }
    }

    fn challenged(status: u16, challenge: &str, body: &str) -> Self {
        Self::problem(status, Some(("www-authenticate", challenge)), body)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

async fn ask(client: &Client, url: &str, authorization: &[&str]) -> Answer {
    let request = authorization
        .iter()
        .fold(client.get(url), |request, value| {
            request.header("authorization", *value)
        });
    let response = request.send().await.unwrap();
    let mut headers = BTreeMap::new();
    for (name, value) in response.headers() {
        let value = value.to_str().unwrap().to_owned();
        let twice = headers.insert(name.to_string(), value);
        assert_eq!(twice, None, "{name} comes twice");
    }
    headers.remove("date").unwrap();
    Answer {
        status: response.status().as_u16(),
        headers,
        body: response.text().await.unwrap(),
    }
}

async fn ask_with_token(client: &Client, url: &str, token: &str) -> Answer {
    ask(client, url, &[&format!("Bearer {token}")]).await
}

/// Guarded in each way that there is, and once where no layer is around the guard.
fn app<F>(layer: ApiKeyLayer<ApiKeyStore, F>) -> Router
where
    F: ResponseForRejection<Body> + Send + Sync + 'static,
{
    Router::new()
        .route("/", get(async || "in"))
        .route(
            "/whoami",
            get(async |auth: AuthContext| auth.user_id().to_owned()),
        )
        .route(
            "/write",
            get(async || "written").route_layer(RequireScope("notes:write")),
        )
        .layer(layer)
        .route(
            "/outside",
            get(async || "open").route_layer(RequireScope("notes:write")),
        )
}

#[tokio::test]
async fn every_rejection_is_what_the_table_says_to_the_byte_over_both_versions_of_http() {
    let missing = Answer::challenged(
        401,
        r#"Bearer realm="api""#,
        r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"missing_credentials","detail":"An API key is required."}"#,
    );
    let bad_request = Answer::challenged(
        400,
        r#"Bearer realm="api", error="invalid_request""#,
        r#"{"type":"about:blank","title":"Bad Request","status":400,"code":"invalid_request","detail":"Send exactly one API key, in the form that is asked for."}"#,
    );
    let invalid = Answer::challenged(
        401,
        r#"Bearer realm="api", error="invalid_token""#,
        r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"invalid_token","detail":"The API key is not valid."}"#,
    );
    let expired = Answer::challenged(
        401,
        r#"Bearer realm="api", error="invalid_token", error_description="The API key has expired""#,
        r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"expired","detail":"The API key has expired."}"#,
    );
    let revoked = Answer::challenged(
        401,
        r#"Bearer realm="api", error="invalid_token", error_description="The API key was revoked""#,
        r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"revoked","detail":"The API key was revoked."}"#,
    );
    let disabled = Answer::challenged(
        401,
        r#"Bearer realm="api", error="invalid_token", error_description="The API key is disabled""#,
        r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"disabled","detail":"The API key is disabled."}"#,
    );
    let no_scope = Answer::challenged(
        403,
        r#"Bearer realm="api", error="insufficient_scope", scope="notes:write""#,
        r#"{"type":"about:blank","title":"Forbidden","status":403,"code":"insufficient_scope","detail":"The API key lacks a scope that is required here.","scope":"notes:write"}"#,
    );
    let unavailable = Answer::problem(
        503,
        Some(("retry-after", "1")),
        r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"unavailable","detail":"API keys can't be checked at the moment. Try again."}"#,
    );
    let misconfigured = Answer::problem(
        500,
        None,
        r#"{"type":"about:blank","title":"Internal Server Error","status":500,"code":"misconfigured","detail":"This route checks API keys, but nothing reads them."}"#,
    );

    for (client, version) in [(http1(), Version::HTTP_11), (http2(), Version::HTTP_2)] {
        let fixture = Fixture::new().await;
        let server = Server::start(app(ApiKeyLayer::new(fixture.store.clone()))).await;
        let bearer = |token: &str| format!("Bearer {token}");
        let good = bearer(&fixture.token(&["notes:read"]).await);
        let wrong = with_wrong_secret(&good);
        let unknown = bearer(&unknown_token());
        let too_long = bearer(&"a".repeat(1_025));
        let old = bearer(&fixture.expired_token().await);
        let dead = bearer(&fixture.revoked_token().await);
        let asleep = bearer(&fixture.disabled_token().await);
        let cases: [(&str, &[&str], &Answer); 17] = [
            ("/", &[], &missing),
            ("/", &["Basic dTpw"], &missing),
            ("/", &[&good, &good], &bad_request),
            ("/", &["Bearer"], &bad_request),
            ("/", &["Bearer a\tb"], &bad_request),
            ("/", &["Bearer a,b"], &bad_request),
            ("/", &["Bearer pk.garbage"], &invalid),
            ("/", &["Bearer eyJhbGciOiJub25lIn0.e30."], &invalid),
            ("/", &[&too_long], &invalid),
            ("/", &[&unknown], &invalid),
            ("/", &[&wrong], &invalid),
            ("/", &[&old], &expired),
            ("/", &[&dead], &revoked),
            ("/", &[&asleep], &disabled),
            ("/write", &[&good], &no_scope),
            ("/outside", &[&good], &misconfigured),
            ("/outside", &[], &misconfigured),
        ];
        for (path, authorization, expected) in cases {
            let answer = ask(&client, &server.url(path), authorization).await;
            assert_eq!(answer, *expected, "{path} {authorization:?} {version:?}");
        }

        let unseen = bearer(&fixture.token(&[]).await);
        let whoami = server.url("/whoami");
        fixture.set_broken(true);
        assert_eq!(ask(&client, &whoami, &[&unseen]).await, unavailable);
        fixture.set_broken(false);
        let request = client.get(whoami).header("authorization", unseen);
        let recovered = request.send().await.unwrap();
        assert_eq!(recovered.status(), 200);
        assert_eq!(recovered.version(), version);
        assert_eq!(recovered.text().await.unwrap(), USER);
    }
}

type Mode = fn(ApiKeyLayer<ApiKeyStore>) -> ApiKeyLayer<ApiKeyStore>;

/// Each mode that lets some requests through without a key, and the one that doesn't.
const MODES: [Mode; 3] = [
    |layer| layer,
    ApiKeyLayer::optional,
    ApiKeyLayer::pass_foreign_tokens,
];

#[tokio::test]
async fn g3_a_store_that_cannot_answer_is_503_and_lets_nobody_in() {
    for (client, mode) in [http1(), http2()]
        .iter()
        .flat_map(|client| MODES.map(|mode| (client, mode)))
    {
        let fixture = Fixture::new().await;
        let let_in = Arc::new(AtomicUsize::new(0));
        let handler = {
            let let_in = let_in.clone();
            async move || {
                let_in.fetch_add(1, Ordering::SeqCst);
            }
        };
        let app = Router::new()
            .route("/", get(handler.clone()))
            .route(
                "/guarded",
                get(handler).route_layer(RequireScope("notes:read")),
            )
            .layer(mode(ApiKeyLayer::new(fixture.store.clone())));
        let server = Server::start(app).await;
        let good = fixture.token(&["notes:read"]).await;
        let tokens = [
            (with_wrong_secret(&good), 401),
            (unknown_token(), 401),
            (fixture.expired_token().await, 401),
            (fixture.revoked_token().await, 401),
            (fixture.disabled_token().await, 401),
            (good, 200),
        ];

        fixture.set_broken(true);
        for path in ["/", "/guarded"] {
            for (token, _) in &tokens {
                let answer = ask_with_token(client, &server.url(path), token).await;
                assert_eq!(answer.status, 503);
                assert_eq!(answer.header("retry-after"), Some("1"));
                assert_eq!(answer.header("www-authenticate"), None);
                assert!(answer.body.contains(r#""code":"unavailable""#));
            }
        }
        assert_eq!(let_in.load(Ordering::SeqCst), 0);

        // Nothing of the outage is remembered: neither "unknown" nor "unavailable".
        fixture.set_broken(false);
        for path in ["/", "/guarded"] {
            for (token, status) in &tokens {
                let answer = ask_with_token(client, &server.url(path), token).await;
                assert_eq!(answer.status, *status);
            }
        }
        assert_eq!(let_in.load(Ordering::SeqCst), 2);
    }
}

struct Unreadable;

impl KeySource for Unreadable {
    async fn get_many(&self, _: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        Err(BackendError::corrupt("a hash of 7 characters"))
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_503_and_not_an_unknown_key() {
    let resolver = CachedResolver::builder(Unreadable)
        .peppers(Peppers::new(Pepper::random("v1").unwrap()))
        .build()
        .await
        .unwrap();
    let app = Router::new().route("/", get(async || "in"));
    let server = Server::start(app.layer(ApiKeyLayer::new(resolver).optional())).await;
    let answer = ask_with_token(&http1(), &server.url("/"), &unknown_token()).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
}

#[tokio::test]
async fn g4_nothing_about_a_key_is_learnt_without_its_secret() {
    for (client, mode) in [http1(), http2()]
        .iter()
        .flat_map(|client| MODES.map(|mode| (client, mode)))
    {
        let fixture = Fixture::new().await;
        let server = Server::start(app(mode(ApiKeyLayer::new(fixture.store.clone())))).await;
        let deleted = fixture.token(&[]).await;
        assert!(fixture.store.delete(&id_of(&deleted)).await.unwrap());
        let holders = [
            fixture.token(&["notes:write"]).await,
            fixture.expired_token().await,
            fixture.revoked_token().await,
            fixture.disabled_token().await,
        ];
        let strangers = holders.iter().map(|token| with_wrong_secret(token));

        let mut answers = Vec::new();
        for token in strangers.chain([unknown_token(), deleted]) {
            let reads = fixture.backend.reads();
            answers.push(ask_with_token(client, &server.url("/write"), &token).await);
            // One look-up each, found or not.
            assert_eq!(fixture.backend.reads(), reads + 1);
        }
        assert_eq!(answers[0].status, 401);
        assert!(answers[0].body.contains(r#""code":"invalid_token""#));
        for answer in &answers {
            assert_eq!(*answer, answers[0]);
        }
        // Nor did anything that a stranger sent count as a use of the key.
        assert_eq!(fixture.backend.touches(), 0);
    }
}

#[tokio::test]
async fn a_realm_is_escaped_on_the_wire_and_guards_name_the_same_one() {
    let fixture = Fixture::new().await;
    let layer = ApiKeyLayer::new(fixture.store.clone()).realm(r#"the "notes" \ api"#);
    let server = Server::start(app(layer)).await;
    let reader = fixture.token(&["notes:read"]).await;
    let realm = r#"Bearer realm="the \"notes\" \\ api""#;
    for (path, token, rest) in [
        ("/", "x", r#", error="invalid_token""#),
        (
            "/write",
            &*reader,
            r#", error="insufficient_scope", scope="notes:write""#,
        ),
    ] {
        let answer = ask_with_token(&http1(), &server.url(path), token).await;
        assert_eq!(
            answer.header("www-authenticate"),
            Some(&*format!("{realm}{rest}"))
        );
    }
}

#[test]
#[should_panic(expected = "a realm is visible ASCII and spaces")]
fn a_realm_with_a_line_break_is_refused_when_the_layer_is_made() {
    let _ = ApiKeyLayer::new(ApiKeyStore::in_memory()).realm("notes\r\nset-cookie: a=b");
}

/// A replacement of one's own, with the challenge and a line of text.
struct Plain;

impl<B: From<String>> ResponseForRejection<B> for Plain {
    fn response_for_rejection(&self, rejection: Rejection) -> Response<B> {
        let mut response = Response::new(B::from(format!("no: {}", rejection.code())));
        *response.status_mut() = rejection.status();
        if let Some(challenge) = rejection.challenge() {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[tokio::test]
async fn a_replaced_rejection_is_what_the_layer_and_the_guards_behind_it_answer() {
    let fixture = Fixture::new().await;
    let layer = ApiKeyLayer::new(fixture.store.clone()).optional();
    let by_type = layer.clone().rejection_response(Plain);
    let by_closure = layer.rejection_response(|rejection: Rejection| -> Response<Body> {
        Plain.response_for_rejection(rejection)
    });
    let servers = [
        Server::start(app(by_type)).await,
        Server::start(app(by_closure)).await,
    ];
    let reader = format!("Bearer {}", fixture.token(&[]).await);
    let cases: [(&str, &[&str], u16, &str); 5] = [
        ("/", &["Bearer x"], 401, "no: invalid_token"),
        ("/", &["Bearer"], 400, "no: invalid_request"),
        ("/whoami", &[], 401, "no: missing_credentials"),
        ("/write", &[], 401, "no: missing_credentials"),
        ("/write", &[&reader], 403, "no: insufficient_scope"),
    ];
    for (server, client) in servers.iter().zip([http1(), http2()]) {
        for (path, authorization, status, body) in cases {
            let answer = ask(&client, &server.url(path), authorization).await;
            assert_eq!((answer.status, &*answer.body), (status, body));
            assert_eq!(answer.header("content-type"), None);
            assert!(answer.header("www-authenticate").is_some());
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
}

/// What an outer layer learns, in a header of the test's own.
async fn told(mut response: Response<Body>) -> Response<Body> {
    let Some(rejection) = response.extensions().get::<Rejection>() else {
        return response;
    };
    let why = match rejection.reason() {
        RejectionReason::Unavailable(error) => error.source().unwrap().to_string(),
        _ => rejection.code().to_owned(),
    };
    response.headers_mut().insert("x-why", why.parse().unwrap());
    response
}

#[tokio::test]
async fn a_layer_further_out_finds_the_rejection_in_the_extensions_of_the_response() {
    let fixture = Fixture::new().await;
    let layer = ApiKeyLayer::new(fixture.store.clone()).optional();
    let reader = fixture.token(&[]).await;
    let client = http1();
    let replaced = app(layer.clone().rejection_response(Plain));
    for app in [app(layer), replaced] {
        let server = Server::start(app.layer(map_response(told))).await;
        for (path, token, why) in [
            ("/", "x", Some("invalid_token")),
            ("/", &*reader, None),
            ("/write", &*reader, Some("insufficient_scope")),
            ("/outside", &*reader, Some("misconfigured")),
        ] {
            let answer = ask_with_token(&client, &server.url(path), token).await;
            assert_eq!(answer.header("x-why"), why, "{path}");
        }
        let answer = ask(&client, &server.url("/whoami"), &[]).await;
        assert_eq!(answer.header("x-why"), Some("missing_credentials"));

        fixture.set_broken(true);
        let answer = ask_with_token(&client, &server.url("/"), &reader).await;
        assert_eq!(answer.header("x-why"), Some("the cable was pulled"));
        assert!(!answer.body.contains("cable"));
        fixture.set_broken(false);
    }
}
