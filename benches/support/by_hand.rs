//! What an application has that checks keys itself: records under a lock, by key id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hmac::{Hmac, KeyInit, Mac};
use http::{StatusCode, header::AUTHORIZATION};
use sha2::Sha256;
use tower_api_key::ApiKeyToken;

/// What `middleware` looks keys up in.
#[derive(Clone)]
pub struct ByHand(Arc<Mutex<HashMap<String, Record>>>);

#[derive(Clone)]
struct Record {
    hash: Vec<u8>,
    user_id: String,
}

#[derive(Clone)]
struct CurrentUser(#[expect(dead_code, reason = "a handler would read it")] String);

impl ByHand {
    pub fn with(token: &ApiKeyToken) -> Self {
        let (id, secret) = parts(token.expose()).unwrap_or_default();
        let record = Record {
            hash: keyed(secret).finalize().into_bytes().to_vec(),
            user_id: "user_1".to_owned(),
        };
        Self(Arc::new(Mutex::new(HashMap::from([(
            id.to_owned(),
            record,
        )]))))
    }

    fn user_of(&self, token: &str) -> Option<CurrentUser> {
        let (id, secret) = parts(token)?;
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(id).cloned()?;
        drop(records);
        keyed(secret).verify_slice(&record.hash).ok()?;
        Some(CurrentUser(record.user_id))
    }
}

/// For `axum::middleware::from_fn_with_state`.
pub async fn middleware(State(keys): State<ByHand>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION);
    let user = header
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .and_then(|token| keys.user_of(token));
    match user {
        Some(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// Id and secret of a token.
fn parts(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix("pk.")?.split_once('.')
}

/// HMAC-SHA256 of a secret, keyed anew as it is in code that keeps the pepper as bytes.
fn keyed(secret: &str) -> Hmac<Sha256> {
    const PEPPER: &[u8] = b"32 bytes of a pepper for a bench";
    let mut mac = Hmac::new_from_slice(PEPPER).expect("HMAC takes keys of any length");
    mac.update(secret.as_bytes());
    mac
}
