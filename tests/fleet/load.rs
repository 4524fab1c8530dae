//! Requests all the time, on every node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Fleet,
    keys::Key,
    process::{Answer, client},
    random::Random,
};

/// Clients that ask until they are told to end.
pub struct Load {
    ended: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

/// How many at each node.
const CLIENTS: u64 = 4;
/// Between two requests of one: the nodes and these share a machine.
const PACE: Duration = Duration::from_millis(4);

impl Load {
    pub fn start(fleet: &Arc<Fleet>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for node in 0..fleet.nodes.len() {
            for number in 0..CLIENTS {
                let (fleet, ended) = (fleet.clone(), ended.clone());
                let seed = fleet.setup.seed ^ (number << 8) ^ u64::try_from(node).unwrap();
                let mut random = Random::from_seed(seed);
                clients.spawn(async move {
                    let client = client();
                    while !ended.load(Ordering::Relaxed) {
                        if let Some(key) = fleet.rotation.at(random.below(1 << 30)) {
                            fleet.ask(node, &client, &key).await;
                        }
                        sleep(PACE).await;
                    }
                });
            }
        }
        Self { ended, clients }
    }

    pub async fn end(mut self) {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

impl Fleet {
    /// One request, which is judged.
    pub async fn ask(&self, node: usize, client: &Client, key: &Key) -> Answer {
        let start = Instant::now();
        let answer = self.nodes[node].process.ask(client, &key.token).await;
        self.judge.answered(node, key, start, &answer);
        answer
    }

    /// Asks until the node answers so; how long that took. `None` after `patience`.
    pub async fn ask_until(
        &self,
        node: usize,
        key: &Key,
        wanted: &Answer,
        patience: Duration,
    ) -> Option<Duration> {
        let since = Instant::now();
        let client = client();
        while self.ask(node, &client, key).await != *wanted {
            if since.elapsed() > patience {
                return None;
            }
            sleep(PACE).await;
        }
        Some(since.elapsed())
    }

    /// Waits until every node has rejected what was revoked, when it had to.
    pub async fn settle(&self, patience: Duration) {
        let since = Instant::now();
        loop {
            let left = self.rotation.unsettled();
            let Some(key) = left.first() else {
                return;
            };
            if since.elapsed() > patience {
                let state = *key.state();
                let name = key.name();
                let problem = format!("{} keys aren't rejected, {name}: {state:?}", left.len());
                return self.judge.violated(&problem);
            }
            sleep(PACE).await;
        }
    }
}
