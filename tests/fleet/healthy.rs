//! How soon a fleet that nothing is wrong with hears of a revocation.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    Fleet, NODES,
    process::{Answer, client},
    rounds::{RECOVERY, VALID},
};

/// From `revoke` returning on one node to the first rejection on each of the others, sorted.
pub struct Latencies(pub Vec<Duration>);

/// Revokes so many keys, one after the other, each while it is asked for on every node.
pub async fn run(fleet: &Arc<Fleet>, revocations: usize) -> Latencies {
    for maker in 0..VALID {
        fleet.known_key(maker % NODES).await;
    }
    let mut latencies = Vec::with_capacity(revocations * (NODES - 1));
    for number in 0..revocations {
        let key = fleet.known_key((number + 1) % NODES).await;
        let by = number % NODES;
        let mut askers = JoinSet::new();
        for node in 0..NODES {
            let (fleet, key) = (fleet.clone(), key.clone());
            askers.spawn(async move {
                let client = client();
                while fleet.ask(node, &client, &key).await == Answer::Accepted {}
            });
        }
        key.begin_revocation();
        match fleet.nodes[by].process.revoke(key.id()).await {
            Ok(_) => key.end_revocation(Some(by)),
            Err(error) => fleet.judge.violated(&format!("not revoked: {error}")),
        }
        while let Some(ended) = askers.join_next().await {
            ended.unwrap();
        }
        let state = *key.state();
        let revoked = state.revoked.map(|revoked| revoked.at);
        let others = (0..NODES).filter(|&node| node != by);
        latencies.extend(others.filter_map(|node| {
            let after = state.rejected[node]?.saturating_duration_since(revoked?);
            Some(after)
        }));
        fleet.rotation.drop_settled();
    }
    fleet.settle(fleet.setup.bound + RECOVERY).await;
    latencies.sort_unstable();
    Latencies(latencies)
}

impl Latencies {
    /// What so many of a thousand don't exceed.
    pub fn permille(&self, part: usize) -> Duration {
        let at = (self.0.len() * part).div_ceil(1000).saturating_sub(1);
        self.0[at.min(self.0.len() - 1)]
    }

    pub fn print(&self) {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{} first rejections on other nodes after `revoke` returned: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            self.0.len(),
            ms(self.permille(500)),
            ms(self.permille(990)),
            ms(self.permille(1000))
        );
    }
}
