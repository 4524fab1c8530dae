//! What stands between a node and the database, and can fail as a network does.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::wire::{Frames, listens};

/// A way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    #[default]
    Pass,
    /// Nobody gets through, and what was connected is reset.
    Refuse,
    /// They are lost, on these ways, and the connections stay open: half-open from then on.
    Swallow(&'static [Way]),
    /// They arrive when this is over.
    Hold,
    Delay(Duration),
    /// Everything arrives but notifications.
    LoseNotifications,
}

pub const BOTH: &[Way] = &[Way::ToServer, Way::ToClient];

/// Which connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that have asked for notifications.
    Listening,
}

/// It ends when it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: u16,
    rule: watch::Sender<Rule>,
    connections: Mutex<Vec<Arc<Connection>>>,
    lost_notifications: AtomicUsize,
}

struct Connection {
    /// The port that the server sees.
    port: u16,
    listens: AtomicBool,
    fate: watch::Sender<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fate {
    #[default]
    Open,
    /// What comes on these ways is lost, for good: TCP loses nothing from the middle.
    HalfOpen(&'static [Way]),
    Closed,
    Reset,
}

impl Proxy {
    /// A free port of the loopback that leads to the server's.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let shared = Arc::new(Shared {
            server,
            rule: watch::Sender::default(),
            connections: Mutex::default(),
            lost_notifications: AtomicUsize::new(0),
        });
        Self {
            port: listener.local_addr().unwrap().port(),
            task: tokio::spawn(accept(listener, shared.clone())),
            shared,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, rule: Rule) {
        self.shared.rule.send_replace(rule);
        match rule {
            Rule::Refuse => self.shared.decide(Which::All, Fate::Reset),
            Rule::Swallow(ways) => self.shared.decide(Which::All, Fate::HalfOpen(ways)),
            _ => 0,
        };
    }

    /// Closes connections; how many there were.
    pub fn close(&self, which: Which) -> usize {
        self.shared.decide(which, Fate::Closed)
    }

    pub fn reset(&self, which: Which) -> usize {
        self.shared.decide(which, Fate::Reset)
    }

    /// Makes connections half-open for good, in both ways.
    pub fn swallow(&self, which: Which) -> usize {
        self.shared.decide(which, Fate::HalfOpen(BOTH))
    }

    /// The ports by which the server knows the connections.
    pub fn ports(&self, which: Which) -> Vec<u16> {
        let connections = self.shared.connections();
        let chosen = connections.iter().filter(|one| one.is(which));
        chosen.map(|one| one.port).collect()
    }

    /// How many notifications were lost since this was asked.
    pub fn take_lost_notifications(&self) -> usize {
        self.shared.lost_notifications.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn decide(&self, which: Which, fate: Fate) -> usize {
        let connections = self.connections();
        let chosen = connections.iter().filter(|one| one.is(which));
        let mut count = 0;
        for connection in chosen {
            connection.fate.send_replace(fate);
            count += 1;
        }
        count
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn is(&self, which: Which) -> bool {
        which == Which::All || self.listens.load(Ordering::SeqCst)
    }

    fn loses(&self, way: Way) -> bool {
        matches!(*self.fate.borrow(), Fate::HalfOpen(ways) if ways.contains(&way))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // They end with the proxy.
    let mut carried = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        carried.spawn(async move {
            // Broken connections are what this is for.
            let _ = carry(client, &shared).await;
        });
        while carried.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    if *shared.rule.borrow() == Rule::Refuse {
        return client.set_zero_linger();
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server)).await else {
        return client.set_zero_linger();
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let connection = Arc::new(Connection {
        port: server.local_addr()?.port(),
        listens: AtomicBool::new(false),
        fate: watch::Sender::default(),
    });
    shared.connections().push(connection.clone());
    match *shared.rule.borrow() {
        Rule::Swallow(ways) => drop(connection.fate.send_replace(Fate::HalfOpen(ways))),
        Rule::Refuse => drop(connection.fate.send_replace(Fate::Reset)),
        _ => {}
    }
    let mut fate = connection.fate.subscribe();
    let is_over = |fate: &Fate| matches!(fate, Fate::Closed | Fate::Reset);
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = pump(from_client, to_server, Way::ToServer, &connection, shared) => {}
            () = pump(from_server, to_client, Way::ToClient, &connection, shared) => {}
            _ = fate.wait_for(is_over) => {}
        }
    }
    shared
        .connections()
        .retain(|other| !Arc::ptr_eq(other, &connection));
    if *fate.borrow() == Fate::Reset {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Until one side closes, or would be seen to if anything came through.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    connection: &Connection,
    shared: &Shared,
) {
    let mut rules = shared.rule.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    let mut frames = Frames::default();
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let bytes = &buffer[..length];
        if way == Way::ToServer && listens(bytes) {
            connection.listens.store(true, Ordering::SeqCst);
        }
        let is_let_through = |rule: &Rule| *rule != Rule::Hold;
        let Ok(rule) = rules.wait_for(is_let_through).await.map(|rule| *rule) else {
            return;
        };
        if let Rule::Delay(time) = rule {
            sleep(time).await;
        }
        if connection.loses(way) {
            if length > 0 {
                continue;
            }
            // Its end is lost, too.
            let _ = rules.wait_for(|rule| *rule == Rule::Pass).await;
            return;
        }
        if length == 0 {
            return;
        }
        let written = if way == Way::ToClient {
            let (passed, lost) = frames.pass(bytes, rule == Rule::LoseNotifications);
            shared.lost_notifications.fetch_add(lost, Ordering::SeqCst);
            to.write_all(&passed).await
        } else {
            to.write_all(bytes).await
        };
        if written.is_err() {
            return;
        }
    }
}
