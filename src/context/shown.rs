//! A context that shows another name or expiry than the key's record.

use std::{future::poll_fn, num::NonZeroU64, sync::Arc, task::Poll};

use super::{Answer, Caller, HasCaller};
use crate::error::Unavailable;

/// A context with another identity than its key. It ends with the key, and at its own expiry if
/// it was given one.
pub(crate) struct Shown {
    pub(crate) caller: Caller,
    /// In milliseconds since 1970.
    pub(crate) expires_at: Option<NonZeroU64>,
    pub(crate) of: Arc<dyn HasCaller>,
}

impl HasCaller for Shown {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn ended(&self) -> Answer<()> {
        let mut key = self.of.ended();
        if self.expires_at.is_none() {
            return key;
        }
        // Always both: the expiry of the key may be moved at any time.
        let mut expiry = self.caller.ended();
        Box::pin(poll_fn(move |cx| match key.as_mut().poll(cx) {
            Poll::Pending => expiry.as_mut().poll(cx),
            ended @ Poll::Ready(()) => ended,
        }))
    }

    fn is_active(&self) -> Answer<Result<bool, Unavailable>> {
        let key = self.of.is_active();
        if self.expires_at.is_none() {
            return key;
        }
        let expiry = self.caller.is_active();
        Box::pin(async move { Ok(key.await? && expiry.await?) })
    }

    fn shown_as(
        self: Arc<Self>,
        caller: Caller,
        expires_at: Option<NonZeroU64>,
    ) -> Arc<dyn HasCaller> {
        let expires_at = expires_at.or(self.expires_at);
        self.of.clone().shown_as(caller, expires_at)
    }
}
