//! What the crate tells a log: every event it has, with its level and fields.
//!
//! Without the `tracing` feature nothing is said, but for the one mistake in a set-up that would
//! otherwise show as a bare 500.

use crate::{
    error::{BackendError, Unavailable},
    token::KeyId,
    verify::VerifyError,
};

/// A token was not accepted. Its id is public; what exactly is wrong with it is for the operator to
/// know, and for nobody else.
pub(crate) fn not_accepted(key_id: KeyId, error: &VerifyError) {
    #[cfg(feature = "tracing")]
    if let VerifyError::Unavailable(_) = error {
        tracing::warn!(target: "tower_api_key", %key_id, reason = chain(error), "an API key was not accepted");
    } else {
        tracing::debug!(target: "tower_api_key", %key_id, reason = chain(error), "an API key was not accepted");
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (key_id, error);
}

/// A request was turned away, by a layer or by a guard behind it.
pub(crate) fn rejected(code: &'static str, outage: Option<&Unavailable>) {
    #[cfg(feature = "tracing")]
    match outage {
        None => tracing::debug!(target: "tower_api_key", code, "a request was rejected"),
        Some(cause) => {
            tracing::error!(target: "tower_api_key", code, cause = chain(cause), "API keys can't be checked");
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (code, outage);
}

/// The times of the last uses of so many keys could not be written.
pub(crate) fn touch_failed(keys: usize, error: &BackendError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_api_key", keys,
        cause = chain(error),
        "the last uses of API keys were not noted"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (keys, error);
}

/// The hash of a key could not be brought under the current pepper.
pub(crate) fn rewrap_failed(key_id: KeyId, error: &BackendError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_api_key", %key_id,
        cause = chain(error),
        "the hash of an API key stays under a retired pepper"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (key_id, error);
}

/// The source doesn't tell of changes, or not any more.
pub(crate) fn feed_lost(error: &BackendError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_api_key", cause = chain(error),
        "changes of API keys don't arrive; subscribing again"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// It does again.
pub(crate) fn feed_found() {
    #[cfg(feature = "tracing")]
    tracing::info!(target: "tower_api_key", "changes of API keys arrive again");
}

/// A guard ran on a request that no layer has seen.
pub(crate) fn guard_without_layer(guard: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: "tower_api_key", guard,
        "a guard ran on a request that no `ApiKeyLayer` has seen: put the layer around this route"
    );
    #[cfg(not(feature = "tracing"))]
    {
        use std::{
            collections::BTreeSet,
            io::Write,
            sync::{Mutex, PoisonError},
        };

        // Once for each guard: there are as many as the program has.
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(guard.to_owned()) {
            // Not `eprintln!`, which panics where nobody listens.
            let _ = writeln!(
                std::io::stderr(),
                "tower-api-key: `{guard}` ran on a request that no `ApiKeyLayer` has seen, \
                 and answered 500: put the layer around this route"
            );
        }
    }
}

/// The error and its causes, in one line.
#[cfg(feature = "tracing")]
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
