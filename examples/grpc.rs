//! A tonic server behind API keys, and a tonic client that calls it: `cargo run --example grpc`.
//!
//! It prints how each call ended, and ends. `ADDR` says where the server listens.

use std::{
    env,
    error::Error,
    io::{self, Write},
};

use tonic::{
    Request,
    metadata::AsciiMetadataValue,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, NewApiKey, RequireScope, Scopes};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let incoming = TcpIncoming::bind(addr.parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);

    let store = ApiKeyStore::in_memory();
    let reader = NewApiKey::for_user("user_1", Scopes::of(["health:check"])?);
    let reader = store.create(reader).await?.token().expose().to_owned();
    let other = NewApiKey::for_user("user_2", Scopes::of(["notes:read"])?);
    let other = store.create(other).await?.token().expose().to_owned();

    // The server's first layer is the outermost: the key is checked before the scope is asked for.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .layer(ApiKeyLayer::new(store).grpc())
        .layer(RequireScope("health:check"))
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));

    let channel = Channel::from_shared(url)?.connect().await?;
    let mut client = HealthClient::new(channel);
    let mut out = io::stdout();
    for (who, token) in [
        ("no key", None),
        ("wrong key", Some("pk.not-a-key")),
        ("key without the scope", Some(other.as_str())),
        ("reader", Some(reader.as_str())),
    ] {
        match client.check(request(token)?).await {
            Ok(answer) => writeln!(out, "{who}: {}", answer.get_ref().status().as_str_name())?,
            Err(status) => writeln!(out, "{who}: {:?}: {}", status.code(), status.message())?,
        }
    }
    Ok(())
}

fn request(token: Option<&str>) -> Result<Request<HealthCheckRequest>, Box<dyn Error>> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(token) = token {
        let mut bearer: AsciiMetadataValue = format!("Bearer {token}").parse()?;
        // Kept out of logs and of HTTP/2's header tables.
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
    }
    Ok(request)
}
