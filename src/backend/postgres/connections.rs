//! Connections of our own.

use std::{
    mem,
    sync::PoisonError,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use super::super::sql::failed;
use crate::{
    error::BackendError,
    sync::{Mutex, MutexGuard, timeout},
};

/// One that was idle for longer is asked whether it is still there before it is used.
const FRESH: Duration = Duration::from_secs(1);

/// Connections that are made when they are needed. The caller bounds how many are lent at once.
///
/// It isn't a pool of sqlx's because that one asks a connection for a sign of life when it is given
/// back, and waits for as long as it takes: where the other end has gone without a word, the place is
/// never free again.
pub(super) struct Connections {
    options: PgConnectOptions,
    acquire_timeout: Duration,
    max: u32,
    /// The last one was used last.
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, max: u32, acquire_timeout: Duration) -> Self {
        Self {
            options,
            acquire_timeout,
            max,
            idle: Mutex::default(),
        }
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// How many may be lent at once.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// Takes an idle connection, or makes one. Put a time limit around it.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, BackendError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some((connection, since)) if since.elapsed() < FRESH => Some(connection),
            Some((connection, since)) => self.still_there(connection, since).await,
            None => None,
        };
        let connection = match connection {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(failed)?,
        };
        Ok(Lent {
            from: self,
            connection,
        })
    }

    /// The connection, if its other end answers. If not, those that were used before it aren't there
    /// either.
    async fn still_there(
        &self,
        mut connection: PgConnection,
        since: Instant,
    ) -> Option<PgConnection> {
        let answered = timeout(self.acquire_timeout / 2, connection.ping()).await;
        if matches!(answered, Ok(Ok(()))) {
            return Some(connection);
        }
        self.close_used_before(since);
        None
    }

    fn close_used_before(&self, moment: Instant) {
        let mut idle = self.idle();
        let (older, newer): (Vec<_>, _) = mem::take(&mut *idle)
            .into_iter()
            .partition(|(_, since)| *since <= moment);
        *idle = newer;
        drop(idle);
        drop(older);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. It is closed where it isn't given back.
pub(super) struct Lent<'a> {
    from: &'a Connections,
    pub(super) connection: PgConnection,
}

impl Lent<'_> {
    pub(super) fn give_back(self) {
        let back = (self.connection, Instant::now());
        self.from.idle().push(back);
    }
}
