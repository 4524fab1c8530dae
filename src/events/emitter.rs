//! Where the crate says what happened.

use std::sync::Arc;

use super::{
    Event, EventKind, Events,
    log::Log,
    recorder::{DynRecorder, Recording},
};
use crate::{
    clock::{Clock, storable},
    error::BackendError,
    token::KeyId,
    trace,
    verify::VerifyError,
};

/// Tells a store's readers, its recorder and the log what happened. Clones are one.
#[derive(Clone)]
pub(crate) struct Emitter(Arc<Outlet>);

struct Outlet {
    log: Arc<Log>,
    recording: Option<Arc<Recording>>,
    clock: Arc<dyn Clock>,
}

/// What was set of it.
pub(crate) struct EmitterSettings {
    /// How many events of each sort are kept.
    pub(crate) buffer: usize,
    pub(crate) recorder: Option<Box<dyn DynRecorder>>,
}

impl Default for EmitterSettings {
    fn default() -> Self {
        Self {
            buffer: 1_024,
            recorder: None,
        }
    }
}

impl Emitter {
    pub(crate) fn new(settings: EmitterSettings, clock: Arc<dyn Clock>) -> Self {
        let log = Log::new(settings.buffer);
        let recording = settings
            .recorder
            .map(|recorder| Recording::new(recorder, &log, clock.clone()));
        Self(Arc::new(Outlet {
            log,
            recording,
            clock,
        }))
    }

    /// Tells of something that is known to have happened, now.
    pub(crate) fn emit(&self, mut event: Event) {
        event.at = storable(self.0.clock.now());
        trace::happened(&event);
        if self.0.log.is_read() {
            self.push(event);
        }
    }

    /// What tells of `event` where a write answers that it was done.
    pub(crate) fn if_done(&self, event: Event) -> impl FnOnce(&bool) + Send + use<> {
        let emitter = self.clone();
        move |is_done| {
            if *is_done {
                emitter.emit(event);
            }
        }
    }

    /// Tells that a token wasn't accepted. Costs a look at a number where nobody listens.
    pub(crate) fn rejected(&self, key_id: impl Into<Option<KeyId>>, error: &VerifyError) {
        let key_id = key_id.into();
        trace::not_accepted(key_id, error);
        if self.0.log.is_read() {
            let reason = error.kind();
            let mut event = Event::of(EventKind::Rejected { reason }).key(key_id);
            event.at = storable(self.0.clock.now());
            self.push(event);
        }
    }

    #[cold]
    fn push(&self, event: Event) {
        self.0.log.push(event);
        if let Some(recording) = &self.0.recording {
            recording.ensure_running();
        }
    }

    /// What happens from now on.
    pub(crate) fn events(&self) -> Events {
        Events::new(self.0.log.reader())
    }

    /// Hands over what is to be recorded.
    pub(crate) async fn shut_down(&self) -> Result<(), BackendError> {
        match &self.0.recording {
            Some(recording) => recording.shut_down(self.0.log.last_number()).await,
            None => Ok(()),
        }
    }
}

/// Nobody is left who could emit anything.
impl Drop for Outlet {
    fn drop(&mut self) {
        self.log.close();
        if let Some(recording) = &self.recording {
            recording.stop();
        }
    }
}
