//! API keys beside another kind of token, and visitors without any.
//!
//! The API key layer is outermost. It checks its own tokens, `pk.…`, and passes others on, and
//! requests without one, too. The layer behind it checks session tokens. Which of them it was, a
//! handler sees in the enum that it takes.
//!
//! `cargo run --example optional_auth` prints a token of each kind. `ADDR` names another address.
//!
//! ```sh
//! curl http://127.0.0.1:3000/whoami                                        # anonymous
//! curl http://127.0.0.1:3000/whoami -H "Authorization: Bearer $KEY"        # a key of user_1
//! curl http://127.0.0.1:3000/whoami -H "Authorization: Bearer $SESSION"    # a session of user_2
//! curl -i http://127.0.0.1:3000/whoami -H "Authorization: Bearer ${KEY}x"  # 401, by the key layer
//! curl -i http://127.0.0.1:3000/whoami -H "Authorization: Bearer eyJ.x.y"  # 401, by the session layer
//! curl -i http://127.0.0.1:3000/export -H "Authorization: Bearer $SESSION" # 401: for keys alone
//! ```

#[path = "support/server.rs"]
mod server;

use std::{collections::HashMap, error::Error, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
        request::Parts,
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use rand::{TryRng, rngs::SysRng};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, AuthContext, NewApiKey, RequireScope, Scopes};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = server::listen().await?;

    let store = ApiKeyStore::in_memory();
    let key = NewApiKey::for_user("user_1", Scopes::of(["notes:export"])?);
    println!("key: {}", store.create(key).await?.token().expose());
    let token = new_session_token()?;
    println!("session: {token}");
    let sessions = Sessions::from([(token.into_bytes(), Session("user_2".to_owned()))]);

    // A layer that is added later is further out, and sees a request earlier.
    let app = Router::new()
        .route("/whoami", get(whoami))
        .route(
            "/export",
            get(async || "all of it\n").layer(RequireScope("notes:export")),
        )
        .route_layer(middleware::from_fn_with_state(
            Arc::new(sessions),
            check_session,
        ))
        .route_layer(ApiKeyLayer::new(store).optional().pass_foreign_tokens());
    server::serve(listener, app).await?;
    Ok(())
}

async fn whoami(caller: Caller) -> String {
    match caller {
        Caller::Key(auth) => format!("{} of {}\n", auth.key_id(), auth.user_id()),
        Caller::Session(Session(user)) => format!("a session of {user}\n"),
        Caller::Anonymous => "anonymous\n".to_owned(),
    }
}

/// Who a request is from.
enum Caller {
    Key(AuthContext),
    Session(Session),
    Anonymous,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        // An error where no `ApiKeyLayer` has seen the request: then nobody knows who it is from.
        let key = Option::<AuthContext>::from_request_parts(parts, state).await?;
        let session = parts.extensions.get().cloned();
        Ok(key
            .map(Caller::Key)
            .or(session.map(Caller::Session))
            .unwrap_or(Caller::Anonymous))
    }
}

/// A stand-in for what checks your sessions or JWTs. It keeps whole tokens and finds them by a
/// look-up whose time depends on them; don't take that over.
type Sessions = HashMap<Vec<u8>, Session>;

#[derive(Clone)]
struct Session(String);

/// Nobody else looks at the tokens that the API key layer passes on: what isn't a session is turned
/// away here, or a made-up token would pass for no token.
async fn check_session(
    State(sessions): State<Arc<Sessions>>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().remove::<Session>();
    let has_key = request.extensions().get::<AuthContext>().is_some();
    if let Some(token) = bearer(request.headers())
        && !has_key
    {
        let Some(session) = sessions.get(token) else {
            let challenge = r#"Bearer realm="api", error="invalid_token""#;
            return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
        };
        request.extensions_mut().insert(session.clone());
    }
    next.run(request).await
}

/// Bytes and not text: a token that isn't text is a token all the same. The key layer has refused
/// requests with two `Authorization` headers, and control characters.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii_start())
}

fn new_session_token() -> Result<String, Box<dyn Error>> {
    let mut random = [0; 16];
    SysRng.try_fill_bytes(&mut random)?;
    Ok(format!("sess_{:032x}", u128::from_be_bytes(random)))
}
