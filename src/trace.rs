//! What the crate tells a log: every event it has, with its level and fields.
//!
//! Without the `tracing` feature nothing is said, but for the one mistake in a set-up that would
//! otherwise show as a bare 500.

use crate::{
    error::{BackendError, Unavailable},
    events::Event,
    token::KeyId,
    verify::VerifyError,
};

/// Something happened to a key, as a store's readers hear it, too.
pub(crate) fn happened(event: &Event) {
    #[cfg(feature = "tracing")]
    {
        use crate::events::EventKind;
        use tracing::field;

        macro_rules! tell {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    target: "tower_api_key",
                    event = event.name(),
                    key_id = event.key_id.map(field::display),
                    grant_id = event.grant_id.map(field::display),
                    // Quoted and escaped: a record may have come into the database by another way.
                    user_id = event.user_id.as_deref().map(field::debug),
                    reason = event.reason().map(field::debug),
                    made_by = event.kind.made_by().map(field::display),
                    successor = event.kind.successor().map(field::display),
                    from = event.kind.peppers().map(|(from, _)| field::display(from)),
                    to = event.kind.peppers().map(|(_, to)| field::display(to)),
                    records = event.kind.records(),
                    $text
                )
            };
        }
        match event.kind {
            EventKind::BackendWarning { .. } => tell!(warn, "the backend has a warning"),
            EventKind::LeakReported => {
                tell!(warn, "the token of an API key was reported as leaked");
            }
            // Of made-up tokens anybody can present any number.
            EventKind::ClaimRefused { .. } if event.grant_id.is_none() => {
                tell!(debug, "the claim of an API key was refused");
            }
            EventKind::ClaimRefused { .. } => tell!(warn, "the claim of an API key was refused"),
            _ => tell!(info, "an API key was managed"),
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = event;
}

/// A token was not accepted. Its id is public, where it has one; what exactly is wrong with it is for the
/// operator to know, and for nobody else.
pub(crate) fn not_accepted(key_id: Option<KeyId>, error: &VerifyError) {
    #[cfg(feature = "tracing")]
    {
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    target: "tower_api_key",
                    event = "key.rejected",
                    key_id = key_id.map(tracing::field::display),
                    reason = error.kind().as_str(),
                    cause = chain(error),
                    "an API key was not accepted"
                )
            };
        }
        if let VerifyError::Unavailable(_) = error {
            tell!(warn);
        } else {
            tell!(debug);
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (key_id, error);
}

/// Events could not be recorded. It is tried again.
pub(crate) fn not_recorded(events: usize, error: &BackendError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_api_key", event = "events.not_recorded", events,
        cause = chain(error),
        "events were not recorded"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (events, error);
}

/// The recorder was too slow, and won't get so many events.
pub(crate) fn events_missed(event: &Event) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "tower_api_key", event = event.name(), missed = %event, "events were missed");
    #[cfg(not(feature = "tracing"))]
    let _ = event;
}

/// A request was turned away, by a layer or by a guard behind it.
pub(crate) fn rejected(code: &'static str, outage: Option<&Unavailable>) {
    #[cfg(feature = "tracing")]
    match outage {
        None => {
            tracing::debug!(target: "tower_api_key", event = "request.rejected", code, "a request was rejected");
        }
        Some(cause) => {
            tracing::error!(target: "tower_api_key", event = "request.unavailable", code, cause = chain(cause), "API keys can't be checked");
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (code, outage);
}

/// The times of the last uses of so many keys could not be written.
pub(crate) fn touch_failed(keys: usize, error: &BackendError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_api_key", event = "uses.not_noted", keys,
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
        target: "tower_api_key", event = "pepper.not_rewrapped", %key_id,
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
        target: "tower_api_key", event = "feed.lost",
        cause = chain(error),
        "changes of API keys don't arrive; subscribing again"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// It does again.
pub(crate) fn feed_found() {
    #[cfg(feature = "tracing")]
    tracing::info!(target: "tower_api_key", event = "feed.found", "changes of API keys arrive again");
}

/// A guard ran on a request that no layer has seen.
pub(crate) fn guard_without_layer(guard: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: "tower_api_key", event = "guard.without_layer", guard,
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
