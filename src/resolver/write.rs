//! Writing to the backend so that no cache outlives it.

use std::sync::Arc;

use crate::{cache::Cache, error::BackendError, sync::spawn, token::LookupKey};

/// Carries out `write`, which changes the record under `key`, in a task of its own: a caller who goes
/// away leaves it neither half done nor unnoticed.
///
/// The key is invalidated before, and again afterwards, whatever became of the write: an error
/// doesn't say that nothing was written.
pub(crate) async fn carry_out<T, E>(
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
