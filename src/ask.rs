//! Asking a source for something: with a time limit, and whatever it does.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use crate::{error::BackendError, sync::timeout};

/// What the source answers within `limit`, or nothing. One that panics has failed: so ask it in an
/// `async` block, since it may do so before it has returned a future.
pub(crate) async fn ask<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Option<Result<T, BackendError>> {
    let mut answer = pin!(timeout(limit, answer));
    let answered = poll_fn(|cx| {
        let poll = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
        poll.unwrap_or_else(|_| Poll::Ready(Ok(Err(BackendError::unavailable("it panicked")))))
    });
    answered.await.ok()
}

/// The same, where it doesn't matter why there is no answer.
pub(crate) async fn ask_in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let answered = ask(limit, answer).await;
    answered.unwrap_or_else(|| Err(too_slow()))
}

pub(crate) fn too_slow() -> BackendError {
    BackendError::unavailable("it took too long to answer")
}
