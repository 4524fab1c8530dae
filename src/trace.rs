//! What the crate tells a log: every event it has, with its level and fields.
//!
//! Without the `tracing` feature nothing is said, but for the one mistake in a set-up that would
//! otherwise show as a bare 500.

use crate::{error::BackendError, token::KeyId, verify::VerifyError};

/// A token was turned away. Its id is public; whether it exists is for the operator to know.
pub(crate) fn rejected(key_id: KeyId, error: &VerifyError) {
    #[cfg(feature = "tracing")]
    if let VerifyError::Unavailable(cause) = error {
        tracing::error!(%key_id, cause = chain(cause), "an API key can't be checked");
    } else {
        tracing::debug!(%key_id, reason = %error, "an API key was rejected");
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (key_id, error);
}

/// The time of a key's last use could not be written.
pub(crate) fn touch_failed(key_id: KeyId, error: &BackendError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%key_id, cause = chain(error), "the last use of an API key was not noted");
    #[cfg(not(feature = "tracing"))]
    let _ = (key_id, error);
}

/// A guard ran on a request that no layer has seen.
pub(crate) fn guard_without_layer(guard: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        guard,
        "a guard ran on a request that no `ApiKeyLayer` has seen: put the layer around this route"
    );
    #[cfg(not(feature = "tracing"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            eprintln!(
                "tower-api-key: `{guard}` ran on a request that no `ApiKeyLayer` has seen, \
                 and answered 500: put the layer around this route"
            );
        });
    }
}

/// The error and its causes, in one line.
#[cfg(feature = "tracing")]
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
