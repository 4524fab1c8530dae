//! A context that shows something else than the key's record has.

use std::{future::poll_fn, sync::Arc, task::Poll};

use super::{Answer, Caller, HasCaller};
use crate::error::Unavailable;

/// A key of which something else is shown than is stored. It ends with the key all the same, or before.
pub(crate) struct Shown {
    pub(crate) caller: Caller,
    pub(crate) of: Arc<dyn HasCaller>,
}

impl Shown {
    /// Whether it is to end before the key does.
    fn ends_before(&self) -> bool {
        let ends = |caller: &Caller| caller.expires_at().unwrap_or(u64::MAX);
        ends(&self.caller) < ends(self.of.caller())
    }
}

impl HasCaller for Shown {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn ended(&self) -> Answer<()> {
        let mut key = self.of.ended();
        if !self.ends_before() {
            return key;
        }
        let mut shown = self.caller.ended();
        Box::pin(poll_fn(move |cx| match key.as_mut().poll(cx) {
            Poll::Pending => shown.as_mut().poll(cx),
            ended @ Poll::Ready(()) => ended,
        }))
    }

    fn is_active(&self) -> Answer<Result<bool, Unavailable>> {
        let key = self.of.is_active();
        if !self.ends_before() {
            return key;
        }
        let shown = self.caller.is_active();
        Box::pin(async move { Ok(key.await? && shown.await?) })
    }

    fn shown_as(self: Arc<Self>, caller: Caller) -> Arc<dyn HasCaller> {
        self.of.clone().shown_as(caller)
    }
}
