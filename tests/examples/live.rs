//! Streams end with their key, as clients see it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{
        Message, client::IntoClientRequest, http::header::AUTHORIZATION,
        protocol::frame::coding::CloseCode,
    },
};

use crate::support::process::ExampleProcess;

const SECOND: Duration = Duration::from_secs(1);

async fn revoke(example: &ExampleProcess, key: &str) -> Instant {
    let request = example.request(Method::DELETE, "/key", Some(key));
    assert_eq!(request.send().await.unwrap().status(), 204);
    Instant::now()
}

#[tokio::test]
async fn a_stream_of_events_ends_within_a_second_of_the_revocation_of_its_key() {
    let example = ExampleProcess::start("live", &[]);
    let key = example.value("key");
    assert_eq!(example.get("/events", None).await.0, 401);
    let request = example.request(Method::GET, "/events", Some(&key));
    let mut events = request.send().await.unwrap();
    assert_eq!(events.status(), 200);
    for _ in 0..3 {
        let event = events.chunk().await.unwrap().unwrap();
        assert_eq!(event, "data: tick\n\n");
    }
    let revoked_at = revoke(&example, &key).await;
    let rest = async { while let Some(_tick) = events.chunk().await.unwrap() {} };
    timeout(10 * SECOND, rest).await.expect("it goes on");
    assert!(revoked_at.elapsed() < SECOND, "{:?}", revoked_at.elapsed());
    assert_eq!(example.get("/events", Some(&key)).await.0, 401);
    example.stop();
}

#[tokio::test]
async fn a_web_socket_is_closed_within_a_second_of_the_revocation_of_its_key() {
    let example = ExampleProcess::start("live", &[]);
    let key = example.value("key");
    let url = format!("{}/echo", example.url().replace("http", "ws"));
    assert!(connect_async(&url).await.is_err(), "without a key");
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, bearer);
    let (mut socket, _) = connect_async(request).await.unwrap();
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let revoked_at = revoke(&example, &key).await;
    let closed = timeout(10 * SECOND, socket.next())
        .await
        .expect("it is open");
    let Message::Close(Some(frame)) = closed.unwrap().unwrap() else {
        panic!("no close frame")
    };
    assert_eq!(frame.code, CloseCode::Policy);
    assert!(revoked_at.elapsed() < SECOND, "{:?}", revoked_at.elapsed());
    assert!(
        timeout(10 * SECOND, socket.next())
            .await
            .unwrap()
            .is_none_or(|end| end.is_err())
    );
    example.stop();
}
