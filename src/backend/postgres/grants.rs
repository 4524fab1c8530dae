//! Grants in the database.

use std::{sync::Arc, time::SystemTime};

use sqlx::{
    AssertSqlSafe, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{
    Shared,
    lists::MAX_LOOKS,
    names::Names,
    row,
    session::Sessions,
    statements::{half_done, query},
    time::Timestamp,
};
use crate::{
    backend::{
        GrantInsertion, GrantLimits, GrantPageRequest,
        sql::{GRANT_COLUMNS, GrantRow, Lane, failed},
    },
    error::BackendError,
    key::{ApiKey, ClaimHash, GrantId, KeyGrant},
    token::KeyId,
};

pub(super) struct GrantStatements {
    begin: Arc<str>,
    insert: Arc<str>,
    revoke_orphans: Arc<str>,
    by_hash: Arc<str>,
    by_id: Arc<str>,
    claim: Arc<str>,
    revoke: Arc<str>,
    revoke_of_user: Arc<str>,
    list: Arc<str>,
    list_of_user: Arc<str>,
    list_pending: Arc<str>,
    list_pending_of_user: Arc<str>,
}

impl GrantStatements {
    pub(super) fn new(names: &Names) -> Self {
        let fill = |template: &str| {
            let filled = names.fill(&template.replace("{grant_columns}", GRANT_COLUMNS));
            Arc::from(filled.replace("{lock}", &names.grants_lock().to_string()))
        };
        let list = |which: &str| fill(&LIST.replace("{which}", which));
        Self {
            begin: fill(BEGIN),
            insert: fill(INSERT),
            revoke_orphans: fill(REVOKE_ORPHANS),
            by_hash: fill(&GET.replace("{by}", "claim_hash")),
            by_id: fill(&GET.replace("{by}", "id")),
            claim: fill(&CLAIM.replace("{half_done}", &half_done())),
            revoke: fill(REVOKE),
            revoke_of_user: fill(REVOKE_OF_USER),
            list: list(""),
            list_of_user: list("AND user_id = $4"),
            list_pending: list(&format!("{OPEN} $4")),
            list_pending_of_user: list(&format!("AND user_id = $4 {OPEN} $5")),
        }
    }
}

/// Whose turn it is to count and to insert. What is counted afterwards has everything that others have
/// committed before they gave the lock up. It isn't kept for longer by a node that is gone.
const BEGIN: &str = "
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SELECT pg_advisory_xact_lock({lock})";

const INSERT: &str = "
WITH pending AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE user_id = $3) AS of_user, count(*) AS in_all FROM {grants}
    WHERE claimed_at IS NULL AND revoked_at IS NULL AND expires_at > $11
), stored AS (
    INSERT INTO {grants} ({grant_columns})
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15
    FROM pending WHERE of_user < $16 AND in_all < $17
    RETURNING id
)
SELECT of_user >= $16 AS user_is_full, in_all >= $17 AS is_full, EXISTS (SELECT FROM stored) AS is_stored
FROM pending";

/// What was made with a key that is gone or revoked can't be claimed any more.
const REVOKE_ORPHANS: &str = "
UPDATE {grants} AS g SET revoked_at = $1
WHERE claimed_at IS NULL AND revoked_at IS NULL AND expires_at > $1 AND made_by IS NOT NULL
    AND NOT EXISTS (SELECT FROM {keys} AS k WHERE k.id = g.made_by AND k.revoked_at IS NULL)
    AND ($2::text IS NULL OR user_id = $2)";

const GET: &str = "
SELECT {grants_distrust} AS distrust, g.id IS NOT NULL AS is_there, {grant_columns}
FROM (SELECT) AS always LEFT JOIN {grants} AS g ON g.{by} = $1";

/// One statement, so that nothing is ever half done, and no lock outlives it. It waits for a change
/// of the maker's key that is under way, and sees it then; one that comes later waits for this. The
/// lock is that of an update, so that a stream of claims doesn't overtake a revocation. An id that
/// another client takes at the same time is an error, which also undoes the mark.
const CLAIM: &str = "
WITH maker AS MATERIALIZED (
    SELECT id FROM {keys} WHERE id = $23 AND version = $24 AND revoked_at IS NULL
    FOR NO KEY UPDATE
), claimed AS (
    UPDATE {grants} SET claimed_at = $9, key_id = $1
    WHERE id = $22 AND claimed_at IS NULL AND revoked_at IS NULL AND expires_at > $9
        AND ($23 IS NULL OR EXISTS (SELECT FROM maker))
        AND NOT EXISTS (SELECT FROM {keys} WHERE id IN ($1, $21))
        AND NOT EXISTS (SELECT FROM {keys} WHERE digest_key IN ($1, $21))
    RETURNING id
), added AS (
    INSERT INTO {keys} ({columns}, digest_key)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
    FROM claimed
    RETURNING 1
)
SELECT 1 FROM added
UNION ALL SELECT {half_done} FROM claimed WHERE NOT EXISTS (SELECT FROM added)";

const REVOKE: &str = "
UPDATE {grants} SET revoked_at = $1
WHERE id = $2 AND claimed_at IS NULL AND revoked_at IS NULL
RETURNING 1";

/// Says whether there were any, which others may have claimed or revoked first.
const REVOKE_OF_USER: &str = "
WITH revoked AS (
    UPDATE {grants} SET revoked_at = $1
    WHERE user_id = $2 AND claimed_at IS NULL AND revoked_at IS NULL
    RETURNING 1
)
SELECT count(*) AS revoked, EXISTS (
    SELECT FROM {grants} WHERE user_id = $2 AND claimed_at IS NULL AND revoked_at IS NULL
) AS found FROM revoked";

const LIST: &str = "
SELECT {grants_distrust} AS distrust, g.id IS NOT NULL AS is_there, {grant_columns}
FROM (SELECT) AS always LEFT JOIN (
    SELECT {grant_columns} FROM {grants}
    WHERE (made_at, id) < ($1, $2) {which}
    ORDER BY made_at DESC, id DESC
    LIMIT $3
) AS g ON true
ORDER BY made_at DESC, id DESC";

/// Which can be claimed after a time.
const OPEN: &str = "AND claimed_at IS NULL AND revoked_at IS NULL AND expires_at >";

impl Shared {
    pub(super) async fn insert_grant(
        &self,
        grant: &KeyGrant,
        limits: &GrantLimits,
    ) -> Result<GrantInsertion, BackendError> {
        let statements = &self.statements.grants;
        let limit = |limit| i64::try_from(limit).unwrap_or(i64::MAX);
        let insert = || {
            write(query(&statements.insert), grant)
                .bind(limit(limits.max_per_user()))
                .bind(limit(limits.max_in_all()))
        };
        let sessions = &self.sessions;
        sessions
            .in_time(async {
                let mut session = sessions.session(Lane::Ordinary).await?;
                let connection = session.connection();
                let begin = sqlx::raw_sql(AssertSqlSafe(statements.begin.clone()));
                begin.execute(&mut *connection).await.map_err(failed)?;
                let row = insert().fetch_one(&mut *connection).await;
                let mut inserted = sessions.insertion(row)?;
                if let GrantInsertion::UserIsFull | GrantInsertion::Full = inserted {
                    let of_user = inserted == GrantInsertion::UserIsFull;
                    let orphans = query(&statements.revoke_orphans)
                        .bind(Timestamp::new(grant.made_at))
                        .bind(of_user.then_some(&grant.user_id));
                    let revoked = orphans.execute(&mut *connection).await.map_err(failed)?;
                    if revoked.rows_affected() > 0 {
                        let row = insert().fetch_one(&mut *connection).await;
                        inserted = sessions.insertion(row)?;
                    }
                }
                // A transaction in which a unique index has refused the grant is rolled back.
                let commit = sqlx::raw_sql("COMMIT").execute(&mut *connection).await;
                commit.map_err(failed)?;
                session.give_back();
                Ok(inserted)
            })
            .await
    }

    pub(super) async fn get_grant(
        &self,
        hash: &ClaimHash,
    ) -> Result<Option<KeyGrant>, BackendError> {
        let query = query(&self.statements.grants.by_hash).bind(hash.as_bytes().as_slice());
        Ok(grants(&self.sessions.rows(Lane::Ordinary, query).await?)?.pop())
    }

    pub(super) async fn get_grant_by_id(
        &self,
        id: &GrantId,
    ) -> Result<Option<KeyGrant>, BackendError> {
        let query = query(&self.statements.grants.by_id).bind(id.as_bytes().as_slice());
        Ok(grants(&self.sessions.rows(Lane::Revocation, query).await?)?.pop())
    }

    pub(super) async fn claim(
        &self,
        grant: &GrantId,
        key: &ApiKey,
        maker: Option<(KeyId, u64)>,
    ) -> Result<bool, BackendError> {
        let (maker, version) = maker.unzip();
        let version = version.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
        let claim = row::write(query(&self.statements.grants.claim), key)
            .bind(grant.as_bytes().as_slice())
            .bind(maker.as_ref().map(|maker| maker.as_bytes().as_slice()))
            .bind(version);
        self.sessions.inserted(claim).await
    }

    pub(super) async fn revoke_grant(
        &self,
        grant: &GrantId,
        at: SystemTime,
    ) -> Result<bool, BackendError> {
        let revoke = || {
            query(&self.statements.grants.revoke)
                .bind(Timestamp::new(at))
                .bind(grant.as_bytes().as_slice())
        };
        Ok(self.sessions.revoke(revoke).await?.len() == 1)
    }

    pub(super) async fn revoke_grants_of_user(
        &self,
        user_id: &str,
        at: SystemTime,
    ) -> Result<usize, BackendError> {
        if user_id.contains('\0') {
            return Ok(0);
        }
        let revoke = || {
            query(&self.statements.grants.revoke_of_user)
                .bind(Timestamp::new(at))
                .bind(user_id)
        };
        for _ in 0..MAX_LOOKS {
            let rows = self.sessions.revoke(revoke).await?;
            let count: i64 = rows[0].try_get("revoked").map_err(failed)?;
            if count > 0 || !rows[0].try_get("found").map_err(failed)? {
                return Ok(usize::try_from(count).unwrap_or(usize::MAX));
            }
        }
        Err(BackendError::kept())
    }

    pub(super) async fn list_grants(
        &self,
        page: &GrantPageRequest,
    ) -> Result<Vec<KeyGrant>, BackendError> {
        let statements = &self.statements.grants;
        // Text with NUL can't be stored, so nobody has this name.
        if page.wanted_user().is_some_and(|user| user.contains('\0')) {
            return Ok(Vec::new());
        }
        let (made_at, id) = page
            .cursor()
            .map_or((Timestamp::INFINITY, [0; GrantId::LEN]), |cursor| {
                (Timestamp::new(cursor.made_at()), *cursor.id().as_bytes())
            });
        let statement = match (page.wanted_user(), page.pending_at()) {
            (None, None) => &statements.list,
            (Some(_), None) => &statements.list_of_user,
            (None, Some(_)) => &statements.list_pending,
            (Some(_), Some(_)) => &statements.list_pending_of_user,
        };
        let mut query = query(statement)
            .bind(made_at)
            .bind(id.to_vec())
            .bind(i64::try_from(page.max_grants()).unwrap_or(i64::MAX));
        if let Some(user_id) = page.wanted_user() {
            query = query.bind(user_id);
        }
        if let Some(at) = page.pending_at() {
            query = query.bind(Timestamp::new(at));
        }
        grants(&self.sessions.rows(Lane::Ordinary, query).await?)
    }
}

impl Sessions {
    /// What came of an insertion.
    fn insertion(&self, row: Result<PgRow, sqlx::Error>) -> Result<GrantInsertion, BackendError> {
        let row = match row {
            Err(error) if self.is_taken(&error) => return Ok(GrantInsertion::Taken),
            row => row.map_err(failed)?,
        };
        let is = |column| row.try_get(column).map_err(failed);
        match (is("is_stored")?, is("user_is_full")?, is("is_full")?) {
            (true, _, _) => Ok(GrantInsertion::Stored),
            (false, true, _) => Ok(GrantInsertion::UserIsFull),
            (false, false, true) => Ok(GrantInsertion::Full),
            (false, false, false) => Err(BackendError::kept()),
        }
    }
}

/// The grants in the rows. One row says that there are none.
fn grants(rows: &[PgRow]) -> Result<Vec<KeyGrant>, BackendError> {
    let mut grants = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get("is_there").map_err(failed)? {
            grants.push(grant(row).map_err(failed)?.into_grant()?);
        }
    }
    Ok(grants)
}

/// Behind `in_recovery` and `is_there`.
fn grant(row: &PgRow) -> Result<GrantRow, sqlx::Error> {
    let time = |column: usize| {
        let time: Option<Timestamp> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(time.map(Timestamp::unix_millis))
    };
    let made_at: Timestamp = row.try_get(12)?;
    let expires_at: Timestamp = row.try_get(13)?;
    Ok(GrantRow {
        id: row.try_get(2)?,
        claim_hash: row.try_get(3)?,
        user_id: row.try_get(4)?,
        name: row.try_get(5)?,
        scopes: row.try_get(6)?,
        unrestricted: row.try_get(7)?,
        metadata: row.try_get(8)?,
        key_expires_at: time(9)?,
        key_lifetime: row.try_get(10)?,
        made_by: row.try_get(11)?,
        made_at: made_at.unix_millis(),
        expires_at: expires_at.unix_millis(),
        claimed_at: time(14)?,
        key_id: row.try_get(15)?,
        revoked_at: time(16)?,
    })
}

/// Binds all columns in their order.
fn write<'q>(
    query: Query<'q, Postgres, PgArguments>,
    grant: &KeyGrant,
) -> Query<'q, Postgres, PgArguments> {
    let row = GrantRow::of(grant);
    let time = |time: Option<SystemTime>| time.map(Timestamp::new);
    query
        .bind(row.id)
        .bind(row.claim_hash)
        .bind(row.user_id)
        .bind(row.name)
        .bind(row.scopes)
        .bind(row.unrestricted)
        .bind(row.metadata)
        .bind(time(grant.key_expires_at))
        .bind(row.key_lifetime)
        .bind(row.made_by)
        .bind(Timestamp::new(grant.made_at))
        .bind(Timestamp::new(grant.expires_at))
        .bind(time(grant.claimed_at))
        .bind(row.key_id)
        .bind(time(grant.revoked_at))
}
