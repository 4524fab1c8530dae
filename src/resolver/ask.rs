//! Asking a source for something: with a time limit, and whatever it does.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use crate::{error::BackendError, sync::timeout};

/// What the source answers within `limit`. One that takes longer, or panics, has failed: so ask it in
/// an `async` block, since it may do so before it has returned a future.
pub(super) async fn ask<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let mut answer = pin!(timeout(limit, answer));
    let answered = poll_fn(|cx| {
        let poll = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
        poll.unwrap_or_else(|_| Poll::Ready(Ok(Err(failed("it panicked")))))
    });
    let answered = answered.await;
    answered.unwrap_or_else(|_| Err(failed("it took too long to answer")))
}

fn failed(why: &'static str) -> BackendError {
    BackendError::unavailable(why)
}
