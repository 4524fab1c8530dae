//! Tokens that are one opaque string: of them no more than their prefix is public.

use http::header::AUTHORIZATION;
use tower_api_key::{
    ApiKeyStore, DigestFormat, Imported, MemoryBackend, MissingScopes, OldKey, OldPatterns,
    OldScopes, OldWildcard, Pepper, Peppers, TokenAlphabet, TokenFormat,
};

use crate::{
    app, ask,
    canaries::{Canaries, Log, debug, shown},
    support::{PEPPER, Server, USER, http1, start},
};

const ANYTHING: OldScopes = OldScopes {
    missing: MissingScopes::Nothing,
    wildcard: OldWildcard::Refuse,
    patterns: OldPatterns::Refuse,
};

fn format() -> DigestFormat {
    DigestFormat::new("old_", 44, TokenAlphabet::Alphanumeric).unwrap()
}

/// The secret and the whole digest, and what it is looked up by.
fn add(canaries: &mut Canaries, token: &str) -> String {
    let read = TokenFormat::default().with_digests(format()).unwrap();
    let read = read.parse(token).unwrap();
    let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let hash = peppers.hash(&read).unwrap().to_hex();
    canaries.assert_absent("a token", &debug(&read));
    let hidden = [&token[4..], &hash, &hash[..48], &hash[..16]];
    canaries.0.extend(hidden.map(str::to_owned));
    canaries.assert_absent(
        "a token",
        &debug(&(read.lookup_key(), read.display_prefix(), &read)),
    );
    hash
}

#[tokio::test]
async fn g7_nothing_of_an_opaque_token_is_ever_shown() {
    let log = Log::install();
    let store = ApiKeyStore::builder(MemoryBackend::new())
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .digest_format(format());
    let mut canaries = Canaries::new(&[]);
    canaries.assert_absent("the builder", &debug(&store));
    let store = store.build().await.unwrap();
    let server = Server::start(app(&store)).await;
    let token = |name: &str| format!("old_{name:S<40}");
    for (name, expected) in [
        ("good", 200),
        ("expired", 401),
        ("disabled", 401),
        ("revoked", 401),
    ] {
        let token = token(name);
        let hash = add(&mut canaries, &token);
        let mut old = OldKey::by_digest(hash, USER);
        match name {
            "expired" => old = old.expires_at(start() - std::time::Duration::from_secs(1 << 30)),
            "disabled" => old = old.disabled_at(start()),
            "revoked" => old = old.revoked_at(start()),
            _ => {}
        }
        canaries.assert_absent("an old key", &debug(&old));
        let imported = store.import(old.clone(), &ANYTHING).await.unwrap();
        canaries.assert_absent("what was imported", &debug(&imported));
        assert!(matches!(imported, Imported::Stored(_)));
        let again = store.import_all([old], &ANYTHING).await.unwrap();
        canaries.assert_absent("a report", &debug(&again));
        for path in ["/open", "/foreign"] {
            let text = format!("Bearer {token}");
            let (status, seen) = ask(&http1(), server.url(path), AUTHORIZATION, &text).await;
            assert_eq!(status, expected, "{name} {seen}");
            canaries.assert_absent("a response", &seen);
        }
        match store.verify(&token).await {
            Ok(auth) => canaries.assert_absent("a context", &debug(&auth)),
            Err(error) => canaries.assert_absent("an error", &shown(&error)),
        }
    }
    let unknown = token("unknown");
    add(&mut canaries, &unknown);
    for (path, token) in [("/open", unknown.clone()), ("/open", format!("{unknown}x"))] {
        let text = format!("Bearer {token}");
        let (status, seen) = ask(&http1(), server.url(path), AUTHORIZATION, &text).await;
        assert_eq!(status, 401);
        canaries.assert_absent("a response", &seen);
        let error = store.verify(&token).await.unwrap_err();
        canaries.assert_absent("an error", &shown(&error));
    }
    canaries.assert_absent("the store", &debug(&store));
    canaries.assert_absent("the log", &log.text());
    let told = "an API key was not accepted";
    assert_eq!(log.text().contains(told), cfg!(feature = "tracing"));
}
