//! Writing to the backend so that no cache outlives it.

use std::sync::Arc;

use crate::{cache::Cache, error::BackendError, sync::spawn, token::LookupKey};

/// Carries out `write`, which changes the record under `key`, [in a task of its own](detached): a caller who goes
/// away leaves it neither half done nor unnoticed.
///
/// The key is invalidated before, and again afterwards, whatever became of the write: an error
/// doesn't say that nothing was written.
pub(crate) fn carry_out<T, E, W>(
    cache: &Arc<Cache>,
    key: LookupKey,
    write: W,
) -> impl Future<Output = Result<T, E>> + Send + use<T, E, W>
where
    T: Send + 'static,
    E: From<BackendError> + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
{
    carry_out_and_tell(cache, key, write, |_| {})
}

/// The same, and calls `tell` with what was written when it counts: who hears of it may look at once.
pub(crate) fn carry_out_and_tell<T, E, W, F>(
    cache: &Arc<Cache>,
    key: LookupKey,
    write: W,
    tell: F,
) -> impl Future<Output = Result<T, E>> + Send + use<T, E, W, F>
where
    T: Send + 'static,
    E: From<BackendError> + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
    F: FnOnce(&T) + Send + 'static,
{
    let invalidate = InvalidateAfterwards {
        cache: cache.clone(),
        key,
    };
    // Boxed, since one is within the other where two records are written.
    let write = Box::pin(write);
    detached(async move {
        invalidate.cache.invalidate(&invalidate.key);
        let written = write.await;
        drop(invalidate);
        if let Ok(written) = &written {
            tell(written);
        }
        written
    })
}

/// Carries out a write that no cache knows of, in a task that goes on where the caller goes away.
pub(crate) async fn detached<T, E>(
    write: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<BackendError> + Send + 'static,
{
    match spawn(write) {
        Ok(task) => task
            .await
            .unwrap_or_else(|_| Err(failed("the write panicked, or its runtime ended").into())),
        Err(_) => Err(failed("there is no tokio runtime to write on").into()),
    }
}

/// Carries out a write that is done or isn't, also where its answer is lost: then `was_done` is asked, after it.
pub(crate) async fn or_look(
    write: impl Future<Output = Result<bool, BackendError>> + Send + 'static,
    was_done: impl Future<Output = Result<bool, BackendError>>,
) -> Result<bool, BackendError> {
    // In a task of its own, since it may panic.
    match detached(write).await {
        Err(_) if matches!(was_done.await, Ok(true)) => Ok(true),
        answer => answer,
    }
}

/// The same for a write that changes the keys of a user: all that is known of any key that may be the user's is
/// invalidated before and afterwards, whatever became of it.
pub(crate) async fn carry_out_for_user<T, E>(
    cache: &Arc<Cache>,
    user_id: String,
    write: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<BackendError> + Send + 'static,
{
    let invalidate = InvalidateUserAfterwards {
        cache: cache.clone(),
        user_id,
    };
    let write = Box::pin(write);
    detached(async move {
        invalidate.now();
        let written = write.await;
        drop(invalidate);
        written
    })
    .await
}

struct InvalidateUserAfterwards {
    cache: Arc<Cache>,
    user_id: String,
}

impl InvalidateUserAfterwards {
    fn now(&self) {
        self.cache.invalidate_user(&self.user_id);
    }
}

impl Drop for InvalidateUserAfterwards {
    fn drop(&mut self) {
        self.now();
    }
}

fn failed(why: &'static str) -> BackendError {
    BackendError::unavailable(why)
}

/// Also where the backend panics, or a runtime ends and drops the task.
struct InvalidateAfterwards {
    cache: Arc<Cache>,
    key: LookupKey,
}

impl Drop for InvalidateAfterwards {
    fn drop(&mut self) {
        self.cache.invalidate(&self.key);
    }
}
