//! Reading what has changed from the log.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::Shared;
use crate::{
    backend::{
        Change, ChangeFeed,
        sql::{Lane, failed},
    },
    error::BackendError,
    sync::{hold_paused_clock, timeout, watch},
    token::{KeyId, LookupKey},
};

/// How many changes are read one by one. Where there are more, all is forgotten.
const MOST_CHANGES: i64 = 5_000;

/// A read that waits for longer is none: it has to be over well within a heartbeat.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct Feed {
    shared: Arc<Shared>,
    via: Via,
    written: watch::Receiver<()>,
    seen: Seen,
    /// Moves when there may be something to read.
    signal: i64,
}

enum Via {
    /// A connection of its own, which no look-up waits for, and which sees what all others commit.
    Own(SqliteConnection),
    /// The only one that sees the database in memory.
    Only,
}

/// Where the log ended, and what it was the log of.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    end: i64,
    schema: i64,
}

impl Feed {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, BackendError> {
        shared.check_file()?;
        let _clock = hold_paused_clock();
        let written = shared.written.subscribe();
        let mut via = match &shared.file {
            None => Via::Only,
            Some(file) => {
                let mut options = (*shared.pools.readers.connect_options())
                    .clone()
                    .create_if_missing(false)
                    .busy_timeout(BUSY_TIMEOUT);
                // The working directory may be another by now.
                if !options
                    .get_filename()
                    .to_string_lossy()
                    .starts_with("file:")
                {
                    options = options.filename(file.path());
                }
                Via::Own(options.connect().await.map_err(failed)?)
            }
        };
        let signal = via.signal(&shared).await?;
        let rows = via.log(&shared, i64::MAX).await?;
        let seen = seen(&rows)?;
        shared.check_file()?;
        Ok(Self {
            shared,
            via,
            written,
            seen,
            signal,
        })
    }

    async fn changes(&mut self) -> Result<Vec<Change>, BackendError> {
        let _clock = hold_paused_clock();
        let rows = self.via.log(&self.shared, self.seen.end).await?;
        let before = std::mem::replace(&mut self.seen, seen(&rows)?);
        if self.seen == before {
            return Ok(Vec::new());
        }
        // After a change to the schema, or where something was restored, the log may be another one.
        let is_another = self.seen.schema != before.schema || self.seen.end < before.end;
        if is_another || self.seen.end - before.end > MOST_CHANGES {
            return Ok(vec![Change::Everything]);
        }
        let mut changes = Vec::with_capacity(rows.len());
        for (row, expected) in rows.iter().zip(before.end + 1..) {
            // What is missing was pruned before it was read.
            if row.try_get::<Option<i64>, _>("seq").map_err(failed)? != Some(expected) {
                return Ok(vec![Change::Everything]);
            }
            changes.push(Change::Key(changed(row)?));
        }
        if changes.len() as u64 != before.end.abs_diff(self.seen.end) {
            return Ok(vec![Change::Everything]);
        }
        Ok(changes)
    }
}

fn changed(row: &SqliteRow) -> Result<LookupKey, BackendError> {
    let id: Vec<u8> = row.try_get("id").map_err(failed)?;
    match id.try_into() {
        Ok(id) => Ok(KeyId::from_bytes(id).lookup_key()),
        Err(_) => Err(BackendError::corrupt(
            "a change of an id that isn't 24 bytes",
        )),
    }
}

fn seen(rows: &[SqliteRow]) -> Result<Seen, BackendError> {
    let Some(row) = rows.first() else {
        return Err(BackendError::unavailable(
            "the log of changes gave no answer",
        ));
    };
    if !row.try_get::<bool, _>("is_written").map_err(failed)? {
        return Err(BackendError::unavailable(
            "the triggers that write the log of changes are gone",
        ));
    }
    Ok(Seen {
        end: row.try_get("log_end").map_err(failed)?,
        schema: row.try_get("schema").map_err(failed)?,
    })
}

impl ChangeFeed for Feed {
    async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
        self.written.borrow_and_update();
        let changes = self.changes().await?;
        // An answer from a file that was removed is no proof of anything.
        self.shared.check_file()?;
        Ok(changes)
    }

    async fn wait(&mut self) {
        loop {
            if let Ok(Ok(())) = timeout(self.shared.poll_every, self.written.changed()).await {
                return;
            }
            match self.via.signal(&self.shared).await {
                Ok(signal) if signal == self.signal => {}
                Ok(signal) => {
                    self.signal = signal;
                    return;
                }
                // The read is going to tell.
                Err(_) => return,
            }
        }
    }
}

impl Via {
    async fn signal(&mut self, shared: &Shared) -> Result<i64, BackendError> {
        let _clock = hold_paused_clock();
        let signal = match self {
            Self::Own(connection) => {
                sqlx::query_scalar("PRAGMA data_version")
                    .fetch_one(connection)
                    .await
            }
            // That one is for what other connections commit.
            Self::Only => {
                let mut reader = shared.pools.reader(Lane::Lookup).await?;
                sqlx::query_scalar(shared.statements.log_end.sql())
                    .fetch_one(&mut *reader)
                    .await
            }
        };
        signal.map_err(failed)
    }

    async fn log(&mut self, shared: &Shared, after: i64) -> Result<Vec<SqliteRow>, BackendError> {
        let query = sqlx::query(shared.statements.log.sql())
            .bind(after)
            .bind(MOST_CHANGES + 1);
        let rows = match self {
            Self::Own(connection) => query.fetch_all(connection).await,
            Self::Only => {
                query
                    .fetch_all(&mut *shared.pools.reader(Lane::Lookup).await?)
                    .await
            }
        };
        rows.map_err(failed)
    }
}
