//! A key and its successor, in one transaction, and what has to be known of old peppers.

use std::time::SystemTime;

use sqlx::Connection as _;

use super::{Shared, write_key};
use crate::{
    backend::{
        PepperUsage,
        sql::{Lane, failed, millis, read_pepper_check, read_pepper_usage},
    },
    error::BackendError,
    key::ApiKey,
    token::PepperCheck,
};

impl Shared {
    pub(super) async fn rotate(
        &self,
        successor: &ApiKey,
        old: &ApiKey,
        expected: i64,
    ) -> Result<bool, BackendError> {
        let write = async {
            // It is rolled back wherever this ends before the commit.
            let mut connection = self.pools.writer(Lane::Ordinary).await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let replace = sqlx::query(self.statements.replace_rotated.sql());
            let replace = write_key(replace, old).bind(expected);
            let add = write_key(sqlx::query(self.statements.insert.sql()), successor);
            for query in [replace, add] {
                if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                    transaction.rollback().await?;
                    return Ok(false);
                }
            }
            transaction.commit().await?;
            Ok(true)
        };
        self.write(write).await
    }

    pub(super) async fn pepper_usage(
        &self,
        now: SystemTime,
    ) -> Result<Vec<PepperUsage>, BackendError> {
        let rows: Vec<(Option<String>, i64, i64)> =
            sqlx::query_as(self.statements.pepper_usage.sql())
                .bind(millis(now))
                .fetch_all(&mut *self.pools.reader(Lane::Ordinary).await?)
                .await
                .map_err(failed)?;
        let read = |(pepper, keys, working)| read_pepper_usage(pepper, keys, working);
        rows.into_iter().map(read).collect()
    }

    pub(super) async fn pepper_checks(&self) -> Result<Vec<PepperCheck>, BackendError> {
        let rows: Vec<(String, String)> = sqlx::query_as(self.statements.pepper_checks.sql())
            .fetch_all(&mut *self.pools.reader(Lane::Ordinary).await?)
            .await
            .map_err(failed)?;
        let read = |(id, value): &(String, String)| read_pepper_check(id, value);
        rows.iter().map(read).collect()
    }
}
