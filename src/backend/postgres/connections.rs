//! Connections of our own.

use std::{
    mem,
    sync::PoisonError,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::{super::sql::failed, credentials::Credentials};
use crate::{
    error::BackendError,
    sync::{Mutex, MutexGuard, RuntimeId, runtime_id, timeout},
};

/// One that was idle for longer is asked whether it is still there before it is used.
const FRESH: Duration = Duration::from_secs(1);

/// Connections that are made when they are needed. The caller bounds how many are lent at once.
///
/// It isn't a pool of sqlx's because that one asks a connection for a sign of life when it is given
/// back, and waits for as long as it takes: where the other end has gone without a word, the place is
/// never free again.
///
/// A connection is used only in the runtime that it was made in: it needs that one's driver, which
/// may have ended, or stand still.
pub(super) struct Connections {
    pub(super) credentials: Credentials,
    /// Statements that each new connection runs first.
    settings: String,
    acquire_timeout: Duration,
    max: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last one was used last.
    idle: Vec<Idle>,
    lent: usize,
}

struct Idle {
    connection: PgConnection,
    since: Instant,
    runtime: Option<RuntimeId>,
}

impl Connections {
    pub(super) fn new(
        credentials: Credentials,
        settings: String,
        max: u32,
        acquire_timeout: Duration,
    ) -> Self {
        Self {
            credentials,
            settings,
            acquire_timeout,
            max,
            state: Mutex::default(),
        }
    }

    /// How many may be lent at once.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// Takes an idle connection, or makes one. Put a time limit around it.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, BackendError> {
        let runtime = runtime_id();
        let (idle, slot) = self.take_idle(runtime);
        let connection = match idle {
            Some(idle) if idle.since.elapsed() < FRESH => Some(idle.connection),
            Some(idle) => self.still_there(idle).await,
            None => None,
        };
        let connection = match connection {
            Some(connection) => connection,
            // Boxed, since it is large, and part of every call's future.
            None => Box::pin(self.connect()).await?,
        };
        Ok(Lent {
            slot,
            connection,
            runtime,
        })
    }

    async fn connect(&self) -> Result<PgConnection, BackendError> {
        let options = self.credentials.current().await?;
        let mut connection = options.connect().await.map_err(failed)?;
        let settings = sqlx::raw_sql(AssertSqlSafe(self.settings.clone()));
        settings.execute(&mut connection).await.map_err(failed)?;
        Ok(connection)
    }

    /// The connection of `runtime` that was used last. Where there is none, and no room for
    /// another, one of another runtime is closed, which waits for nothing.
    fn take_idle(&self, runtime: Option<RuntimeId>) -> (Option<Idle>, Slot<'_>) {
        let mut state = self.state();
        state.lent += 1;
        let own = state.idle.iter().rposition(|idle| idle.runtime == runtime);
        let own = own.map(|at| state.idle.remove(at));
        let max = usize::try_from(self.max).unwrap_or(usize::MAX);
        let is_full = state.idle.len() + state.lent > max && !state.idle.is_empty();
        let closed = (own.is_none() && is_full).then(|| state.idle.remove(0));
        drop(state);
        drop(closed);
        (own, Slot(self))
    }

    /// The connection, if its other end answers. If not, those that were used before it aren't there
    /// either.
    async fn still_there(&self, mut idle: Idle) -> Option<PgConnection> {
        let answered = timeout(self.acquire_timeout / 2, idle.connection.ping()).await;
        if matches!(answered, Ok(Ok(()))) {
            return Some(idle.connection);
        }
        self.close_used_before(idle.since);
        None
    }

    fn close_used_before(&self, moment: Instant) {
        let mut state = self.state();
        let (older, newer): (Vec<_>, _) = mem::take(&mut state.idle)
            .into_iter()
            .partition(|idle| idle.since <= moment);
        state.idle = newer;
        drop(state);
        drop(older);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. It is closed where it isn't given back.
pub(super) struct Lent<'a> {
    slot: Slot<'a>,
    pub(super) connection: PgConnection,
    runtime: Option<RuntimeId>,
}

/// Counts as lent until it is dropped.
struct Slot<'a>(&'a Connections);

impl Lent<'_> {
    pub(super) fn give_back(self) {
        let back = Idle {
            connection: self.connection,
            since: Instant::now(),
            runtime: self.runtime,
        };
        self.slot.0.state().idle.push(back);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state().lent -= 1;
    }
}
