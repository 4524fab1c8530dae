//! Grants in the file.

use std::time::SystemTime;

use sqlx::{
    Connection as _, Row as _, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Shared,
    records::write_key,
    statements::{ChangeAll, Statement},
};
use crate::{
    backend::{
        GrantInsertion, GrantLimits, GrantPageRequest,
        sql::{GRANT_COLUMNS, GrantRow, Lane, TablePrefix, failed, millis},
    },
    error::BackendError,
    key::{ApiKey, ClaimHash, GrantId, KeyGrant},
    token::KeyId,
};

pub(super) struct GrantStatements {
    count: Statement,
    revoke_orphans: Statement,
    insert: Statement,
    is_taken: Statement,
    by_hash: Statement,
    by_id: Statement,
    claim: Statement,
    revoke: Statement,
    revoke_of_user: ChangeAll,
    list: Statement,
    list_of_user: Statement,
    list_pending: Statement,
    list_pending_of_user: Statement,
}

impl GrantStatements {
    pub(super) fn new(prefix: &TablePrefix) -> Self {
        let grants = format!("main.{prefix}key_grants");
        let get = |by: &str| {
            Statement::from(format!(
                "SELECT {GRANT_COLUMNS} FROM {grants} WHERE {by} = ?"
            ))
        };
        let pending = "claimed_at IS NULL AND revoked_at IS NULL AND expires_at > ?1";
        let list = |which: &str| {
            Statement::from(format!(
                "SELECT {GRANT_COLUMNS} FROM {grants} WHERE {which} \
                 ORDER BY made_at DESC, id DESC LIMIT ?3"
            ))
        };
        let place = "(made_at, id) < (?1, ?2)";
        let open = "claimed_at IS NULL AND revoked_at IS NULL AND expires_at >";
        Self {
            count: format!(
                "SELECT count(*) FILTER (WHERE user_id = ?2), count(*) FROM {grants} WHERE {pending}"
            )
            .into(),
            // What was made with a key that is gone or revoked can't be claimed any more.
            revoke_orphans: format!(
                "UPDATE {grants} AS g SET revoked_at = ?1 WHERE {pending} AND made_by IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM main.{prefix}keys AS k \
                 WHERE k.id = g.made_by AND k.revoked_at IS NULL) AND ifnull(user_id = ?2, TRUE)"
            )
            .into(),
            insert: format!(
                "INSERT INTO {grants} ({GRANT_COLUMNS}) VALUES ({})",
                vec!["?"; GRANT_COLUMNS.split(',').count()].join(",")
            )
            .into(),
            is_taken: format!(
                "SELECT EXISTS (SELECT 1 FROM {grants} WHERE id = ?1 OR claim_hash = ?2)"
            )
            .into(),
            by_hash: get("claim_hash"),
            by_id: get("id"),
            claim: format!(
                "UPDATE {grants} SET claimed_at = ?1, key_id = ?2 WHERE id = ?3 AND {pending} AND \
                 (?4 IS NULL OR EXISTS (SELECT 1 FROM main.{prefix}keys WHERE id = ?4 AND version = ?5 \
                 AND revoked_at IS NULL))"
            )
            .into(),
            revoke: format!(
                "UPDATE {grants} SET revoked_at = ?1 \
                 WHERE id = ?2 AND claimed_at IS NULL AND revoked_at IS NULL"
            )
            .into(),
            revoke_of_user: ChangeAll::new(
                &format!(
                    "SELECT id FROM {grants} \
                     WHERE user_id = ?1 AND claimed_at IS NULL AND revoked_at IS NULL"
                ),
                &format!("UPDATE {grants} SET revoked_at = ?2 WHERE id IN ({{found}}) RETURNING 1"),
            ),
            list: list(place),
            list_of_user: list(&format!("{place} AND user_id = ?4")),
            // With the plus, the index is taken that has open grants alone: of them, there is a bounded number.
            list_pending: list(&format!("(+made_at, id) < (?1, ?2) AND {open} ?4")),
            list_pending_of_user: list(&format!("{place} AND user_id = ?4 AND {open} ?5")),
        }
    }
}

impl Shared {
    /// Nobody else writes between the count and the insertion.
    pub(super) async fn insert_grant(
        &self,
        grant: &KeyGrant,
        limits: &GrantLimits,
    ) -> Result<GrantInsertion, BackendError> {
        let statements = &self.statements.grants;
        let write = async {
            let mut connection = self.pools.writer(Lane::Ordinary).await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            if let Some(full) = room(&mut transaction, statements, grant, limits).await? {
                let of_user = full == GrantInsertion::UserIsFull;
                let orphans = sqlx::query(statements.revoke_orphans.sql())
                    .bind(millis(grant.made_at))
                    .bind(of_user.then_some(&grant.user_id));
                orphans.execute(&mut *transaction).await?;
                if let Some(full) = room(&mut transaction, statements, grant, limits).await? {
                    transaction.commit().await?;
                    return Ok(Some(full));
                }
            }
            let is_taken = sqlx::query(statements.is_taken.sql())
                .bind(grant.id.as_bytes().as_slice())
                .bind(grant.claim_hash.as_bytes().as_slice())
                .fetch_one(&mut *transaction)
                .await?;
            if is_taken.try_get(0)? {
                transaction.commit().await?;
                return Ok(Some(GrantInsertion::Taken));
            }
            let insert = write_grant(sqlx::query(statements.insert.sql()), grant);
            let is_stored = insert.execute(&mut *transaction).await?.rows_affected() > 0;
            transaction.commit().await?;
            Ok(is_stored.then_some(GrantInsertion::Stored))
        };
        self.write(write).await?.ok_or_else(BackendError::kept)
    }

    pub(super) async fn get_grant(
        &self,
        hash: &ClaimHash,
    ) -> Result<Option<KeyGrant>, BackendError> {
        let by_hash = &self.statements.grants.by_hash;
        self.grant(Lane::Ordinary, by_hash, hash.as_bytes()).await
    }

    pub(super) async fn get_grant_by_id(
        &self,
        id: &GrantId,
    ) -> Result<Option<KeyGrant>, BackendError> {
        let by_id = &self.statements.grants.by_id;
        self.grant(Lane::Revocation, by_id, id.as_bytes()).await
    }

    async fn grant(
        &self,
        lane: Lane,
        statement: &Statement,
        by: &[u8],
    ) -> Result<Option<KeyGrant>, BackendError> {
        let read = async {
            let query = sqlx::query(statement.sql()).bind(by);
            let mut reader = self.pools.reader(lane).await?;
            let row = query.fetch_optional(&mut *reader).await.map_err(failed)?;
            row.as_ref().map(read_grant).transpose()
        };
        self.read(read).await
    }

    /// Where the transaction isn't committed, it is rolled back: also where the caller has gone away.
    pub(super) async fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Result<bool, BackendError> {
        let (maker, version) = maker.unzip();
        let version = version.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
        let write = async {
            let mut connection = self.pools.writer(Lane::Ordinary).await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let claimed = sqlx::query(self.statements.grants.claim.sql())
                .bind(millis(key.created_at))
                .bind(key.id.as_bytes().as_slice())
                .bind(grant.as_bytes().as_slice())
                .bind(maker.as_ref().map(|maker| maker.as_bytes().as_slice()))
                .bind(version)
                .execute(&mut *transaction)
                .await?;
            if claimed.rows_affected() == 0 {
                return Ok(false);
            }
            let insert = write_key(sqlx::query(self.statements.insert.sql()), key);
            if insert.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
            transaction.commit().await?;
            Ok(true)
        };
        self.write(write).await
    }

    pub(super) async fn revoke_grant(
        &self,
        grant: &GrantId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let query = sqlx::query(self.statements.grants.revoke.sql())
            .bind(millis(at))
            .bind(grant.as_bytes().as_slice());
        Ok(self.changed(Lane::Revocation, query).await? > 0)
    }

    pub(super) async fn revoke_grants_of_user(
        &self,
        user_id: &str,
        at: SystemTime,
    ) -> Result<usize, BackendError> {
        let revoked = self.change_all(
            Lane::Revocation,
            &self.statements.grants.revoke_of_user,
            |query| query.bind(user_id.to_owned()),
            |query| query.bind(millis(at)),
        );
        Ok(revoked.await?.len())
    }

    pub(super) async fn list_grants(
        &self,
        page: &GrantPageRequest,
    ) -> Result<Vec<KeyGrant>, BackendError> {
        let statements = &self.statements.grants;
        // Later than every time, where there is no other end.
        let (made_at, id) = page
            .cursor()
            .map_or((i64::MAX, [0; GrantId::LEN]), |cursor| {
                (millis(cursor.made_at()), *cursor.id().as_bytes())
            });
        let statement = match (page.wanted_user(), page.pending_at()) {
            (None, None) => &statements.list,
            (Some(_), None) => &statements.list_of_user,
            (None, Some(_)) => &statements.list_pending,
            (Some(_), Some(_)) => &statements.list_pending_of_user,
        };
        let mut query = sqlx::query(statement.sql())
            .bind(made_at)
            .bind(id.to_vec())
            .bind(i64::try_from(page.max_grants()).unwrap_or(i64::MAX));
        if let Some(user_id) = page.wanted_user() {
            query = query.bind(user_id);
        }
        if let Some(at) = page.pending_at() {
            query = query.bind(millis(at));
        }
        let read = async {
            let mut reader = self.pools.reader(Lane::Ordinary).await?;
            let rows = query.fetch_all(&mut *reader).await.map_err(failed)?;
            rows.iter().map(read_grant).collect()
        };
        self.read(read).await
    }
}

/// Why there is none, where there isn't.
async fn room(
    connection: &mut SqliteConnection,
    statements: &GrantStatements,
    grant: &KeyGrant,
    limits: &GrantLimits,
) -> Result<Option<GrantInsertion>, sqlx::Error> {
    let pending = sqlx::query(statements.count.sql())
        .bind(millis(grant.made_at))
        .bind(&grant.user_id)
        .fetch_one(connection)
        .await?;
    let limit = |limit| i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(
        if pending.try_get::<i64, _>(0)? >= limit(limits.max_per_user()) {
            Some(GrantInsertion::UserIsFull)
        } else if pending.try_get::<i64, _>(1)? >= limit(limits.max_in_all()) {
            Some(GrantInsertion::Full)
        } else {
            None
        },
    )
}

fn read_grant(row: &SqliteRow) -> Result<KeyGrant, BackendError> {
    read_row(row).map_err(failed)?.into_grant()
}

fn read_row(row: &SqliteRow) -> Result<GrantRow, sqlx::Error> {
    Ok(GrantRow {
        id: row.try_get(0)?,
        claim_hash: row.try_get(1)?,
        user_id: row.try_get(2)?,
        name: row.try_get(3)?,
        scopes: row.try_get(4)?,
        unrestricted: row.try_get(5)?,
        metadata: row.try_get(6)?,
        key_expires_at: row.try_get(7)?,
        key_lifetime: row.try_get(8)?,
        made_by: row.try_get(9)?,
        made_at: row.try_get(10)?,
        expires_at: row.try_get(11)?,
        claimed_at: row.try_get(12)?,
        key_id: row.try_get(13)?,
        revoked_at: row.try_get(14)?,
    })
}

/// Binds all columns in their order.
fn write_grant<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    grant: &KeyGrant,
) -> Query<'q, Sqlite, SqliteArguments> {
    let row = GrantRow::of(grant);
    query
        .bind(row.id)
        .bind(row.claim_hash)
        .bind(row.user_id)
        .bind(row.name)
        .bind(row.scopes)
        .bind(row.unrestricted)
        .bind(row.metadata)
        .bind(row.key_expires_at)
        .bind(row.key_lifetime)
        .bind(row.made_by)
        .bind(row.made_at)
        .bind(row.expires_at)
        .bind(row.claimed_at)
        .bind(row.key_id)
        .bind(row.revoked_at)
}
