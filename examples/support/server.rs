//! What the examples have in common: where they listen, and when they end.

use std::{env, future, io, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, signal, sync::oneshot, time::sleep};

/// A listener on `ADDR`, or on 127.0.0.1:3000.
pub(crate) async fn listen() -> io::Result<TcpListener> {
    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{addr}: {error}"));
    TcpListener::bind(&addr).await.map_err(failed)
}

/// How long requests may go on when it is asked to stop: a stream that is open has no end of its own.
const GRACE: Duration = Duration::from_secs(2);

/// Says where it listens, and serves until it is asked to stop.
pub(crate) async fn serve(listener: TcpListener, app: Router) -> io::Result<()> {
    let stop = asked_to_stop();
    println!("listening on http://{}", listener.local_addr()?);
    let (asked, is_asked) = oneshot::channel();
    let stop = async move {
        stop.await;
        drop(asked);
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(stop);
    tokio::select! {
        outcome = server.into_future() => outcome,
        () = async {
            let _ = is_asked.await as Result<(), _>;
            sleep(GRACE).await;
        } => Ok(()),
    }
}

/// Ends with Ctrl-C, and on Unix with SIGTERM. Both are caught from this call on.
#[cfg(unix)]
fn asked_to_stop() -> impl Future<Output = ()> {
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
async fn asked_to_stop() {
    if signal::ctrl_c().await.is_err() {
        future::pending::<()>().await;
    }
}
