//! Noting when a key was last used, at most once a minute.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    backend::{DynBackend, Touch},
    key::ApiKey,
    trace,
};

/// Writes `last_used_at` where what is stored is over a minute old.
pub(super) struct Toucher {
    backend: Arc<dyn DynBackend>,
}

impl Toucher {
    const EVERY: Duration = Duration::from_secs(60);

    pub(super) fn new(backend: Arc<dyn DynBackend>) -> Self {
        Self { backend }
    }

    /// A failure is logged and costs the request nothing else.
    pub(super) async fn used(&self, key: &ApiKey, now: SystemTime) {
        if !Self::is_due(key.last_used_at, now) {
            return;
        }
        let touch = Touch::new(key.id, now);
        if let Err(error) = self.backend.touch(&[touch]).await {
            trace::touch_failed(key.id, &error);
        }
    }

    /// A last use in the future, by a clock that stepped back since, is left alone.
    fn is_due(last: Option<SystemTime>, now: SystemTime) -> bool {
        last.is_none_or(|last| {
            now.duration_since(last)
                .is_ok_and(|since| since > Self::EVERY)
        })
    }
}
