//! Faults, one or two at a time, and keys that are revoked before, during and after each.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep};
use tower_api_key::KeyId;

use super::{
    Fleet, NODES,
    faults::Kind,
    keys::Key,
    plan::{Deck, Plan},
    process::{Answer, client},
    report::{Report, Seen},
};

/// How soon a valid key has to be accepted again, and a key has to be revocable, after a fault.
pub const RECOVERY: Duration = Duration::from_secs(10);
/// How many keys are valid all the time.
pub const VALID: usize = 5;

/// Runs so many faults under load, or fewer if something is wrong.
pub async fn run(fleet: &Arc<Fleet>, wanted: usize, kinds: &[Kind]) -> Report {
    let mut deck = Deck::new(fleet.setup.seed, kinds);
    let mut report = Report::default();
    let mut valid = Vec::new();
    for maker in 0..VALID {
        valid.push(fleet.known_key(maker % NODES).await);
    }
    while report.faults < wanted && fleet.judge.violations().is_empty() {
        let plan = deck.plan(wanted - report.faults);
        let round = report.rounds;
        fleet.judge.timeline.note(format_args!("round {round}"));
        fleet.round(plan, &valid, &mut report).await;
    }
    if fleet.judge.violations().is_empty() {
        fleet.settle(RECOVERY).await;
    }
    report
}

impl Fleet {
    /// A new key that every node has accepted, in the rotation.
    pub async fn known_key(&self, maker: usize) -> Arc<Key> {
        let since = Instant::now();
        let key = loop {
            match self.new_key(maker).await {
                Ok(key) => break key,
                Err(error) => assert!(since.elapsed() < RECOVERY, "no new key: {error}"),
            }
        };
        self.rotation.add(&key);
        for node in 0..NODES {
            self.recovers(node, &key).await;
        }
        key
    }

    /// Waits until the node accepts a valid key; how long that took.
    async fn recovers(&self, node: usize, key: &Key) -> Duration {
        let accepted = self.ask_until(node, key, &Answer::Accepted, RECOVERY);
        if let Some(took) = accepted.await {
            return took;
        }
        let stats = self.nodes[node].process.stats().await;
        self.judge.violated(&format!(
            "node {node} doesn't accept {} within {RECOVERY:?}: {stats}",
            key.name()
        ));
        RECOVERY
    }

    async fn round(self: &Arc<Self>, plan: Plan, valid: &[Arc<Key>], report: &mut Report) {
        let mut victims = Vec::new();
        for number in 0..plan.revocations.len() {
            victims.push(self.known_key((report.rounds + number) % NODES).await);
        }
        let mut revocations = JoinSet::new();
        for (key, (at, by)) in victims.iter().cloned().zip(plan.revocations) {
            let fleet = self.clone();
            report.by_hand += usize::from(by.is_none());
            revocations.spawn(async move {
                sleep(at).await;
                fleet.revoke(&key, by).await;
            });
        }
        let mut faults = JoinSet::new();
        for &(fault, at, time) in &plan.faults {
            let fleet = self.clone();
            faults.spawn(async move {
                sleep(at).await;
                let ongoing = fault.begin(&fleet).await;
                sleep(time).await;
                (fault.kind, ongoing.end(&fleet).await)
            });
        }
        while let Some(ended) = faults.join_next().await {
            let (kind, has_hit) = ended.unwrap();
            let per_kind = report.kinds.entry(kind).or_default();
            per_kind.times += 1;
            per_kind.idle += usize::from(!has_hit);
        }
        let recovery = self.all_recover(valid).await;
        while let Some(ended) = revocations.join_next().await {
            ended.unwrap();
        }
        let mut seen = Seen::default();
        for key in &victims {
            seen.add(self.seen_elsewhere(key).await);
        }
        for (fault, ..) in &plan.faults {
            let per_kind = report.kinds.entry(fault.kind).or_default();
            per_kind.recovery = per_kind.recovery.max(recovery);
            per_kind.seen.add(seen);
        }
        report.faults += plan.faults.len();
        report.revocations += victims.len();
        report.rounds += 1;
        self.rotation.drop_settled();
    }

    /// Waits until every node accepts all these; how long that took.
    async fn all_recover(self: &Arc<Self>, valid: &[Arc<Key>]) -> Duration {
        let since = Instant::now();
        let mut nodes = JoinSet::new();
        for node in 0..NODES {
            let (fleet, valid) = (self.clone(), valid.to_vec());
            nodes.spawn(async move {
                for key in &valid {
                    fleet.recovers(node, key).await;
                }
            });
        }
        while let Some(ended) = nodes.join_next().await {
            ended.unwrap();
        }
        since.elapsed()
    }

    /// Revokes the key, on another node where it can't be done on this one.
    async fn revoke(self: &Arc<Self>, key: &Arc<Key>, by: Option<usize>) {
        let (name, since) = (key.name(), Instant::now());
        let mut place = by;
        key.begin_revocation();
        loop {
            let tell = |what: &str| self.judge.timeline.note(format_args!("{name} {what}"));
            tell(&format!("to be revoked by {place:?}"));
            let outcome = match place {
                Some(node) => self.nodes[node].process.revoke(key.id()).await.map(drop),
                None => self.revoke_by_hand(key).await,
            };
            match outcome {
                Ok(()) => {
                    key.end_revocation(place);
                    tell(&format!("is revoked by {place:?}"));
                    break;
                }
                Err(error) => tell(&format!("isn't revoked by {place:?}: {error}")),
            }
            if since.elapsed() > RECOVERY * 2 {
                return self.judge.violated(&format!("{name} can't be revoked"));
            }
            place = Some(place.map_or(0, |node| (node + 1) % NODES));
        }
        // The node that did it, at once.
        if let Some(node) = place {
            let client = client();
            for _ in 0..5 {
                self.ask(node, &client, key).await;
            }
        }
    }

    /// In a transaction that began before others that end first: its change is the later one, and has
    /// the lower number.
    async fn revoke_by_hand(&self, key: &Key) -> Result<(), String> {
        let id: KeyId = key.id().parse().unwrap();
        let mut hex = String::new();
        for byte in id.as_bytes() {
            write!(hex, "{byte:02x}").unwrap();
        }
        let update = format!(
            "BEGIN; SELECT pg_current_xact_id(); SELECT pg_sleep(0.25); \
             UPDATE tower_api_keys SET revoked_at = date_trunc('milliseconds', now()) \
             WHERE id = '\\x{hex}'::bytea AND revoked_at IS NULL; COMMIT"
        );
        self.by_hand(&update).await.map(drop)
    }

    /// What the other nodes did after the revocation, when all have rejected the key.
    pub async fn seen_elsewhere(&self, key: &Key) -> Seen {
        let mut seen = Seen::default();
        for node in 0..NODES {
            let has_rejected = key.state().rejected[node].is_some();
            if !has_rejected {
                self.ask_until(node, key, &Answer::Revoked, RECOVERY).await;
            }
            let state = *key.state();
            let Some(revoked) = state.revoked.filter(|revoked| revoked.by != Some(node)) else {
                continue;
            };
            let after = |at: Option<Instant>| {
                at.map_or(Duration::ZERO, |at| {
                    at.saturating_duration_since(revoked.at)
                })
            };
            seen.add(Seen {
                accepted: after(state.accepted[node]),
                rejected: after(state.rejected[node]),
            });
        }
        seen
    }
}
