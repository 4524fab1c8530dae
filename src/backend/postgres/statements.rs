//! The statements, with the names of the tables in them.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Postgres, postgres::PgArguments, query::Query};

use super::{grants::GrantStatements, names::Names};

/// Each is prepared once on each connection.
pub(super) struct Statements {
    pub(super) get_one: Arc<str>,
    pub(super) get_many: Arc<str>,
    pub(super) get_by_id: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) insert_made_by: Arc<str>,
    pub(super) update: Arc<str>,
    pub(super) delete: Arc<str>,
    pub(super) grants: GrantStatements,
    pub(super) rotate: Arc<str>,
    pub(super) pepper_usage: Arc<str>,
    pub(super) pepper_checks: Arc<str>,
    pub(super) insert_pepper_check: Arc<str>,
    pub(super) list: Arc<str>,
    pub(super) touch: Arc<str>,
    pub(super) revoke: Arc<str>,
    pub(super) revoke_of_user: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) purge_grants: Arc<str>,
    pub(super) start_reading: Arc<str>,
    pub(super) read: Arc<str>,
    pub(super) prune: Arc<str>,
}

impl Statements {
    pub(super) fn new(names: &Names) -> Self {
        let fill = |template: &str| Arc::from(names.fill(template));
        Self {
            get_one: fill(&GET_ONE.replace("{in_doubt}", IN_DOUBT)),
            get_many: fill(&GET_MANY.replace("{in_doubt}", IN_DOUBT)),
            get_by_id: fill(GET_BY_ID),
            insert: fill(INSERT),
            insert_made_by: fill(INSERT_MADE_BY),
            update: fill(UPDATE),
            delete: fill(DELETE),
            grants: GrantStatements::new(names),
            rotate: fill(
                &ROTATE
                    .replace("{update}", UPDATE)
                    .replace("{half_done}", &half_done()),
            ),
            pepper_usage: fill(PEPPER_USAGE),
            pepper_checks: fill(PEPPER_CHECKS),
            insert_pepper_check: fill(INSERT_PEPPER_CHECK),
            list: Arc::from(list_of(names, &names.fill(LIST))),
            touch: fill(TOUCH),
            revoke: fill(REVOKE),
            revoke_of_user: fill(REVOKE_OF_USER),
            purge: fill(PURGE),
            purge_grants: fill(PURGE_GRANTS),
            start_reading: Arc::from(start_reading(names)),
            read: fill(&READ.replace("{logging}", LOGGING)),
            prune: fill(PRUNE),
        }
    }
}

/// Also for the look at start, before there is a backend.
pub(super) fn start_reading(names: &Names) -> String {
    names.fill(&START_READING.replace("{logging}", LOGGING))
}

/// What `listed` lists, and in the same answer what kind of server it is, where nothing is listed, too.
pub(super) fn list_of(names: &Names, listed: &str) -> String {
    names.fill(LIST_OF).replace("{listed}", listed)
}

/// The names in it were checked, and everything else is an argument.
pub(super) fn query<'q>(statement: &Arc<str>) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(statement.clone()))
}

/// For one key, which is most reads where little is asked for: the server plans it once, and the one with
/// a list each time.
const GET_ONE: &str = "
SELECT {distrust} AS distrust, k.id IS NOT NULL AS is_there, {columns}, {in_doubt} AS in_doubt
FROM (SELECT) AS always LEFT JOIN (
    SELECT {columns} FROM {keys} WHERE id = $1 AND digest_key IS NULL
    UNION ALL SELECT {columns} FROM {keys} WHERE digest_key = $1
) AS k ON true";

/// Whether this may be a transaction that has begun before, and sees what was there then, or what it has written
/// itself. A look-up alone writes nothing, and is rarely under another isolation.
const IN_DOUBT: &str = "(current_setting('transaction_isolation') <> 'read committed'
        OR pg_current_xact_id_if_assigned() IS NOT NULL)";

/// The join says what kind of server it is, in the same answer, where there is no record, too.
const GET_MANY: &str = "
SELECT {distrust} AS distrust, k.id IS NOT NULL AS is_there, {columns}, {in_doubt} AS in_doubt
FROM (SELECT) AS always LEFT JOIN (
    SELECT {columns} FROM {keys} WHERE id = ANY($1) AND digest_key IS NULL
    UNION ALL SELECT {columns} FROM {keys} WHERE digest_key = ANY($1)
) AS k ON true";

const GET_BY_ID: &str = "
SELECT {distrust} AS distrust, k.id IS NOT NULL AS is_there, {columns}
FROM (SELECT) AS always LEFT JOIN {keys} AS k ON k.id = ANY($1)";

/// What one record is looked up by is no other's id, though they are in two columns. Unique indexes
/// tell of a record that another client inserts at the same time: an `ON CONFLICT` would also hide
/// what an operator's own indexes refuse.
const INSERT: &str = "
INSERT INTO {keys} ({columns}, digest_key) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
    $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
WHERE NOT EXISTS (SELECT FROM {keys} WHERE id IN ($1, $21))
    AND NOT EXISTS (SELECT FROM {keys} WHERE digest_key IN ($1, $21))";

/// Locks the maker's row as an update does. It waits for a change of that row that is under way,
/// and sees it then; a change that comes later waits for this. Locks that conflict with each other
/// are granted in the order of the requests. Shared locks would let a stream of creations overtake
/// a revocation of the maker's key without end.
const INSERT_MADE_BY: &str = "
WITH maker AS MATERIALIZED (
    SELECT FROM {keys} WHERE id = $22 AND version = $23 AND revoked_at IS NULL
    FOR NO KEY UPDATE
)
INSERT INTO {keys} ({columns}, digest_key) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
    $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
FROM maker
WHERE NOT EXISTS (SELECT FROM {keys} WHERE id IN ($1, $21))
    AND NOT EXISTS (SELECT FROM {keys} WHERE digest_key IN ($1, $21))";

/// The places are those of the columns, and behind them the version that is expected.
const UPDATE: &str = "
UPDATE {keys} SET name = $3, scopes = $4, unrestricted = $5, display_prefix = $6, pepper = $7,
    secret_hash = $8, expires_at = $10, last_used_at = GREATEST(last_used_at, $11),
    revocation_reason = CASE WHEN revoked_at IS NULL THEN $16 ELSE revocation_reason END,
    revoked_at = COALESCE(revoked_at, $12), disabled_at = $13, version = $14,
    retires_at = $15, metadata = $17, successor = $19, digest_key = $21
WHERE id = $1 AND version = $22";

const DELETE: &str = "DELETE FROM {keys} WHERE id = $1";

/// The successor's columns are behind those of the update and its version. It is added only where
/// the old one is locked with that version, and the old one replaced only where the successor was
/// added. Rows of other tables that refer to the key don't delay this lock.
const ROTATE: &str = "
WITH locked AS MATERIALIZED (
    SELECT FROM {keys} WHERE id = $1 AND version = $22 AND revoked_at IS NULL
    FOR NO KEY UPDATE
), added AS (
    INSERT INTO {keys} ({columns}, digest_key)
    SELECT $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39,
        $40, $41, $42, $43 FROM locked
    WHERE NOT EXISTS (SELECT FROM {keys} WHERE id IN ($23, $43))
        AND NOT EXISTS (SELECT FROM {keys} WHERE digest_key IN ($23, $43))
    RETURNING 1
), changed AS ({update} AND EXISTS (SELECT FROM added)
    RETURNING 1
)
SELECT 1 FROM changed
UNION ALL SELECT {half_done} FROM added WHERE NOT EXISTS (SELECT FROM changed)";

/// Raises an error that undoes a statement of which the database kept one part from happening, by a
/// trigger for example. No constant, which would be evaluated when the statement is planned.
const HALF_DONE: &str = "CAST('{is_half_done}: ' || current_user AS int)";

/// What the error says.
pub(super) const IS_HALF_DONE: &str = "half of the statement was kept from happening";

pub(super) fn half_done() -> String {
    HALF_DONE.replace("{is_half_done}", IS_HALF_DONE)
}

const PEPPER_USAGE: &str = "
SELECT {distrust} AS distrust, u.keys IS NOT NULL, u.pepper, u.keys, u.working
FROM (SELECT) AS always LEFT JOIN (
    SELECT pepper, count(*) AS keys, count(*) FILTER (
        WHERE revoked_at IS NULL AND coalesce(LEAST(expires_at, retires_at) > $1, true)
    ) AS working
    FROM {keys} GROUP BY pepper
) AS u ON true";

const PEPPER_CHECKS: &str = "
SELECT {peppers_distrust} AS distrust, p.id IS NOT NULL, p.id, p.check_value
FROM (SELECT) AS always LEFT JOIN {peppers} AS p ON true";

const INSERT_PEPPER_CHECK: &str = "
INSERT INTO {peppers} (id, check_value) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";

const LIST: &str = "
    SELECT {columns} FROM {keys}
    WHERE user_id = $1 AND (created_at, id) < ($2, $3)
    ORDER BY created_at DESC, id DESC
    LIMIT $4";

const LIST_OF: &str = "
SELECT {distrust} AS distrust, k.id IS NOT NULL AS is_there, {columns}
FROM (SELECT) AS always LEFT JOIN ({listed}) AS k ON true
ORDER BY created_at DESC, id DESC";

/// It waits for others who change the record, and then finds what they left. The largest version
/// stays where it is.
const REVOKE: &str = "
UPDATE {keys} SET revoked_at = $2, revocation_reason = $3,
    version = LEAST(version, 9223372036854775806) + 1
WHERE id = $1 AND revoked_at IS NULL
RETURNING 1";

/// The oldest first. What is found is locked in the order of the ids, as by every other node, and looked at again.
/// Where others have revoked all of it meanwhile, there may be more: how many were found is in each row.
const REVOKE_OF_USER: &str = "
WITH found AS MATERIALIZED (
    SELECT id FROM {keys} WHERE user_id = $1 AND revoked_at IS NULL ORDER BY created_at, id LIMIT $4
), locked AS MATERIALIZED (
    SELECT k.id FROM {keys} AS k JOIN found ON found.id = k.id WHERE k.revoked_at IS NULL
    ORDER BY k.id FOR NO KEY UPDATE OF k
), ended AS (
    UPDATE {keys} AS k SET revoked_at = $2, revocation_reason = $3, 
        version = LEAST(k.version, 9223372036854775806) + 1
    FROM locked WHERE k.id = locked.id AND k.revoked_at IS NULL
    RETURNING k.id, coalesce(k.digest_key, k.id) AS lookup_key
)
SELECT {distrust} AS distrust, ended.id IS NOT NULL AS is_there, ended.id, lookup_key,
    (SELECT count(*) FROM found) AS found
FROM (SELECT) AS always LEFT JOIN ended ON true";

/// The oldest go first, so that an index leads to them, however many of the table are to go.
///
/// What is found is locked in the order of the ids, and looked at again: a key that was renewed meanwhile
/// doesn't fit any more. One that is found twice makes the batch smaller, and no other difference.
///
/// A node whose clock is ahead takes nothing away that hasn't ended by the server's.
///
/// Where nothing is removed, what was found says whether there may be more: another may have removed just that.
const PURGE: &str = "
WITH found AS MATERIALIZED (
    (SELECT id FROM {keys} WHERE revoked_at < LEAST($1, now()) AND digest_key IS NULL
        ORDER BY revoked_at LIMIT $2)
    UNION ALL (SELECT id FROM {keys}
        WHERE LEAST(expires_at, retires_at) < LEAST($1, now()) AND digest_key IS NULL
        ORDER BY LEAST(expires_at, retires_at) LIMIT $2)
    LIMIT $2
), locked AS MATERIALIZED (
    SELECT k.id FROM {keys} AS k JOIN (SELECT DISTINCT id FROM found) AS found ON found.id = k.id
    WHERE (k.revoked_at < LEAST($1, now()) OR LEAST(k.expires_at, k.retires_at) < LEAST($1, now()))
        AND k.digest_key IS NULL
    ORDER BY k.id
    FOR UPDATE OF k
), gone AS (
    DELETE FROM {keys} AS k USING locked WHERE k.id = locked.id
        AND (k.revoked_at < LEAST($1, now()) OR LEAST(k.expires_at, k.retires_at) < LEAST($1, now()))
        AND k.digest_key IS NULL
    RETURNING 1
)
SELECT {distrust} AS distrust, (SELECT count(*) FROM found) AS found,
    (SELECT count(*) FROM gone) AS removed";

const PURGE_GRANTS: &str = "
WITH found AS MATERIALIZED (
    (SELECT id FROM {grants} WHERE claimed_at < LEAST($1, now()) ORDER BY claimed_at LIMIT $2)
    UNION ALL (SELECT id FROM {grants} WHERE revoked_at < LEAST($1, now()) ORDER BY revoked_at LIMIT $2)
    UNION ALL (SELECT id FROM {grants}
        WHERE expires_at < LEAST($1, now()) AND claimed_at IS NULL AND revoked_at IS NULL
        ORDER BY expires_at LIMIT $2)
    LIMIT $2
), locked AS MATERIALIZED (
    SELECT g.id FROM {grants} AS g JOIN (SELECT DISTINCT id FROM found) AS found ON found.id = g.id
    WHERE g.claimed_at < LEAST($1, now()) OR g.revoked_at < LEAST($1, now())
        OR g.expires_at < LEAST($1, now()) AND g.claimed_at IS NULL AND g.revoked_at IS NULL
    ORDER BY g.id
    FOR UPDATE OF g
), gone AS (
    DELETE FROM {grants} AS g USING locked WHERE g.id = locked.id
        AND (g.claimed_at < LEAST($1, now()) OR g.revoked_at < LEAST($1, now())
            OR g.expires_at < LEAST($1, now()) AND g.claimed_at IS NULL AND g.revoked_at IS NULL)
    RETURNING 1
)
SELECT {grants_distrust} AS distrust, (SELECT count(*) FROM found) AS found,
    (SELECT count(*) FROM gone) AS removed";

/// Records are locked in the order of their ids, as by every other node, so that no two of them wait
/// for each other.
const TOUCH: &str = "
WITH used AS (
    SELECT id, max(used_at) AS used_at FROM unnest($1, $2) AS given (id, used_at) GROUP BY id
), locked AS (
    SELECT k.id, used.used_at FROM {keys} AS k JOIN used ON used.id = k.id
    WHERE k.last_used_at IS NULL OR k.last_used_at < used.used_at
    ORDER BY k.id
    FOR NO KEY UPDATE OF k
)
UPDATE {keys} AS k SET last_used_at = GREATEST(k.last_used_at, locked.used_at)
FROM locked WHERE k.id = locked.id";

/// Which session it is, and what it can see by now.
const START_READING: &str = "
SELECT {log_distrust} AS distrust, pg_current_snapshot()::text AS snapshot,
    pg_backend_pid() AS process, pg_postmaster_start_time() AS server_start, {logging}";

/// In one snapshot: what it can see that the snapshot before ($1) could not. Transactions commit in
/// another order than they begin, so it isn't enough to go on from the last one seen: those that
/// were open then are looked for one by one. So what was read isn't read again, however long one of
/// them stays open. A number that is still to come was written by another server, before its tables
/// were copied here.
const READ: &str = "
SELECT {log_distrust} AS distrust, pg_current_snapshot()::text AS snapshot,
    pg_backend_pid() AS process, pg_postmaster_start_time() AS server_start,
    pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax($1::text::pg_snapshot) AS goes_on,
    s.pruned >= pg_snapshot_xmin($1::text::pg_snapshot)
        AND s.pruned < pg_snapshot_xmax(pg_current_snapshot()) AS is_pruned,
    l.is_logged, l.logging, c.seq IS NOT NULL AS is_change, c.id
FROM {state} AS s CROSS JOIN (SELECT {logging}) AS l LEFT JOIN (
    SELECT seq, id FROM {changes}
    WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
        AND xid < pg_snapshot_xmax(pg_current_snapshot())
    UNION ALL
    SELECT seq, id FROM {changes}
    WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    LIMIT $2
) AS c ON true";

/// Whether all changes are logged, and what logs them, so that it shows where that was another thing for a
/// while: a change that isn't logged is never told. One that is made by way of another table, which this
/// one inherits from or is a partition of, isn't.
const LOGGING: &str = "(
        (SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('{keys}')
            AND tgname = ANY (ARRAY['{prefix}key_inserted', '{prefix}key_updated',
                '{prefix}key_deleted', '{prefix}key_truncated', '{prefix}key_version'])
            AND tgenabled IN ('O', 'A')) = 5
        AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('{keys}')
            AND tgname = '{prefix}key_replicated' AND tgenabled IN ('R', 'A'))
        AND NOT EXISTS (SELECT FROM pg_inherits
            WHERE to_regclass('{keys}') IN (inhrelid, inhparent))
    ) AS is_logged,
    coalesce((SELECT string_agg(oid || ' ' || xmin::text, ',' ORDER BY oid) FROM pg_trigger
        WHERE tgrelid = to_regclass('{keys}')), '') AS logging";

/// Only what every running transaction can see: who reads often misses nothing. Noted is the latest
/// transaction of which something was deleted.
const PRUNE: &str = "
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock($1) AS is_ours
), old AS MATERIALIZED (
    SELECT seq FROM {changes}
    WHERE (SELECT is_ours FROM turn) AND at < clock_timestamp() - interval '1 hour'
        AND (xid < pg_snapshot_xmin(pg_current_snapshot())
            OR xid >= pg_snapshot_xmax(pg_current_snapshot()))
    ORDER BY seq
    LIMIT $2
), gone AS (
    DELETE FROM {changes} USING old WHERE {changes}.seq = old.seq RETURNING xid
), latest AS (
    SELECT xid FROM gone WHERE xid < pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY xid DESC LIMIT 1
), noted AS (
    UPDATE {state} SET pruned = CASE
        WHEN pruned < pg_snapshot_xmax(pg_current_snapshot()) THEN GREATEST(pruned, latest.xid)
        ELSE latest.xid END
    FROM latest
)
SELECT count(*) AS deleted FROM gone";
