//! What a tonic client sees of a tonic server behind the layer, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

use std::net::SocketAddr;

use axum::Router;
use http::{HeaderMap, Version};
use tokio::task::JoinHandle;
use tonic::{
    Code, Request, Response, Status,
    service::{LayerExt, Routes},
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, HealthCheckResponse,
        health_check_response::ServingStatus::{NotServing, Serving},
        health_client::HealthClient,
        health_server::{Health, HealthServer},
    },
    server::{HealthReporter, HealthService},
};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext, GrpcResponse, RequireScope};

use support::{Fixture, USER, unknown_token, with_wrong_secret};

const SCOPE: &str = "health:check";
const NOT_VALID: &str = "The API key is not valid.";
const REQUIRED: &str = "An API key is required.";
const LACKS_A_SCOPE: &str = "The API key lacks a scope that is required here.";

#[tokio::test]
async fn calls_without_a_good_key_are_unauthenticated_and_say_why() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let wrong = with_wrong_secret(&fixture.token(&[SCOPE]).await);
    let mut cases = vec![(None, REQUIRED), (Some("Basic dTpw".to_owned()), REQUIRED)];
    for (token, message) in [
        ("pk.nonsense".to_owned(), NOT_VALID),
        (unknown_token(), NOT_VALID),
        (wrong, NOT_VALID),
        (fixture.expired_token().await, "The API key has expired."),
        (fixture.revoked_token().await, "The API key was revoked."),
        (fixture.disabled_token().await, "The API key is disabled."),
    ] {
        cases.push((Some(format!("Bearer {token}")), message));
    }
    for (authorization, message) in cases {
        let mut client = server.client("/open").await;
        let unary = client.check(call(authorization.as_deref())).await;
        let streaming = client.watch(call(authorization.as_deref())).await;
        for status in [unary.unwrap_err(), streaming.unwrap_err()] {
            assert_status(&status, Code::Unauthenticated, message);
        }
    }
}

#[tokio::test]
async fn an_unknown_key_and_a_wrong_secret_get_the_same_status() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let known = fixture.token(&[SCOPE]).await;
    let revoked = fixture.revoked_token().await;
    let unknown = server.check("", &unknown_token()).await.unwrap_err();
    for token in [&known, &revoked] {
        let wrong = server.check("", &with_wrong_secret(token)).await;
        assert_eq!(told(&wrong.unwrap_err()), told(&unknown));
    }
}

#[tokio::test]
async fn a_guard_on_one_of_two_services_denies_permission_there_alone() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let reader = fixture.token(&[SCOPE]).await;
    let other = fixture.token(&["notes:read"]).await;

    let status = server.check("", &other).await.unwrap_err();
    assert_status(&status, Code::PermissionDenied, LACKS_A_SCOPE);
    let watch = server.client("").await.watch(with_key(&other)).await;
    assert_status(&watch.unwrap_err(), Code::PermissionDenied, LACKS_A_SCOPE);

    server.check("/open", &other).await.unwrap();
    server.check("", &reader).await.unwrap();
}

#[tokio::test]
async fn an_outage_is_unavailable_for_every_key_and_passes() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let token = fixture.token(&[SCOPE]).await;

    fixture.set_broken(true);
    for token in [&token, &with_wrong_secret(&token), &unknown_token()] {
        let status = server.check("", token).await.unwrap_err();
        let message = "API keys can't be checked at the moment. Try again.";
        assert_status(&status, Code::Unavailable, message);
    }
    fixture.set_broken(false);

    server.check("", &token).await.unwrap();
    let unknown = server.check("", &unknown_token()).await.unwrap_err();
    assert_status(&unknown, Code::Unauthenticated, NOT_VALID);
}

#[tokio::test]
async fn two_authorization_entries_are_an_invalid_argument_even_if_both_are_good() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let token = fixture.token(&[SCOPE]).await;
    for second in [token.clone(), unknown_token()] {
        let mut request = with_key(&token);
        let second = format!("Bearer {second}").parse().unwrap();
        request.metadata_mut().append("authorization", second);
        let status = server.client("").await.check(request).await.unwrap_err();
        let message = "Send exactly one API key, in the form that is asked for.";
        assert_status(&status, Code::InvalidArgument, message);
    }
}

#[tokio::test]
async fn a_guard_without_a_layer_is_an_internal_error() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[SCOPE]).await;
    let server = Grpc::serve(|incoming, reporter| {
        Server::builder()
            .add_routes(services(&reporter))
            .serve_with_incoming(incoming)
    });
    let status = server.check("", &token).await.unwrap_err();
    let message = "This route checks API keys, but nothing reads them.";
    assert_status(&status, Code::Internal, message);
}

#[tokio::test]
async fn the_right_key_opens_unary_and_streaming_calls_and_handlers_see_the_caller() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let token = fixture.token(&[SCOPE]).await;

    let answer = server.check("", &token).await.unwrap();
    assert_eq!(user(&answer), Some(USER));
    assert_eq!(answer.get_ref().status(), Serving);

    let answer = server.client("").await.watch(with_key(&token)).await;
    let answer = answer.unwrap();
    assert_eq!(user(&answer), Some(USER));
    let mut stream = answer.into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.status(), Serving);
    let stopped = ServingStatus::NotServing;
    server.reporter.set_service_status("", stopped).await;
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.status(), NotServing);
}

#[tokio::test]
async fn an_optional_layer_passes_anonymous_calls_to_what_is_not_guarded() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture).optional());
    let token = fixture.token(&[SCOPE]).await;

    let mut open = server.client("/open").await;
    assert_eq!(user(&open.check(call(None)).await.unwrap()), None);
    let known = server.check("/open", &token).await.unwrap();
    assert_eq!(user(&known), Some(USER));
    let bad = server.check("/open", &unknown_token()).await.unwrap_err();
    assert_status(&bad, Code::Unauthenticated, NOT_VALID);

    let mut guarded = server.client("").await;
    let status = guarded.check(call(None)).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, REQUIRED);
}

#[tokio::test]
async fn a_layer_on_one_service_leaves_the_other_open() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let layer = layer(&fixture);
    let server = Grpc::serve(|incoming, reporter| {
        let keyed = Routes::new(layer.named_layer(whoami(&reporter))).into_axum_router();
        let routes = keyed.nest_service("/open", whoami(&reporter));
        Server::builder()
            .add_routes(routes.into())
            .serve_with_incoming(incoming)
    });
    let status = server.client("").await.check(call(None)).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, REQUIRED);
    let keyed = server.check("", &token).await.unwrap();
    assert_eq!(user(&keyed), Some(USER));
    let open = server.check("/open", &token).await.unwrap();
    assert_eq!(user(&open), None);
}

#[tokio::test]
async fn rejections_are_trailers_only() {
    let fixture = Fixture::new().await;
    let server = Grpc::behind(layer(&fixture));
    let token = fixture.token(&[]).await;
    for (authorization, status, message) in [
        ("Basic dTpw".to_owned(), "16", REQUIRED),
        (format!("Bearer {}", unknown_token()), "16", NOT_VALID),
        (format!("Bearer {token}"), "7", LACKS_A_SCOPE),
    ] {
        let headers = server.raw(&authorization).await;
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(headers["grpc-status"], status);
        assert_eq!(headers["grpc-message"], message);
    }
}

/// axum's routes have another body than tonic's server, so the layer's own body can't be used.
#[tokio::test]
async fn a_guard_inside_an_axum_router_on_a_tonic_server_answers_as_grpc() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let layer = layer(&fixture);
    let server = Grpc::serve(|incoming, reporter| {
        let routes = Routes::new(whoami(&reporter)).into_axum_router();
        let routes: Router = routes.route_layer(RequireScope(SCOPE));
        Server::builder()
            .layer(layer)
            .add_routes(routes.into())
            .serve_with_incoming(incoming)
    });
    let headers = server.raw(&format!("Bearer {token}")).await;
    assert_eq!(headers["grpc-status"], "7");
    assert_eq!(headers["content-type"], "application/grpc");
}

fn layer(fixture: &Fixture) -> ApiKeyLayer<ApiKeyStore, GrpcResponse> {
    ApiKeyLayer::new(fixture.store.clone()).grpc()
}

/// The health service twice: where clients expect it, guarded, and under `/open`.
fn services(reporter: &HealthReporter) -> Routes {
    let guarded = RequireScope(SCOPE).named_layer(whoami(reporter));
    Routes::new(guarded)
        .into_axum_router()
        .nest_service("/open", whoami(reporter))
        .into()
}

fn whoami(reporter: &HealthReporter) -> HealthServer<Whoami> {
    let health = HealthService::from_health_reporter(reporter.clone());
    HealthServer::new(Whoami(health))
}

/// The health service, which names the caller in the answer's metadata.
struct Whoami(HealthService);

#[tonic::async_trait]
impl Health for Whoami {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let caller = request.extensions().get().cloned();
        Ok(naming(caller, self.0.check(request).await?))
    }

    type WatchStream = <HealthService as Health>::WatchStream;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = request.extensions().get().cloned();
        Ok(naming(caller, self.0.watch(request).await?))
    }
}

fn naming<T>(caller: Option<AuthContext>, mut response: Response<T>) -> Response<T> {
    if let Some(caller) = caller {
        let user = caller.user_id().parse().unwrap();
        response.metadata_mut().insert("x-user", user);
    }
    response
}

/// Who the handler saw.
fn user<T>(answer: &Response<T>) -> Option<&str> {
    let user = answer.metadata().get("x-user")?;
    Some(user.to_str().unwrap())
}

/// All that a client learns from a status, but for when it came.
fn told(status: &Status) -> (Code, String, HeaderMap) {
    let mut metadata = status.metadata().clone().into_headers();
    metadata.remove("date");
    (status.code(), status.message().to_owned(), metadata)
}

fn call(authorization: Option<&str>) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(value) = authorization {
        let value = value.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn with_key(token: &str) -> Request<HealthCheckRequest> {
    call(Some(&format!("Bearer {token}")))
}

#[track_caller]
fn assert_status(status: &Status, code: Code, message: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
}

/// A tonic server on a free port of the loopback, which ends when it is dropped.
struct Grpc {
    addr: SocketAddr,
    reporter: HealthReporter,
    task: JoinHandle<()>,
}

impl Grpc {
    /// Both services behind `layer`.
    fn behind(layer: ApiKeyLayer<ApiKeyStore, GrpcResponse>) -> Self {
        Self::serve(|incoming, reporter| {
            Server::builder()
                .layer(layer)
                .add_routes(services(&reporter))
                .serve_with_incoming(incoming)
        })
    }

    fn serve<S>(server: impl FnOnce(TcpIncoming, HealthReporter) -> S) -> Self
    where
        S: Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    {
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr = incoming.local_addr().unwrap();
        let reporter = HealthReporter::new();
        let serving = server(incoming, reporter.clone());
        Self {
            addr,
            reporter,
            task: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    async fn client(&self, path: &str) -> HealthClient<Channel> {
        let url = format!("http://{}{path}", self.addr);
        let channel = Channel::from_shared(url.clone()).unwrap();
        HealthClient::with_origin(channel.connect().await.unwrap(), url.parse().unwrap())
    }

    async fn check(
        &self,
        path: &str,
        token: &str,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.client(path).await.check(with_key(token)).await
    }

    /// The headers of the rejection of a call that no gRPC library made. All else about it is as
    /// gRPC's "trailers-only" has it.
    async fn raw(&self, authorization: &str) -> HeaderMap {
        let url = format!("http://{}/grpc.health.v1.Health/Check", self.addr);
        let request = support::http2()
            .post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", authorization)
            // An empty message: not compressed, no bytes.
            .body(vec![0; 5]);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.version(), Version::HTTP_2);
        // The stream ended with the headers.
        assert_eq!(response.content_length(), Some(0));
        let headers = response.headers().clone();
        assert!(response.bytes().await.unwrap().is_empty());
        headers
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}
