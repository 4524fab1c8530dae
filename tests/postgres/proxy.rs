//! What stands between a node and the server, and may swallow what is sent.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::support::postgres::url;

/// Passes bytes on, or takes them and says nothing.
pub(crate) struct Proxy {
    port: u16,
    swallows: watch::Sender<bool>,
    clients: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (swallows, state) = watch::channel(false);
        let clients = Arc::new(AtomicUsize::new(0));
        let counter = clients.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, counter) = (state.clone(), counter.clone());
                tokio::spawn(async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let _ = pass_on(client, server, state).await;
                    counter.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            swallows,
            clients,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// From here on nothing arrives on the other side, on connections that are there and on new ones.
    /// Those that were there then stay dead.
    pub(crate) fn swallow(&self, swallows: bool) {
        self.swallows.send_replace(swallows);
    }

    /// How many connections the other end hasn't closed.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns when the client is gone.
async fn pass_on(client: TcpStream, server: u16, state: watch::Receiver<bool>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answers = tokio::spawn(copy(from_server, to_client, state.clone()));
    let asked = copy(from_client, to_server, state).await;
    answers.abort();
    asked
}

/// Until the end of `from`; once something was swallowed, all that follows is.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let mut is_dead = false;
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            // One that nothing is sent on is as dead.
            _ = state.changed(), if !is_dead => {
                is_dead |= *state.borrow();
                continue;
            }
        };
        is_dead |= *state.borrow();
        if count == 0 {
            return Ok(());
        }
        if !is_dead {
            to.write_all(&buffer[..count]).await?;
        }
    }
}
