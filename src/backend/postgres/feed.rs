//! What has changed, as the log of changes tells it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Row, postgres::PgRow};

use super::{
    super::sql::failed, Shared, listening::Listening, schema::not_logged, session::trusted,
    statements::query, time::Timestamp,
};
use crate::{
    backend::{Change, ChangeFeed},
    error::BackendError,
    sync::hold_paused_clock,
    token::KeyId,
};

/// Beyond this many changes at once, all records are read anew.
const MAX_CHANGES: u16 = 10_000;
/// How often a feed deletes old changes.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How many it deletes at once. Where there are more, it goes on when it waits the next time.
const PRUNE_BATCH: i64 = 5_000;

/// The log is read in the session that listens: so its answer proves that the session isn't deaf.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    listening: Listening,
    session: SessionId,
    /// What the last read could see.
    pub(super) snapshot: String,
    /// What logged changes then.
    logging: String,
    pruned_at: Option<Instant>,
    prunes: bool,
}

/// Which process answers, of which start of the server. Where something between us and the server
/// moves our statements to another one, nobody listens there.
#[derive(PartialEq, Eq)]
struct SessionId {
    process: i32,
    server_start: Timestamp,
}

impl SessionId {
    fn of(row: &PgRow) -> Result<Self, BackendError> {
        Ok(Self {
            process: row.try_get("process").map_err(failed)?,
            server_start: row.try_get("server_start").map_err(failed)?,
        })
    }
}

impl Feed {
    /// Begins to listen, and then notes what can be seen.
    pub(super) async fn start(shared: Arc<Shared>) -> Result<Self, BackendError> {
        let _clock = hold_paused_clock();
        let pool = shared.sessions.from.listening_pool().await?;
        let mut listening = Listening::connect(&pool).await?;
        listening.run(shared.listening_settings()).await?;
        listening.listen(&shared.channel).await?;
        let rows = listening
            .rows(query(&shared.statements.start_reading))
            .await?;
        let row = trusted(&rows)?;
        Ok(Self {
            logging: logging(row, &shared)?,
            listening,
            session: SessionId::of(row)?,
            snapshot: row.try_get("snapshot").map_err(failed)?,
            pruned_at: None,
            prunes: true,
            shared,
        })
    }

    /// What the rows say; notes the snapshot that they are from.
    fn take(&mut self, rows: &[PgRow]) -> Result<Vec<Change>, BackendError> {
        let row = trusted(rows)?;
        if SessionId::of(row)? != self.session {
            return Err(BackendError::unavailable(
                "another session answers than the one that listens: \
                 something between us and PostgreSQL shares sessions",
            ));
        }
        if !row.try_get("goes_on").map_err(failed)? {
            return Err(BackendError::unavailable(
                "the server has gone back in time",
            ));
        }
        let logging = logging(row, &self.shared)?;
        let was_logged = logging == self.logging;
        let is_pruned: bool = row.try_get("is_pruned").map_err(failed)?;
        let changes = if is_pruned || !was_logged || rows.len() > usize::from(MAX_CHANGES) {
            vec![Change::Everything]
        } else {
            let changes = rows.iter().filter_map(|row| change(row).transpose());
            changes.collect::<Result<_, _>>()?
        };
        self.snapshot = row.try_get("snapshot").map_err(failed)?;
        self.logging = logging;
        Ok(changes)
    }

    /// Deletes old changes now and then. Who can't leaves it to the other nodes, which may have the right
    /// to.
    async fn prune(&mut self) {
        let is_due = |at: Instant| at.elapsed() >= PRUNE_EVERY;
        if self.prunes && self.pruned_at.is_none_or(is_due) {
            self.pruned_at = Some(Instant::now());
            let _clock = hold_paused_clock();
            let lock = self.shared.names.pruning_lock();
            let prune = query(&self.shared.statements.prune)
                .bind(lock)
                .bind(PRUNE_BATCH);
            match self.listening.rows(prune).await.and_then(|it| deleted(&it)) {
                Ok(PRUNE_BATCH..) => self.pruned_at = None,
                Ok(_) => {}
                Err(_) => self.prunes = false,
            }
        }
    }
}

fn deleted(rows: &[PgRow]) -> Result<i64, BackendError> {
    let deleted = rows.first().map(|row| row.try_get("deleted"));
    deleted.unwrap_or(Ok(0)).map_err(failed)
}

/// What logs changes.
fn logging(row: &PgRow, shared: &Shared) -> Result<String, BackendError> {
    if row.try_get("is_logged").map_err(failed)? {
        row.try_get("logging").map_err(failed)
    } else {
        Err(BackendError::unavailable(not_logged(&shared.names)))
    }
}

fn change(row: &PgRow) -> Result<Option<Change>, BackendError> {
    if !row.try_get("is_change").map_err(failed)? {
        return Ok(None);
    }
    let id: Option<Vec<u8>> = row.try_get("id").map_err(failed)?;
    let id = id.and_then(|id| <[u8; KeyId::LEN]>::try_from(id).ok());
    Ok(Some(id.map_or(Change::Everything, |id| {
        Change::Key(KeyId::from_bytes(id).lookup_key())
    })))
}

impl ChangeFeed for Feed {
    async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
        let _clock = hold_paused_clock();
        let read = query(&self.shared.statements.read)
            .bind(self.snapshot.clone())
            .bind(i64::from(MAX_CHANGES) + 1);
        let rows = self.listening.rows(read).await?;
        self.take(&rows)
    }

    async fn wait(&mut self) {
        // Here, where what was read has been applied.
        self.prune().await;
        self.listening.hear().await;
    }
}
