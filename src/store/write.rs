//! Writing to the backend so that no cache outlives it.

use std::sync::Arc;

use crate::{backend::KeyOfUser, cache::Cache, error::BackendError, sync::spawn, token::LookupKey};

/// Carries out `write`, which changes the record under `key`, in a task of its own: a caller who goes
/// away leaves it neither half done nor unnoticed.
///
/// The key is invalidated before, and again afterwards, whatever became of the write: an error
/// doesn't say that nothing was written.
pub(super) async fn carry_out<T, E>(
    cache: &Arc<Cache>,
    key: LookupKey,
    write: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<BackendError> + Send + 'static,
{
    let invalidate = InvalidateAfterwards {
        cache: cache.clone(),
        key,
    };
    let task = spawn(async move {
        invalidate.cache.invalidate(&invalidate.key);
        let written = write.await;
        drop(invalidate);
        written
    });
    match task {
        Ok(task) => task
            .await
            .unwrap_or_else(|_| Err(failed("the write panicked, or its runtime ended").into())),
        Err(_) => Err(failed("there is no tokio runtime to write on").into()),
    }
}

/// The same for a write that changes the keys of a user, and says which those are. Where it fails, all that is
/// known of any key that may be the user's is invalidated.
pub(super) async fn carry_out_for_user(
    cache: &Arc<Cache>,
    user_id: String,
    write: impl Future<Output = Result<Vec<KeyOfUser>, BackendError>> + Send + 'static,
) -> Result<Vec<KeyOfUser>, BackendError> {
    let invalidate = InvalidateUserUnlessDone {
        cache: cache.clone(),
        user_id: Some(user_id),
    };
    let task = spawn(async move {
        let mut invalidate = invalidate;
        let keys = write.await?;
        for key in &keys {
            invalidate.cache.invalidate(&key.lookup_key);
        }
        invalidate.user_id = None;
        Ok(keys)
    });
    match task {
        Ok(task) => task
            .await
            .unwrap_or_else(|_| Err(failed("the write panicked, or its runtime ended"))),
        Err(_) => Err(failed("there is no tokio runtime to write on")),
    }
}

struct InvalidateUserUnlessDone {
    cache: Arc<Cache>,
    user_id: Option<String>,
}

impl Drop for InvalidateUserUnlessDone {
    fn drop(&mut self) {
        if let Some(user_id) = &self.user_id {
            self.cache.invalidate_user(user_id);
        }
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
