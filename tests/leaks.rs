//! Canaries: no secret, pepper or hash turns up in what the crate shows, logs or answers.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

#[path = "leaks/canaries.rs"]
mod canaries;
#[path = "leaks/handoff.rs"]
mod handoff;
#[path = "leaks/opaque.rs"]
mod opaque;
mod support;

use std::{error::Error, fmt::Debug, io};

use axum::{
    Router,
    body::Body,
    http::{HeaderName, Request, Response, header::AUTHORIZATION},
    routing::get,
};
use canaries::{Canaries, Log, debug, shown};
use support::{
    Fixture, PEPPER, Server, USER, folder::Folder, http1, http2, id_of, unknown_token,
    with_wrong_secret,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyLayer, ApiKeyStore, ApiKeyToken, AuthContext, CacheConfig,
    CachedResolver, Change, Cursor, KeyId, MemoryBackend, NewApiKey, PageRequest, Pepper, PepperId,
    Peppers, RequireScope, Scopes, SecretHash, StoreError, TokenFormat, Touch,
};

#[tokio::test]
async fn no_debug_text_has_a_secret() {
    let fixture = Fixture::new().await;
    let pepper = Pepper::new("v1", PEPPER).unwrap();
    let retired = Pepper::weak_for_import("v0", "weak canary").unwrap();
    let peppers = Peppers::new(pepper.clone()).with_retired(retired).unwrap();
    let new = NewApiKey::for_user(USER, Scopes::of(["notes:read"]).unwrap()).name("CI");
    let issued = fixture.store.create(new.clone()).await.unwrap();
    let token = issued.token();
    let (key, text) = (issued.key(), token.expose().to_owned());
    let context = fixture.store.verify(&text).await.unwrap();
    let layer = ApiKeyLayer::new(fixture.store.clone());
    let mut service = layer.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, io::Error>(Response::new(Body::empty()))
    }));
    let request = Request::get("/").header(AUTHORIZATION, format!("Bearer {text}"));
    let future = service.call(request.body(Body::empty()).unwrap());
    let memory = MemoryBackend::new();
    assert!(memory.insert(key).await.unwrap());
    let builder = || ApiKeyStore::builder(MemoryBackend::new()).peppers(peppers.clone());
    let resolver = CachedResolver::builder(MemoryBackend::new()).peppers(peppers.clone());
    let page = fixture.store.list_for_user(USER, PageRequest::new());

    let values: &[(&str, &dyn Debug)] = &[
        ("token", token),
        ("id", &token.key_id().unwrap()),
        ("look-up key", &token.lookup_key()),
        ("prefix", &token.display_prefix()),
        ("hash", &key.secret_hash),
        ("pepper", &pepper),
        ("peppers", &peppers),
        ("ephemeral peppers", &Peppers::ephemeral()),
        ("issued", &issued),
        ("key", key),
        ("new", &new),
        ("context", &context),
        ("page", &page.await.unwrap()),
        ("cursor", &Cursor::of(key)),
        ("change", &Change::Key(token.lookup_key())),
        (
            "touch",
            &Touch::new(token.key_id().unwrap(), key.created_at),
        ),
        ("cache", &CacheConfig::new()),
        ("stats", &fixture.store.cache_stats()),
        ("memory", &memory),
        ("store", &fixture.store),
        ("events", &fixture.store.events()),
        ("store's builder", &builder()),
        ("built store", &builder().build().await.unwrap()),
        ("resolver's builder", &resolver),
        ("resolver", &resolver_of(&peppers).await),
        ("layer", &layer),
        ("service", &service),
        ("future", &future),
        ("guard", &RequireScope("notes:read").layer(())),
    ];
    let mut canaries = Canaries::new(&[text]);
    canaries.0.push("weak canary".to_owned());
    for (name, value) in values {
        canaries.assert_absent(name, &debug(value));
    }
    assert_eq!(future.await.unwrap().status(), 200);
    let shown = [
        token.key_id().unwrap().to_string(),
        token.display_prefix().to_string(),
    ];
    canaries.assert_absent("Display", &shown.concat());
}

async fn resolver_of(peppers: &Peppers) -> CachedResolver {
    let builder = CachedResolver::builder(MemoryBackend::new()).peppers(peppers.clone());
    builder.build().await.unwrap()
}

#[tokio::test]
async fn no_error_repeats_the_token_it_is_about() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&[]).await;
    let secret = token.rsplit('.').next().unwrap();
    let ended = [
        fixture.expired_token().await,
        fixture.revoked_token().await,
        fixture.disabled_token().await,
    ];
    let mut errors: Vec<Box<dyn Error>> = vec![
        Box::new(format!("{token}x").parse::<ApiKeyToken>().unwrap_err()),
        Box::new(TokenFormat::default().parse(secret).unwrap_err()),
        Box::new(token.parse::<KeyId>().unwrap_err()),
        Box::new(format!("key_{secret}").parse::<KeyId>().unwrap_err()),
        Box::new(token.parse::<Cursor>().unwrap_err()),
        Box::new(SecretHash::from_hex(PepperId::new("v1").unwrap(), secret).unwrap_err()),
        Box::new(Pepper::new("v1", &PEPPER[..15]).unwrap_err()),
    ];
    let presented = [
        with_wrong_secret(&token),
        unknown_token(),
        format!("{token}x"),
    ];
    for token in presented.iter().chain(&ended) {
        errors.push(Box::new(fixture.store.verify(token).await.unwrap_err()));
    }
    fixture.set_broken(true);
    errors.push(Box::new(fixture.store.verify(&token).await.unwrap_err()));
    errors.push(Box::new(fixture.store.is_active(&token).await.unwrap_err()));
    errors.push(Box::new(
        fixture.store.revoke_token(&token).await.unwrap_err(),
    ));
    let mut canaries = Canaries::new(&[token, with_wrong_secret(&unknown_token())]);
    canaries.0.extend(
        ended
            .iter()
            .flat_map(|token| Canaries::new(std::slice::from_ref(token)).0),
    );
    canaries.0.push(PEPPER[..15].to_owned());
    for error in errors {
        canaries.assert_absent("an error", &shown(&*error));
    }
}

#[test]
fn a_pepper_given_in_the_place_of_its_name_is_not_repeated() {
    let errors = [
        Pepper::new(PEPPER, "v1").unwrap_err(),
        Pepper::weak_for_import(PEPPER, "v1").unwrap_err(),
        Pepper::random(PEPPER).unwrap_err(),
        PepperId::new(PEPPER).unwrap_err(),
        Pepper::from_env("v1", PEPPER).unwrap_err(),
    ];
    for error in errors {
        Canaries::new(&[]).assert_absent("the error", &shown(&error));
    }
}

#[test]
fn a_pepper_file_that_is_not_hex_is_not_repeated() {
    let folder = Folder::new("not_hex");
    let path = folder.join("pepper");
    std::fs::write(&path, PEPPER).unwrap();
    let error = Pepper::from_file("v1", &path).unwrap_err();
    Canaries::new(&[]).assert_absent("the error", &shown(&error));
}

#[tokio::test]
async fn g7_no_event_shows_a_secret_or_what_a_key_is_called() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let mut events = store.events();
    let new = NewApiKey::for_user(USER, Scopes::none()).name("the name of a canary");
    let issued = store.create(new).await.unwrap();
    let (token, id) = (issued.token().expose(), issued.key().id);
    let wrong = with_wrong_secret(token);
    let update = tower_api_key::KeyUpdate::new().name("another name of a canary");
    store.update(&id, update).await.unwrap();
    store.verify(&wrong).await.unwrap_err();
    store.disable(&id).await.unwrap();
    store.verify(token).await.unwrap_err();
    store.enable(&id).await.unwrap();
    store.report_leaked([token]).await.unwrap();
    store.delete(&id).await.unwrap();
    fixture.set_broken(true);
    store.verify(token).await.unwrap_err();
    let mut canaries = Canaries::new(&[token.to_owned(), wrong]);
    canaries.0.push("canary".to_owned());
    for _ in 0..9 {
        let event = events.next().await.unwrap();
        let shown = format!("{event}\n{}", debug(&event));
        assert!(shown.contains(&id.to_string()), "{shown}");
        canaries.assert_absent("an event", &shown);
    }
}

const NOT_NOTED: &str = "the last uses of API keys were not noted";

fn app(store: &ApiKeyStore) -> Router {
    let layer = ApiKeyLayer::new(store.clone());
    let keyed = HeaderName::from_static("x-api-key");
    let named = tower_api_key::CredentialHeader::named(keyed);
    // A handler that logs all it has.
    let show = |request: Request<Body>| async move {
        let auth = request.extensions().get::<AuthContext>();
        tracing::info!(?request, ?auth, "handled");
        "shown"
    };
    let admin = get(show).route_layer(RequireScope("admin"));
    let open = Router::new()
        .route("/open", get(show))
        .route("/admin", admin);
    Router::new()
        .merge(open.route_layer(layer.clone()))
        .route(
            "/named",
            get(show).route_layer(layer.clone().credential_headers([named])),
        )
        .route(
            "/foreign",
            get(show).route_layer(layer.pass_foreign_tokens()),
        )
        .route("/unguarded", get(show).route_layer(RequireScope("admin")))
}

async fn ask(client: &reqwest::Client, url: String, name: HeaderName, text: &str) -> (u16, String) {
    let response = client.get(url).header(name, text).send().await.unwrap();
    let status = response.status().as_u16();
    let head = format!("{:?} {:?}", response.version(), response.headers());
    (
        status,
        format!("{head}\n{}", response.text().await.unwrap()),
    )
}

#[tokio::test]
async fn g7_no_secret_or_pepper_is_ever_shown() {
    let log = Log::install();
    let fixture = Fixture::new().await;
    let server = Server::start(app(&fixture.store)).await;
    let good = fixture.token(&["notes:read"]).await;
    let stored = fixture.store.get(&id_of(&good)).await.unwrap().unwrap();
    let canaries = Canaries::new(std::slice::from_ref(&good));
    assert!(canaries.0.contains(&stored.secret_hash.to_hex()));
    let wrong = with_wrong_secret(&good);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOiJmb3JlaWduIn0.c2lnbmVkYnlzb21lYm9keWVsc2U";
    let [expired, revoked, disabled] = [
        fixture.expired_token().await,
        fixture.revoked_token().await,
        fixture.disabled_token().await,
    ];
    let bearer = |token: &str| (AUTHORIZATION, format!("Bearer {token}"));
    let named = (HeaderName::from_static("x-api-key"), good.clone());
    let cases = [
        ("/open", bearer(&good), 200),
        ("/named", named, 200),
        ("/foreign", bearer(jwt), 200),
        ("/open", bearer(&wrong), 401),
        ("/open", bearer(&unknown_token()), 401),
        ("/open", bearer(&expired), 401),
        ("/open", bearer(&revoked), 401),
        ("/open", bearer(&disabled), 401),
        ("/open", bearer(&format!("{good}x")), 401),
        ("/foreign", bearer(&format!("{good}x")), 401),
        ("/open", bearer(&format!("{good},{good}")), 400),
        ("/open", bearer(jwt), 401),
        ("/admin", bearer(&good), 403),
        ("/unguarded", bearer(&good), 500),
        ("/nowhere", bearer(&good), 404),
    ];
    let tokens = [
        good.clone(),
        wrong,
        unknown_token(),
        expired,
        revoked,
        disabled,
    ];
    let mut canaries = Canaries::new(&tokens);
    canaries.0.push(jwt.to_owned());
    for (version, client) in [("HTTP/1.1", http1()), ("HTTP/2.0", http2())] {
        for (path, (name, text), expected) in &cases {
            let (status, seen) = ask(&client, server.url(path), name.clone(), text).await;
            assert_eq!(status, *expected, "{path} {seen}");
            assert!(seen.starts_with(version), "{seen}");
            canaries.assert_absent("a response", &seen);
        }
        fixture.backend.set_touches_broken(true);
        fixture.clock.advance(std::time::Duration::from_secs(61));
        let (name, text) = bearer(&good);
        let (status, _) = ask(&client, server.url("/open"), name.clone(), &text).await;
        assert_eq!(status, 200);
        fixture.set_broken(true);
        let (status, seen) = ask(&client, server.url("/open"), name, &text).await;
        assert_eq!(status, 503);
        canaries.assert_absent("a response", &seen);
        fixture.set_broken(false);
    }
    let error = fixture.store.shutdown().await.unwrap_err();
    canaries.assert_absent("an error", &shown(&error));
    let log = log.text();
    canaries.assert_absent("the log", &log);
    assert!(
        log.contains("handled") && log.contains("Sensitive"),
        "{log}"
    );
    if cfg!(feature = "tracing") {
        let id = id_of(&good).to_string();
        for (event, field) in [
            ("an API key was not accepted", &*id),
            ("API keys can't be checked", "the cable was pulled"),
            (NOT_NOTED, "the cable was pulled"),
            (NOT_NOTED, "keys=1 "),
        ] {
            let told = |line: &str| line.contains(event) && line.contains(field);
            assert!(log.lines().any(told), "{event}: {field}\n{log}");
        }
        assert!(log.contains("a request was rejected"));
        assert!(log.contains("a guard ran on a request that no `ApiKeyLayer` has seen"));
    }
}

#[tokio::test]
async fn a_name_cannot_forge_a_log_line() {
    let forged = "CI\n2026-01-01T00:00:00Z  INFO forged\r\u{1b}[31m\u{2028}";
    let log = Log::install();
    let fixture = Fixture::new().await;
    let new = NewApiKey::for_user(USER, Scopes::none());
    let error = fixture
        .store
        .create(new.clone().name(forged))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::InvalidKey(_)));
    assert!(!shown(&error).contains("forged"));

    // A record that came into the database by another way.
    let issued = fixture.store.create(new).await.unwrap();
    let mut key: ApiKey = issued.key().clone();
    (key.name, key.user_id, key.version) = (Some(forged.to_owned()), forged.to_owned(), 2);
    assert!(fixture.backend.update(&key, 1).await.unwrap());
    let token = issued.token().expose();
    let context = fixture.store.verify(token).await.unwrap();
    assert_eq!(context.name(), Some(forged));
    for shown in [format!("{context:?}"), format!("{key:?}")] {
        let splits = |char: char| char.is_control() || char == '\u{2028}';
        assert!(
            shown.contains("forged") && !shown.contains(splits),
            "{shown}"
        );
    }
    fixture.backend.set_touches_broken(true);
    fixture.clock.advance(std::time::Duration::from_secs(61));
    for token in [token, &with_wrong_secret(token)] {
        let request = Request::get("/open").header(AUTHORIZATION, format!("Bearer {token}"));
        let request = request.body(Body::empty()).unwrap();
        app(&fixture.store).oneshot(request).await.unwrap();
    }
    assert!(fixture.store.shutdown().await.is_err());
    let log = log.text();
    let split = log
        .lines()
        .any(|line| line.starts_with("2026-01-01T00:00:00Z"));
    assert!(
        log.contains("forged") && !split && !log.contains('\u{1b}'),
        "{log}"
    );
    assert_eq!(log.contains(NOT_NOTED), cfg!(feature = "tracing"), "{log}");
}
