//! A fleet: three servers as processes, each behind a proxy of its own to one PostgreSQL, asked all
//! the time, while the network and the database fail.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a test and a bench program have it"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a fleet that can't be set up has failed"
)]

pub mod faults;
pub mod healthy;
pub mod judge;
pub mod keys;
pub mod load;
pub mod node;
pub mod plan;
#[path = "../support/postgres.rs"]
pub mod postgres;
pub mod process;
pub mod proxy;
#[allow(clippy::duplicate_mod, reason = "a bench program has its own")]
#[path = "../../benches/support/random.rs"]
pub mod random;
pub mod report;
pub mod rounds;
#[path = "../support/slow_commits.rs"]
pub mod slow_commits;
pub mod timeline;
pub mod wire;

use std::{env, sync::Arc, time::Duration};

use self::{
    judge::{Judge, Tally},
    keys::{Key, Rotation},
    postgres::Server,
    process::NodeProcess,
    proxy::Proxy,
};

pub const NODES: usize = 3;

/// How the nodes are set, and what is asked of them.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The nodes' `max_staleness`.
    pub believed: Duration,
    /// What is held against them.
    pub bound: Duration,
    pub seed: u64,
}

impl Setup {
    /// Nodes that are held to their own setting.
    pub fn honest(bound: Duration) -> Self {
        Self {
            believed: bound,
            bound,
            seed: seed(),
        }
    }
}

/// `FLEET_SEED`, or one from the clock.
fn seed() -> u64 {
    number("FLEET_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(since.subsec_nanos()) ^ since.as_secs()
    })
}

/// A number that the environment asks for.
pub fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// One node as this process sees it.
pub struct Node {
    pub process: NodeProcess,
    pub proxy: Proxy,
}

pub struct Fleet {
    pub setup: Setup,
    pub nodes: Vec<Node>,
    pub judge: Judge,
    pub rotation: Rotation,
    /// The last to go: nodes that lose it only complain.
    pub server: Server,
}

impl Fleet {
    /// The server, the proxies and the nodes, which can be asked when this returns. `None` where
    /// there is no PostgreSQL and that may be.
    pub async fn start(setup: Setup) -> Option<Arc<Self>> {
        let server = Server::start()?;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let proxy = Proxy::start(server.port()).await;
            // Without TLS, which would hide from the proxy what it is to lose.
            let url = format!("{}?sslmode=disable", postgres::url(proxy.port()));
            let process = NodeProcess::start(&url, setup.believed);
            nodes.push(Node { process, proxy });
        }
        if let Some(millis) = number("FLEET_COMMIT_MS") {
            let time = Duration::from_millis(millis);
            let slow = slow_commits::statements(&["tower_api_keys"], time);
            server.psql(&slow).await;
        }
        Some(Arc::new(Self {
            judge: Judge::new(setup),
            rotation: Rotation::default(),
            setup,
            nodes,
            server,
        }))
    }

    /// A key that is made on the node and accepted on all of them.
    pub async fn new_key(&self, maker: usize) -> Result<Arc<Key>, String> {
        let token = self.nodes[maker].process.create().await?;
        Ok(Arc::new(Key::new(token)))
    }

    pub fn tally(&self) -> Tally {
        self.judge.tally()
    }

    /// Ends everything and looks that nothing is left; what was wrong is returned.
    pub fn end(self: Arc<Self>) -> Vec<String> {
        let mut wrong = self.judge.violations();
        let fleet = Arc::into_inner(self).expect("the load and the faults have ended");
        let mut pids = vec![fleet.server.pid()];
        for (at, node) in fleet.nodes.into_iter().enumerate() {
            pids.push(node.process.pid());
            if let Err(problem) = node.process.stop() {
                wrong.push(format!("node {at}: {problem}"));
            }
        }
        drop(fleet.server);
        for pid in pids {
            if std::path::Path::new(&format!("/proc/{pid}")).exists() {
                wrong.push(format!("process {pid} is left behind"));
            }
        }
        wrong
    }
}
