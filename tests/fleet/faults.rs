//! What can go wrong between a fleet and its database.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tower_api_key::sqlx::{self, AssertSqlSafe, Connection, PgConnection, raw_sql};

use super::{
    Fleet,
    proxy::{BOTH, Rule, Way, Which},
};

/// A fault, and the node that it is to hit where it doesn't hit the server.
#[derive(Clone, Copy)]
pub struct Fault {
    pub kind: Kind,
    pub node: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ListenerClosed,
    ListenerReset,
    ListenerTerminated,
    ListenerHalfOpen,
    AllReset,
    AllTerminated,
    AllSwallowed,
    QuestionsSwallowed,
    AnswersSwallowed,
    Held,
    Slow,
    Cut,
    NotificationsLost,
    ServerPaused,
    ServerRestarted,
    ServerCrashed,
    LongTransaction,
}

impl Kind {
    pub const ALL: [Self; 17] = [
        Self::ListenerClosed,
        Self::ListenerReset,
        Self::ListenerTerminated,
        Self::ListenerHalfOpen,
        Self::AllReset,
        Self::AllTerminated,
        Self::AllSwallowed,
        Self::QuestionsSwallowed,
        Self::AnswersSwallowed,
        Self::Held,
        Self::Slow,
        Self::Cut,
        Self::NotificationsLost,
        Self::ServerPaused,
        Self::ServerRestarted,
        Self::ServerCrashed,
        Self::LongTransaction,
    ];

    /// Whether it is the server's, and two of them don't go together.
    pub fn is_of_server(self) -> bool {
        matches!(
            self,
            Self::ServerPaused
                | Self::ServerRestarted
                | Self::ServerCrashed
                | Self::LongTransaction
        )
    }

    fn is_of_listener(self) -> bool {
        matches!(
            self,
            Self::ListenerClosed
                | Self::ListenerReset
                | Self::ListenerTerminated
                | Self::ListenerHalfOpen
        )
    }

    fn rule(self) -> Option<Rule> {
        Some(match self {
            Self::AllSwallowed => Rule::Swallow(BOTH),
            Self::QuestionsSwallowed => Rule::Swallow(&[Way::ToServer]),
            Self::AnswersSwallowed => Rule::Swallow(&[Way::ToClient]),
            Self::Held => Rule::Hold,
            Self::Slow => Rule::Delay(Duration::from_millis(60)),
            Self::Cut => Rule::Refuse,
            Self::NotificationsLost => Rule::LoseNotifications,
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if self.kind.is_of_server() {
            return Ok(());
        }
        write!(f, " of node {}", self.node)
    }
}

/// A fault that has begun.
pub struct Ongoing {
    fault: Fault,
    transaction: Option<PgConnection>,
    /// How many things it has broken by now.
    hit: usize,
}

/// How long a listening session is waited for that is to be broken.
const UNTIL_IT_LISTENS: Duration = Duration::from_secs(2);

impl Fault {
    pub async fn begin(self, fleet: &Arc<Fleet>) -> Ongoing {
        fleet.judge.timeline.note(format_args!("{self} begins"));
        let proxy = &fleet.nodes[self.node].proxy;
        let mut ongoing = Ongoing {
            fault: self,
            transaction: None,
            hit: 0,
        };
        if self.kind.is_of_listener() {
            let since = Instant::now();
            while proxy.ports(Which::Listening).is_empty() && since.elapsed() < UNTIL_IT_LISTENS {
                sleep(Duration::from_millis(1)).await;
            }
        }
        ongoing.hit = match self.kind {
            Kind::ListenerClosed => proxy.close(Which::Listening),
            Kind::ListenerReset => proxy.reset(Which::Listening),
            Kind::ListenerHalfOpen => proxy.swallow(Which::Listening),
            Kind::ListenerTerminated => fleet.terminate(&proxy.ports(Which::Listening)).await,
            Kind::AllReset => proxy.reset(Which::All),
            Kind::AllTerminated => fleet.terminate(&proxy.ports(Which::All)).await,
            Kind::ServerPaused => fleet.of_server(|fleet| fleet.server.pause()).await,
            Kind::ServerRestarted => fleet.of_server(|fleet| fleet.server.stop()).await,
            Kind::ServerCrashed => fleet.of_server(|fleet| fleet.server.stop_at_once()).await,
            Kind::LongTransaction => {
                ongoing.transaction = long_transaction(fleet).await.ok();
                usize::from(ongoing.transaction.is_some())
            }
            _ => {
                proxy.set(self.kind.rule().unwrap());
                usize::from(self.kind != Kind::NotificationsLost)
            }
        };
        ongoing
    }
}

impl Ongoing {
    /// Whether there was something to break.
    pub async fn end(self, fleet: &Arc<Fleet>) -> bool {
        let lost = fleet.nodes[self.fault.node].proxy.take_lost_notifications();
        let kind = self.fault.kind;
        match kind {
            Kind::ServerPaused => drop(fleet.of_server(|fleet| fleet.server.resume()).await),
            Kind::ServerRestarted | Kind::ServerCrashed => {
                fleet.of_server(|fleet| fleet.server.start_again()).await;
            }
            Kind::LongTransaction => drop(self.transaction),
            _ if kind.rule().is_some() => fleet.nodes[self.fault.node].proxy.set(Rule::Pass),
            // It was over at once.
            _ => {}
        }
        let fault = self.fault;
        fleet.judge.timeline.note(format_args!("{fault} ends"));
        self.hit + lost > 0
    }
}

impl Fleet {
    async fn of_server(self: &Arc<Self>, change: impl FnOnce(&Self) + Send + 'static) -> usize {
        let fleet = self.clone();
        // It waits for processes.
        spawn_blocking(move || change(&fleet)).await.unwrap();
        1
    }

    /// Ends the sessions that come from these ports; how many there were.
    async fn terminate(&self, ports: &[u16]) -> usize {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        let list = ports.join(",");
        let terminate = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE client_port = ANY('{{{list}}}'::int[])"
        );
        let count = self.by_hand(&terminate).await;
        count.map_or(0, |count| usize::try_from(count).unwrap())
    }

    /// Runs statements on a connection of their own, as an operator would in `psql`; the number of
    /// rows that they gave or changed.
    pub async fn by_hand(&self, statements: &str) -> Result<u64, String> {
        let run = async {
            let mut connection = PgConnection::connect(&self.server.url()).await?;
            let statements = AssertSqlSafe(statements.to_owned());
            let done = raw_sql(statements).execute(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(done.rows_affected())
        };
        let limit = timeout(Duration::from_secs(2), run).await;
        let answer = limit.map_err(|_| "no answer from the server".to_owned())?;
        answer.map_err(|error| error.to_string())
    }
}

/// One that has written, and seen all there is, and neither commits nor ends.
async fn long_transaction(fleet: &Fleet) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect(&fleet.server.url()).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()";
    raw_sql(begin).execute(&mut connection).await?;
    Ok(connection)
}
