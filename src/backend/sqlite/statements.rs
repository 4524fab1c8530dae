//! The statements, few enough that each connection keeps them prepared.

use std::{array, sync::Arc};

use sqlx::AssertSqlSafe;

use super::{grants::GrantStatements, lists::END, records::IS_DIGEST, schema::TRIGGERS};
use crate::backend::sql::{COLUMNS, TablePrefix};

/// A statement made of nothing but our own text and a checked prefix.
#[derive(Clone)]
pub(super) struct Statement(Arc<str>);

impl Statement {
    pub(super) fn sql(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.0.clone())
    }
}

impl From<String> for Statement {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// Changes all rows that are found, up to a limit. The arguments of the search come first: what it
/// goes by, and the limit.
pub(super) struct ChangeAll {
    pub(super) change: Statement,
    pub(super) find: Statement,
}

impl ChangeAll {
    /// `change` has the search in the place of `{found}`, and returns a row for each that it changed.
    pub(super) fn new(find: &str, change: &str) -> Self {
        Self {
            change: change.replace("{found}", find).into(),
            find: format!("SELECT EXISTS ({find})").into(),
        }
    }
}

pub(super) struct Statements {
    /// For 1, 2, 4 … records.
    get: [Statement; SIZES],
    get_by_id: [Statement; SIZES],
    touch: [Statement; SIZES],
    pub(super) insert: Statement,
    pub(super) insert_made_by: Statement,
    pub(super) update: Statement,
    pub(super) replace_rotated: Statement,
    pub(super) delete: Statement,
    pub(super) first_page: Statement,
    pub(super) next_page: Statement,
    pub(super) grants: GrantStatements,
    pub(super) pepper_usage: Statement,
    pub(super) pepper_checks: Statement,
    pub(super) insert_pepper_check: Statement,
    pub(super) revoke: Statement,
    pub(super) revoke_of_user: ChangeAll,
    pub(super) purge: ChangeAll,
    pub(super) purge_grants: ChangeAll,
    /// The table, for statements that are made when they are needed.
    pub(super) keys: String,
    pub(super) log: Statement,
    pub(super) log_end: Statement,
}

const SIZES: usize = 11;
/// How many values are written of a record: its columns, and what it is looked up by.
const WRITTEN: usize = 21;
/// The largest version stays as it is.
const NEXT_VERSION: &str = "min(version, 9223372036854775806) + 1";
/// How many records one statement takes at most.
pub(super) const MOST: usize = 1 << (SIZES - 1);

impl Statements {
    pub(super) fn new(prefix: &TablePrefix) -> Self {
        let keys = format!("main.{prefix}keys");
        let grants = format!("main.{prefix}key_grants");
        let page = |after: &str| {
            Statement::from(format!(
                "SELECT {COLUMNS}{IS_DIGEST} FROM {keys} WHERE user_id = ?1 {after} \
                 ORDER BY created_at DESC, id DESC LIMIT ?2"
            ))
        };
        // The places are those of the columns, and behind them the version that is expected.
        let update = format!(
            "UPDATE {keys} SET name = ?3, scopes = ?4, unrestricted = ?5, display_prefix = ?6, \
             pepper = ?7, secret_hash = ?8, expires_at = ?10, \
             last_used_at = CASE WHEN ifnull(last_used_at < ?11, last_used_at IS NULL) THEN ?11 ELSE last_used_at END, \
             revocation_reason = iif(revoked_at IS NULL, ?16, revocation_reason), \
             revoked_at = ifnull(revoked_at, ?12), disabled_at = ?13, version = ?14, \
             retires_at = ?15, metadata = ?17, successor = ?19, digest_key = ?21 \
             WHERE id = ?1 AND version = ?22"
        );
        Self {
            get: array::from_fn(|size| {
                let places: Vec<_> = (1..=1 << size).map(|place| format!("?{place}")).collect();
                let places = places.join(",");
                format!(
                    "SELECT {COLUMNS}{IS_DIGEST} FROM {keys} WHERE id IN ({places}) AND digest_key IS NULL \
                     UNION ALL SELECT {COLUMNS}{IS_DIGEST} FROM {keys} WHERE digest_key IN ({places})"
                )
                .into()
            }),
            touch: array::from_fn(|size| {
                let rows = vec!["(?,?)"; 1 << size].join(",");
                format!(
                    "UPDATE {keys} SET last_used_at = used.at \
                     FROM (SELECT column1 AS id, max(column2) AS at FROM (VALUES {rows}) GROUP BY column1) AS used \
                     WHERE {prefix}keys.id = used.id AND ifnull(last_used_at < used.at, TRUE)"
                )
                .into()
            }),
            get_by_id: array::from_fn(|size| {
                let places = vec!["?"; 1 << size].join(",");
                format!("SELECT {COLUMNS}{IS_DIGEST} FROM {keys} WHERE id IN ({places})").into()
            }),
            insert: insert_where(&keys, "TRUE").into(),
            insert_made_by: insert_where(
                &keys,
                &format!("EXISTS (SELECT 1 FROM {keys} WHERE id = ?22 AND version = ?23 \
                     AND revoked_at IS NULL)"),
            )
            .into(),
            replace_rotated: format!("{update} AND revoked_at IS NULL").into(),
            update: update.into(),
            delete: format!("DELETE FROM {keys} WHERE id = ?").into(),
            grants: GrantStatements::new(prefix),
            first_page: page(""),
            next_page: page("AND (created_at, id) < (?3, ?4)"),
            pepper_usage: format!(
                "SELECT iif(digest_key IS NULL, pepper, NULL) AS named, count(*), count(*) FILTER (WHERE revoked_at IS NULL \
                 AND ifnull(expires_at > ?1, TRUE) AND ifnull(retires_at > ?1, TRUE)) \
                 FROM {keys} GROUP BY named"
            )
            .into(),
            pepper_checks: format!("SELECT id, check_value FROM main.{prefix}key_peppers").into(),
            insert_pepper_check: format!(
                "INSERT INTO main.{prefix}key_peppers (id, check_value, created_at) \
                 VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING"
            )
            .into(),
            revoke: format!(
                "UPDATE {keys} SET revoked_at = ?2, revocation_reason = ?3, version = {NEXT_VERSION} \
                 WHERE id = ?1 AND revoked_at IS NULL"
            )
            .into(),
            revoke_of_user: revoke_of_user(&keys),
            purge: purge(&keys),
            purge_grants: purge_grants(&grants),
            log: log(prefix, &TRIGGERS),
            log_end: log_end(prefix).into(),
            keys,
        }
    }

    /// One that reads at least so many records, up to [`MOST`], and how many exactly.
    pub(super) fn get(&self, records: usize) -> (&Statement, usize) {
        at_least(&self.get, records)
    }

    /// The same, of records with an id.
    pub(super) fn get_by_id(&self, records: usize) -> (&Statement, usize) {
        at_least(&self.get_by_id, records)
    }

    /// The same, for noting their use.
    pub(super) fn touch(&self, records: usize) -> (&Statement, usize) {
        at_least(&self.touch, records)
    }
}

/// What one record is looked up by is no other's id, though they are in two columns.
fn insert_where(keys: &str, condition: &str) -> String {
    let places: Vec<_> = (1..=WRITTEN).map(|place| format!("?{place}")).collect();
    format!(
        "INSERT INTO {keys} ({COLUMNS}, digest_key) SELECT {} WHERE {condition} \
         AND NOT EXISTS (SELECT 1 FROM {keys} WHERE id IN (?1, ?21)) \
         AND NOT EXISTS (SELECT 1 FROM {keys} WHERE digest_key IN (?1, ?21))",
        places.join(",")
    )
}

/// Reads the log, which `triggers` write. One statement is one moment. It fails where the keys are
/// gone, and says whether what writes the log is there.
pub(super) fn log(prefix: &TablePrefix, triggers: &[&str]) -> Statement {
    let names: Vec<_> = triggers
        .iter()
        .map(|name| format!("'{prefix}{name}'"))
        .collect();
    format!(
        "SELECT ({log_end}) AS log_end, \
         (SELECT schema_version FROM pragma_schema_version) AS schema, \
         (SELECT count(*) FROM main.sqlite_master WHERE type = 'trigger' \
          AND tbl_name = '{prefix}keys' AND name IN ({names})) = {count} AS is_written, \
         seq, id, EXISTS (SELECT 1 FROM main.{prefix}keys) \
         FROM (SELECT 1) LEFT JOIN main.{prefix}key_changes ON seq > ?1 ORDER BY seq LIMIT ?2",
        log_end = log_end(prefix),
        names = names.join(","),
        count = triggers.len(),
    )
    .into()
}

fn log_end(prefix: &TablePrefix) -> String {
    format!(
        "SELECT ifnull((SELECT seq FROM main.sqlite_sequence WHERE name = '{prefix}key_changes'), 0)"
    )
}

/// The oldest first.
fn revoke_of_user(keys: &str) -> ChangeAll {
    ChangeAll::new(
        &format!(
            "SELECT id FROM {keys} WHERE user_id = ?1 AND revoked_at IS NULL \
             ORDER BY created_at, id LIMIT ?2"
        ),
        &format!(
            "UPDATE {keys} SET revoked_at = ?3, revocation_reason = ?4, version = {NEXT_VERSION} \
             WHERE id IN ({{found}}) RETURNING id, ifnull(digest_key, id)"
        ),
    )
}

/// A key that is found twice makes the batch smaller, and no other difference.
fn purge(keys: &str) -> ChangeAll {
    ChangeAll::new(
        &format!(
            "SELECT id FROM {keys} WHERE revoked_at < ?1 AND digest_key IS NULL \
             UNION ALL SELECT id FROM {keys} WHERE {END} < ?1 AND digest_key IS NULL LIMIT ?2"
        ),
        &format!("DELETE FROM {keys} WHERE id IN ({{found}}) RETURNING 1"),
    )
}

fn purge_grants(grants: &str) -> ChangeAll {
    ChangeAll::new(
        &format!(
            "SELECT id FROM {grants} WHERE claimed_at < ?1 \
             UNION ALL SELECT id FROM {grants} WHERE revoked_at < ?1 \
             UNION ALL SELECT id FROM {grants} \
             WHERE expires_at < ?1 AND claimed_at IS NULL AND revoked_at IS NULL LIMIT ?2"
        ),
        &format!("DELETE FROM {grants} WHERE id IN ({{found}}) RETURNING 1"),
    )
}

fn at_least(statements: &[Statement; SIZES], records: usize) -> (&Statement, usize) {
    let records = records.clamp(1, MOST).next_power_of_two();
    (&statements[records.ilog2() as usize], records)
}
