//! Reading events.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{Event, log::Reader};

/// What happens through one store, from the moment on at which it was asked for; made by
/// [`ApiKeyStore::events`](crate::ApiKeyStore::events).
///
/// Who doesn't read for a while misses the oldest events, and is told how many:
/// [`EventKind::Missed`](crate::EventKind::Missed). It ends when nothing can happen any more, since the
/// store is dropped, with its clones and the layers that have one.
#[must_use = "events are for those who read them"]
pub struct Events(Reader);

impl Events {
    pub(super) fn new(reader: Reader) -> Self {
        Self(reader)
    }

    /// The next event. Who stops waiting for it misses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.0.poll(cx)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().0.poll(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
