//! smoke
mod support;
use axum::{Router, routing::get};
use support::*;
use tower_api_key::*;
#[tokio::test]
async fn a_request_with_a_key_gets_in_over_both_versions_of_http() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["a"]).await;
    let app = Router::new()
        .route(
            "/",
            get(|auth: AuthContext| async move { auth.user_id().to_owned() }),
        )
        .layer(ApiKeyLayer::new(fixture.store.clone()));
    let server = Server::start(app).await;
    for client in [http1(), http2()] {
        let r = client
            .get(server.url("/"))
            .bearer_auth(&token)
            .send()
            .await
            .unwrap();
        assert_eq!(r.status(), 200);
        assert_eq!(r.text().await.unwrap(), "user_1");
        let r = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(r.status(), 401);
    }
}
