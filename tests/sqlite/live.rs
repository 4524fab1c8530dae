//! Streams and sockets end within a second of a revocation by another process, or another store, that works on the
//! same file: as in the example `live`, with real clients.

use std::{convert::Infallible, path::Path, time::Duration};

use axum::{
    Router,
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code::POLICY},
    },
    response::{IntoResponse, Sse, sse::Event},
    routing::{any, get},
};
use futures_util::{SinkExt, StreamExt, stream};
use tokio::{
    net::TcpStream,
    time::{Instant, interval, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message as ClientMessage, client::IntoClientRequest, http::header::AUTHORIZATION,
        protocol::frame::coding::CloseCode,
    },
};
use tower_api_key::{
    ApiKeyLayer, ApiKeyStore, AuthContext, CacheConfig, NewApiKey, Pepper, Peppers, Scopes,
    SqliteBackend,
};

use super::processes::Second;
use crate::{
    store,
    support::{PEPPER, Server, USER, folder::Folder, http1, id_of},
};

const SECOND: Duration = Duration::from_secs(1);
/// After which a stream is taken for one that goes on.
const PATIENCE: Duration = Duration::from_secs(30);

async fn events(auth: AuthContext) -> impl IntoResponse {
    let ticks = stream::unfold(interval(SECOND / 50), async |mut ticks| {
        ticks.tick().await;
        Some((Ok::<_, Infallible>(Event::default().data("tick")), ticks))
    });
    Sse::new(auth.until_revoked(ticks))
}

async fn echo(auth: AuthContext, upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(async move |mut socket| {
        tokio::select! {
            () = repeat(&mut socket) => {}
            () = auth.revoked() => {
                let reason = "the key has ended".into();
                let goodbye = CloseFrame { code: POLICY, reason };
                let _ = socket.send(Message::Close(Some(goodbye))).await;
            }
        }
    })
}

async fn repeat(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A server on the file, and a key.
async fn serve(path: &Path) -> (Server, String) {
    // So late that nothing but the poll can have told.
    let cache = CacheConfig::new().max_staleness(2 * PATIENCE);
    let builder = ApiKeyStore::builder(SqliteBackend::open(path).await.unwrap());
    let pepper = Pepper::new("v1", PEPPER).unwrap();
    let builder = builder.peppers(Peppers::new(pepper)).cache(cache);
    let store = builder.build().await.unwrap();
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = store.create(new).await.unwrap();
    let app = Router::new()
        .route("/events", get(events))
        .route("/echo", any(echo))
        .route_layer(ApiKeyLayer::new(store));
    let token = issued.token().expose().to_owned();
    (Server::start(app).await, token)
}

/// A stream and a socket that are open.
struct Clients {
    events: reqwest::Response,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Clients {
    async fn connect(server: &Server, token: &str) -> Self {
        let request = http1().get(server.url("/events")).bearer_auth(token);
        let mut events = request.send().await.unwrap();
        assert_eq!(events.status(), 200);
        for _ in 0..3 {
            let event = events.chunk().await.unwrap().unwrap();
            assert!(event.starts_with(b"data: tick"));
        }
        let url = server.url("/echo").replace("http", "ws");
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let (mut socket, _) = connect_async(request).await.unwrap();
        let said = ClientMessage::text("one");
        socket.send(said.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), said);
        Self { events, socket }
    }

    /// Both are closed, as clients see it, within a second of `revoked_at`.
    async fn end(mut self, revoked_at: Instant) {
        let stream = async {
            while let Some(_tick) = self.events.chunk().await.unwrap() {}
            revoked_at.elapsed()
        };
        let socket = async {
            let closed = self.socket.next().await.unwrap().unwrap();
            let ClientMessage::Close(Some(frame)) = closed else {
                panic!("no close frame")
            };
            assert_eq!(frame.code, CloseCode::Policy);
            revoked_at.elapsed()
        };
        let both = timeout(PATIENCE, async { tokio::join!(stream, socket) });
        let (stream, socket) = both.await.expect("they go on");
        assert!(stream < SECOND && socket < SECOND, "{stream:?} {socket:?}");
    }
}

#[tokio::test]
async fn g2_streams_and_sockets_end_within_a_second_of_a_revocation_by_another_process() {
    let folder = Folder::new("sqlite-live-process");
    let path = folder.join("keys.db");
    let (server, token) = serve(&path).await;
    let mut second = Second::that_revokes(&path);
    let clients = Clients::connect(&server, &token).await;
    assert_eq!(second.ask(&token), "revoked");
    clients.end(Instant::now()).await;
    let request = http1().get(server.url("/events")).bearer_auth(&token);
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn g2_streams_and_sockets_end_within_a_second_of_what_another_store_of_the_file_ends() {
    let folder = Folder::new("sqlite-live-store");
    let path = folder.join("keys.db");
    let other = store(SqliteBackend::open(&path).await.unwrap()).await;
    for way in 0..3 {
        let (server, token) = serve(&path).await;
        let clients = Clients::connect(&server, &token).await;
        let id = id_of(&token);
        assert!(match way {
            0 => other.revoke(&id).await.unwrap(),
            1 => other.disable(&id).await.unwrap(),
            _ => other.delete(&id).await.unwrap(),
        });
        clients.end(Instant::now()).await;
    }
}
