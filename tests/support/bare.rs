//! Requests and a service without a router, over any body.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_api_key::AuthContext;

pub fn request<B: Default>(token: Option<&str>) -> Request<B> {
    let mut request = Request::new(B::default());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    request
}

/// Answers with the name of the caller.
pub async fn whoami<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let caller = request.extensions().get::<AuthContext>();
    let name = caller.map_or("nobody", AuthContext::user_id).to_owned();
    Ok(Response::new(Full::from(name)))
}
