//! When a server of the examples is to end.

use std::future;

use tokio::signal;

/// Ends with Ctrl-C, and on Unix with SIGTERM. Both are caught from this call on.
#[cfg(unix)]
pub(crate) fn asked_to_stop() -> impl Future<Output = ()> {
    use signal::unix::SignalKind;

    let caught = |kind| {
        let signals = signal::unix::signal(kind);
        async move {
            match signals {
                Ok(mut signals) => signals.recv().await.unwrap_or_default(),
                // What can't be caught ends the process by itself.
                Err(_) => future::pending().await,
            }
        }
    };
    let interrupted = caught(SignalKind::interrupt());
    let terminated = caught(SignalKind::terminate());
    async move {
        tokio::select! {
            () = interrupted => {}
            () = terminated => {}
        }
    }
}

/// Ends with Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn asked_to_stop() {
    if signal::ctrl_c().await.is_err() {
        future::pending::<()>().await;
    }
}
