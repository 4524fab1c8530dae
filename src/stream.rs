//! Streams that end with the key that opened them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use pin_project_lite::pin_project;

pin_project! {
    /// A stream that ends when the key of its caller does; made by
    /// [`AuthContext::until_revoked`](crate::AuthContext::until_revoked).
    #[must_use = "streams do nothing unless polled"]
    pub struct UntilRevoked<S> {
        // Both are gone when it has ended.
        #[pin]
        stream: Option<S>,
        revoked: Option<Revoked>,
    }
}

type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S> UntilRevoked<S> {
    pub(crate) fn new(stream: S, revoked: Revoked) -> Self {
        Self {
            stream: Some(stream),
            revoked: Some(revoked),
        }
    }
}

impl<S: Stream> Stream for UntilRevoked<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        // First, so that a stream that always has something to say ends, too.
        let is_revoked = match this.revoked {
            Some(revoked) => revoked.as_mut().poll(cx).is_ready(),
            None => true,
        };
        let next = match this.stream.as_mut().as_pin_mut() {
            Some(stream) if !is_revoked => stream.poll_next(cx),
            _ => Poll::Ready(None),
        };
        if let Poll::Ready(None) = next {
            this.stream.set(None);
            *this.revoked = None;
        }
        next
    }
}

impl<S> fmt::Debug for UntilRevoked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntilRevoked")
            .field("has_ended", &self.revoked.is_none())
            .finish_non_exhaustive()
    }
}
