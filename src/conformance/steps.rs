//! Futures that are polled in ways of their own.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::PoisonError,
    task::Poll,
};

use super::report::{Broken, Outcome};
use crate::sync::{JoinHandle, Mutex, spawn};

/// A panic of the code under test breaks a rule, and doesn't hide what the other rules find.
pub(super) async fn caught<T>(mut check: Pin<Box<impl Future<Output = Outcome<T>>>>) -> Outcome<T> {
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))))
    })
    .await
}

fn panicked(panic: &(dyn Any + Send)) -> Broken {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    Broken(format!("it panicked: {}", message.unwrap_or_default()))
}

/// Polls `call` so many times at the most, each time when it asks for it, and then drops it.
pub(super) async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|cx| {
        left = left.saturating_sub(1);
        match call.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Lets other tasks of the same thread go on.
pub(super) async fn step_aside() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Tasks that begin at the same moment.
pub(super) struct Tasks<T> {
    tasks: Vec<JoinHandle<T>>,
    /// Dropped when they may begin.
    gate: Option<crate::sync::watch::Sender<()>>,
}

impl<T: Send + 'static> Tasks<T> {
    pub(super) fn new() -> Self {
        Self {
            tasks: Vec::new(),
            gate: Some(crate::sync::watch::Sender::new(())),
        }
    }

    pub(super) fn add(&mut self, task: impl Future<Output = T> + Send + 'static) -> Outcome {
        let gate = self
            .gate
            .as_ref()
            .map(crate::sync::watch::Sender::subscribe);
        let task = async move {
            if let Some(mut gate) = gate {
                while gate.changed().await.is_ok() {}
            }
            task.await
        };
        let task = spawn(task).map_err(|_| Broken("there is no tokio runtime".to_owned()))?;
        self.tasks.push(task);
        Ok(())
    }

    pub(super) fn begin(&mut self) {
        self.gate = None;
    }

    pub(super) fn are_done(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// What each of them returned, in the order in which they were added.
    pub(super) async fn join(mut self) -> Outcome<Vec<T>> {
        self.begin();
        let mut returned = Vec::new();
        for task in self.tasks {
            returned.push(task.await?);
        }
        Ok(returned)
    }
}

/// The value behind a lock that no panic makes unusable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> crate::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
