//! The session that listens.

use sqlx::{
    AssertSqlSafe, PgPool, Postgres,
    postgres::{PgArguments, PgListener, PgRow},
    query::Query,
};

use super::super::sql::failed;
use crate::{error::BackendError, sync::drop_without_tasks};

/// A connection of its own that hears when something has changed. It isn't made anew where it breaks,
/// and it is closed when this is dropped.
pub(super) struct Listening {
    /// None once this is dropped.
    listener: Option<PgListener>,
    is_lost: bool,
}

impl Listening {
    /// Takes a connection from `pool`, and keeps it. It listens to nothing yet.
    pub(super) async fn connect(pool: &PgPool) -> Result<Self, BackendError> {
        let mut listener = PgListener::connect_with(pool).await.map_err(failed)?;
        listener.eager_reconnect(false);
        Ok(Self {
            listener: Some(listener),
            is_lost: false,
        })
    }

    /// Runs statements that give no rows, and prepares none.
    pub(super) async fn run(&mut self, statements: String) -> Result<(), BackendError> {
        let run = sqlx::raw_sql(AssertSqlSafe(statements)).execute(self.session()?);
        run.await.map(drop).map_err(failed)
    }

    pub(super) async fn listen(&mut self, channel: &str) -> Result<(), BackendError> {
        self.session()?.listen(channel).await.map_err(failed)
    }

    pub(super) async fn rows(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, BackendError> {
        query.fetch_all(self.session()?).await.map_err(failed)
    }

    /// Returns when something was announced, or the connection is lost. Then every query fails.
    pub(super) async fn hear(&mut self) {
        let Ok(session) = self.session() else {
            return;
        };
        match session.try_recv().await {
            // What else was announced is read at the same time.
            Ok(Some(_)) => while session.next_buffered().is_some() {},
            Ok(None) | Err(_) => self.is_lost = true,
        }
    }

    pub(super) fn session(&mut self) -> Result<&mut PgListener, BackendError> {
        let lost = || BackendError::unavailable("the connection that listens is lost");
        self.listener
            .as_mut()
            .filter(|_| !self.is_lost)
            .ok_or_else(lost)
    }
}

/// A listener that is dropped says goodbye to the server in a task, and waits for the answer. From a
/// server that is gone there is none.
impl Drop for Listening {
    fn drop(&mut self) {
        drop_without_tasks(self.listener.take());
    }
}
