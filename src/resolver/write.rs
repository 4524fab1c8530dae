//! Writing to the backend so that no cache outlives it.

use std::sync::Arc;

use crate::{backend::KeyOfUser, cache::Cache, error::BackendError, sync::spawn, token::LookupKey};

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

/// The same for a write that changes the keys of a user, and says which those are. Where it fails, all that is
/// known of any key that may be the user's is invalidated.
pub(crate) async fn carry_out_for_user<R: Send + 'static>(
    cache: &Arc<Cache>,
    user_id: String,
    write: impl Future<Output = Result<(Vec<KeyOfUser>, R), BackendError>> + Send + 'static,
    tell: impl FnOnce(&[KeyOfUser]) + Send + 'static,
) -> Result<(Vec<KeyOfUser>, R), BackendError> {
    let invalidate = InvalidateUserUnlessDone {
        cache: cache.clone(),
        user_id: Some(user_id),
    };
    let write = Box::pin(write);
    detached(async move {
        let mut invalidate = invalidate;
        invalidate.now();
        let (keys, rest) = write.await?;
        for key in &keys {
            invalidate.cache.invalidate(&key.lookup_key);
        }
        invalidate.user_id = None;
        tell(&keys);
        Ok((keys, rest))
    })
    .await
}

struct InvalidateUserUnlessDone {
    cache: Arc<Cache>,
    user_id: Option<String>,
}

impl InvalidateUserUnlessDone {
    fn now(&self) {
        if let Some(user_id) = &self.user_id {
            self.cache.invalidate_user(user_id);
        }
    }
}

impl Drop for InvalidateUserUnlessDone {
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
