//! What a key is claimed with, and the hash of it, in what is shown of a handoff.

use std::{error::Error, fmt::Debug, time::Duration};

use tower_api_key::{GrantPageRequest, HandoffToken, NewApiKey, Scopes};

use crate::{
    canaries::{Canaries, Log, debug, shown},
    support::{Fixture, USER},
};

#[tokio::test]
async fn g7_nothing_shows_what_a_key_is_claimed_with() {
    let log = Log::install();
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let new = NewApiKey::for_user(USER, Scopes::none()).name("laptop");
    let handed_off = store.hand_off(new, Duration::from_secs(60)).await.unwrap();
    let (token, grant) = (handed_off.token(), handed_off.grant());
    let hex = |bytes: &[u8]| -> String {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<Vec<_>>().concat()
    };
    let mut canaries = Canaries::new(&[]);
    let hash = grant.claim_hash.as_bytes();
    canaries.0.extend([
        token.expose_text(),
        hex(token.expose()),
        hex(hash),
        format!("{:?}", token.expose()),
        format!("{hash:?}"),
    ]);
    let page = store.grants(GrantPageRequest::new()).await.unwrap();
    let values: &[(&str, &dyn Debug)] = &[
        ("handed off", &handed_off),
        ("token", token),
        ("grant", grant),
        ("page", &page),
        ("store", store),
    ];
    for (name, value) in values {
        canaries.assert_absent(name, &debug(value));
    }

    let issued = store.claim(token).await.unwrap();
    canaries.0.push(issued.token().expose().to_owned());
    canaries.assert_absent("issued", &debug(&issued));
    let unknown = HandoffToken::from_bytes([7; 16]);
    let mut errors: Vec<Box<dyn Error>> = vec![
        Box::new(store.claim(token).await.unwrap_err()),
        Box::new(store.claim(&unknown).await.unwrap_err()),
    ];
    let text = token.expose_text();
    let wrong = format!("{text}A");
    errors.push(Box::new(wrong.parse::<HandoffToken>().unwrap_err()));
    errors.push(Box::new(
        text.parse::<tower_api_key::GrantId>().unwrap_err(),
    ));
    for error in &errors {
        canaries.assert_absent("an error", &shown(&**error));
    }
    let log = log.text();
    if cfg!(feature = "tracing") {
        let id = grant.id.to_string();
        let told = |line: &str| line.contains("grant.claim_refused") && line.contains(&id);
        assert!(log.lines().any(told), "{log}");
        canaries.assert_absent("the log", &log);
    }
}
