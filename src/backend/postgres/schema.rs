//! Making the tables, and looking whether they are there.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{
    super::sql::{OpenError, failed},
    names::Names,
    privileges,
    row::{hidden_rows, in_recovery},
};
use crate::{
    error::BackendError,
    sync::{sleep, timeout},
};

/// Each step takes the tables from the version of its place to the next one.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];
/// The tables, and the version from which on there is one.
const TABLES: [(&str, i64); 4] = [
    ("keys", 1),
    ("key_changes", 1),
    ("key_grants", WITH_GRANTS),
    ("key_peppers", WITH_PEPPERS),
];
const WITH_GRANTS: i64 = 2;
const WITH_PEPPERS: i64 = 3;
/// PostgreSQL 13 is the first one with `xid8` and `pg_snapshot`.
const MIN_SERVER: i32 = 130_000;
/// How long a step may take, and the wait for another node that takes it: more than a statement of
/// every day.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// How long a step waits for a lock on a table. What comes later waits behind it, lookups also.
const STEP_LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the first pause is after a step that didn't get its lock; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What stands in the database under our names.
struct Found(Vec<String>);

impl Found {
    fn has(&self, name: &str, names: &Names) -> bool {
        self.0.contains(&names.bare(name))
    }
}

/// Brings the tables up to date. Where they are, nothing is written, and no right to do so is needed.
///
/// # Errors
///
/// All of [`OpenError`] but those of settings. Then nothing was changed.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    names: &Names,
    steps: &[&str],
    roles: &[String],
) -> Result<(), OpenError> {
    prepare_within(STEP_LIMIT, connection, names, steps, roles).await
}

/// The same, where the upgrade waits at most `limit` for other sessions.
pub(super) async fn prepare_within(
    limit: Duration,
    connection: &mut PgConnection,
    names: &Names,
    steps: &[&str],
    roles: &[String],
) -> Result<(), OpenError> {
    let prepare = prepare_now(connection, names, steps, roles, limit);
    let prepared = timeout(limit * 2, prepare).await;
    let too_slow = || BackendError::unavailable("the tables weren't ready in time");
    prepared.unwrap_or_else(|_| Err(too_slow().into()))
}

async fn prepare_now(
    connection: &mut PgConnection,
    names: &Names,
    steps: &[&str],
    roles: &[String],
    limit: Duration,
) -> Result<(), OpenError> {
    check_server(connection).await?;
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found = version(connection, names, known).await?;
    if found < known {
        migrate(connection, names, steps, roles, limit).await?;
    }
    privileges::grant(connection, names, roles, false).await?;
    check_tables(connection, names, known).await
}

async fn check_server(connection: &mut PgConnection) -> Result<(), OpenError> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int4 AS number,
            current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery,
            current_setting('server_encoding') AS encoding",
    )
    .fetch_one(connection)
    .await
    .map_err(unavailable)?;
    let number: i32 = row.try_get("number").map_err(unavailable)?;
    if number < MIN_SERVER {
        let version: String = row.try_get("version").map_err(unavailable)?;
        return Err(OpenError::Unsupported(format!(
            "PostgreSQL {version} is too old: 13 is the oldest that can be used"
        )));
    }
    let encoding: String = row.try_get("encoding").map_err(unavailable)?;
    if encoding != "UTF8" {
        return Err(OpenError::Unsupported(format!(
            "the encoding of the database is {encoding}, and keys need UTF8: use a database that \
             was created with ENCODING 'UTF8' (SHOW server_encoding)"
        )));
    }
    if row.try_get("in_recovery").map_err(unavailable)? {
        return Err(in_recovery().into());
    }
    Ok(())
}

/// The version of the tables; 0 where there are none.
async fn version(
    connection: &mut PgConnection,
    names: &Names,
    known: i64,
) -> Result<i64, OpenError> {
    let found = find(connection, names).await?;
    if !found.has("key_schema", names) {
        let there = TABLES.iter().find(|(name, _)| found.has(name, names));
        return there.map_or(Ok(0), |(name, _)| {
            Err(OpenError::NotOurs(format!(
                "{} is there already, and was not made by this crate: take another \
                 `table_prefix` or `schema`",
                names.table(name)
            )))
        });
    }
    let state = names.table("key_schema");
    let text = names.fill("SELECT version, pruned FROM {state}");
    let row = sqlx::query(AssertSqlSafe(text))
        .fetch_optional(connection)
        .await;
    let row = row.map_err(|error| match code(&error).as_deref() {
        // A column that isn't there.
        Some("42703") => OpenError::NotOurs(format!("{state} was not made by this crate")),
        _ => denied("read", &state, error),
    })?;
    let row = row.ok_or_else(|| OpenError::NotOurs(format!("{state} is empty")))?;
    let version: i64 = row.try_get("version").map_err(|error| match error {
        sqlx::Error::ColumnDecode { .. } => {
            OpenError::NotOurs(format!("{state} was not made by this crate"))
        }
        error => unavailable(error),
    })?;
    if version > known {
        return Err(OpenError::NewerSchema {
            found: version,
            known,
        });
    }
    let is_early = |(name, since): &&(&str, i64)| version < *since && found.has(name, names);
    if let Some((name, _)) = TABLES.iter().find(is_early) {
        return Err(OpenError::NotOurs(format!(
            "{} is there already, and was not made by this crate, which needs the name from now on: \
             rename it",
            names.table(name)
        )));
    }
    Ok(version)
}

/// Looks through the catalog and not by name: a session remembers that a name wasn't there, while
/// another one makes the table.
async fn find(connection: &mut PgConnection, names: &Names) -> Result<Found, OpenError> {
    let wanted = [
        "keys",
        "key_changes",
        "key_grants",
        "key_peppers",
        "key_schema",
    ];
    let wanted = wanted.map(|name| names.bare(name));
    let found: Result<Vec<(String, bool)>, _> = sqlx::query_as(
        "SELECT relname::text, row_security_active(c.oid)
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND relname = ANY($2)",
    )
    .bind(&names.schema)
    .bind(wanted.as_slice())
    .fetch_all(connection)
    .await;
    let found = found.map_err(unavailable)?;
    if let Some((name, _)) = found.iter().find(|(_, hides_rows)| *hides_rows) {
        return Err(OpenError::Denied {
            action: format!("see all rows of {name}"),
            source: hidden_rows(),
        });
    }
    Ok(Found(found.into_iter().map(|(name, _)| name).collect()))
}

/// Takes the steps that are missing, all or none of them. Of several nodes one does, and the others
/// wait for it and find it done.
///
/// A step that needs a lock on a table waits for it only briefly, since lookups wait behind it.
/// Then it is undone, and tried again after a pause in which they get through. All the time, the
/// transaction holds the lock that other nodes wait for.
async fn migrate(
    connection: &mut PgConnection,
    names: &Names,
    steps: &[&str],
    roles: &[String],
    limit: Duration,
) -> Result<(), OpenError> {
    let start = Instant::now();
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    // Under another isolation, the tables that the other node has made meanwhile would not be seen.
    let mut transaction = connection
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        .await
        .map_err(unavailable)?;
    let millis = limit.as_millis();
    let settings = format!(
        "SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis};
        SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL search_path = pg_catalog"
    );
    run(&mut transaction, settings).await.map_err(unavailable)?;
    lock(&mut transaction, names.migration_lock()).await?;
    let from = version(&mut transaction, names, known).await?;
    let missing = usize::try_from(from).unwrap_or(0).min(steps.len());
    let mut is_new_schema = false;
    if from == 0 {
        is_new_schema = make_schema(&mut transaction, names).await?;
    } else {
        check_are_there(&find(&mut transaction, names).await?, names, from)?;
    }
    let lock_timeout = format!(
        "SET LOCAL lock_timeout = {}",
        (limit / 4).min(STEP_LOCK_TIMEOUT).as_millis()
    );
    run(&mut transaction, lock_timeout)
        .await
        .map_err(unavailable)?;
    let before = privileges::objects(&mut transaction, names).await?;
    let mut pause = FIRST_PAUSE;
    loop {
        let mut attempt = transaction.begin().await.map_err(unavailable)?;
        match take(&mut attempt, names, &steps[missing..], known).await {
            Ok(()) => {
                attempt.commit().await.map_err(unavailable)?;
                break;
            }
            Err(NotTaken::Failed(error)) => return Err(error),
            Err(NotTaken::Locked) if start.elapsed() + pause > limit => {
                return Err(locked(names, limit));
            }
            Err(NotTaken::Locked) => attempt.rollback().await.map_err(unavailable)?,
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
    privileges::withdraw(&mut transaction, names, &before).await?;
    if is_new_schema {
        privileges::withdraw_schema(&mut transaction, names).await?;
    }
    privileges::grant(&mut transaction, names, roles, is_new_schema).await?;
    transaction.commit().await.map_err(unavailable)
}

/// Why steps weren't taken.
enum NotTaken {
    /// Another session holds a lock on a table.
    Locked,
    Failed(OpenError),
}

async fn take(
    connection: &mut PgConnection,
    names: &Names,
    steps: &[&str],
    known: i64,
) -> Result<(), NotTaken> {
    let refused = |what: &str, object: &str, error: sqlx::Error| match code(&error).as_deref() {
        // `lock_not_available`, `deadlock_detected`.
        Some("55P03" | "40P01") => NotTaken::Locked,
        _ => NotTaken::Failed(denied(what, object, error)),
    };
    for step in steps {
        run(connection, names.fill(step))
            .await
            .map_err(|error| refused("make tables in the schema", &names.schema, error))?;
    }
    let text = names.fill("UPDATE {state} SET version = ") + &known.to_string();
    run(connection, text)
        .await
        .map_err(|error| refused("write", &names.table("key_schema"), error))
}

fn locked(names: &Names, limit: Duration) -> OpenError {
    let error = format!(
        "the tables can't be upgraded: for {limit:?}, another session has held a lock on {}. \
         End its transaction, which `pg_stat_activity` shows, and start again",
        names.table("keys")
    );
    BackendError::unavailable(error).into()
}

/// Between half of `pause` and all of it.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 1_024;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1_024
}

async fn lock(connection: &mut PgConnection, key: i64) -> Result<(), OpenError> {
    let locked = run(connection, format!("SELECT pg_advisory_xact_lock({key})")).await;
    locked.map_err(|error| match code(&error).as_deref() {
        Some("55P03" | "57014") => BackendError::unavailable(
            "another instance is making or upgrading the tables, and takes too long",
        )
        .into(),
        _ => unavailable(error),
    })
}

/// Looked for first: `IF NOT EXISTS` needs the right to make one, where there is one, too.
///
/// Of nodes with other prefixes that start at the same time one makes it. The others wait until its
/// transaction ends, and look again.
///
/// Returns whether this transaction has created it.
async fn make_schema(connection: &mut PgConnection, names: &Names) -> Result<bool, OpenError> {
    if has_schema(connection, names).await? {
        return Ok(false);
    }
    lock(connection, names.schema_lock()).await?;
    if has_schema(connection, names).await? {
        return Ok(false);
    }
    run(connection, names.fill(r#"CREATE SCHEMA "{schema}""#))
        .await
        .map_err(|error| denied("make the schema", &names.schema, error))?;
    Ok(true)
}

async fn has_schema(connection: &mut PgConnection, names: &Names) -> Result<bool, OpenError> {
    let found = sqlx::query("SELECT FROM pg_namespace WHERE nspname = $1")
        .bind(&names.schema)
        .fetch_optional(connection)
        .await;
    found.map(|row| row.is_some()).map_err(unavailable)
}

fn check_are_there(found: &Found, names: &Names, version: i64) -> Result<(), OpenError> {
    let is_gone = |(name, since): &&(&str, i64)| version >= *since && !found.has(name, names);
    match TABLES.iter().find(is_gone) {
        None => Ok(()),
        Some((name, _)) => Err(OpenError::Damaged(format!("{} is gone", names.table(name)))),
    }
}

/// Whether the tables can be read, and changes to them are logged.
async fn check_tables(
    connection: &mut PgConnection,
    names: &Names,
    version: i64,
) -> Result<(), OpenError> {
    check_are_there(&find(connection, names).await?, names, version)?;
    for name in ["keys", "key_changes"] {
        let table = names.table(name);
        let text = format!("SELECT FROM {table} LIMIT 0");
        run(connection, text)
            .await
            .map_err(|error| denied("read", &table, error))?;
    }
    if version >= WITH_GRANTS {
        check_rights(connection, names).await?;
    }
    if version >= WITH_PEPPERS {
        check_rights_on_peppers(connection, names).await?;
    }
    let text = super::statements::start_reading(names);
    let row = sqlx::query(AssertSqlSafe(text))
        .fetch_one(connection)
        .await
        .map_err(unavailable)?;
    if row.try_get("is_logged").map_err(unavailable)? {
        Ok(())
    } else {
        Err(OpenError::Damaged(not_logged(names)))
    }
}

/// Whether the role may do with grants what it may do with keys: it will, when it revokes all of a user. To verify
/// keys, nobody reads grants.
async fn check_rights(connection: &mut PgConnection, names: &Names) -> Result<(), OpenError> {
    let text = names.fill(
        "SELECT string_agg(needed, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed
        WHERE NOT has_table_privilege('{grants}', needed) AND has_table_privilege('{keys}',
            CASE needed WHEN 'SELECT' THEN 'INSERT, UPDATE, DELETE' ELSE needed END)",
    );
    let lacks = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection);
    let lacks: Option<String> = lacks.await.map_err(unavailable)?;
    lacks.map_or(Ok(()), |lacks| {
        let (keys, grants) = (names.table("keys"), names.table("key_grants"));
        Err(OpenError::Denied {
            action: format!("do with {grants} what it may do with {keys}"),
            source: BackendError::unavailable(format!("it needs {lacks} on {grants}")),
        })
    })
}

/// Whether a role that may create keys may compare and store check values of peppers. To verify keys,
/// nobody reads them.
async fn check_rights_on_peppers(
    connection: &mut PgConnection,
    names: &Names,
) -> Result<(), OpenError> {
    let text = names.fill(
        "SELECT string_agg(needed, ', ') FROM unnest(ARRAY['SELECT', 'INSERT']) AS needed
        WHERE NOT has_table_privilege('{peppers}', needed)
            AND has_table_privilege('{keys}', 'INSERT')",
    );
    let lacks = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection);
    let lacks: Option<String> = lacks.await.map_err(unavailable)?;
    lacks.map_or(Ok(()), |lacks| {
        let peppers = names.table("key_peppers");
        Err(OpenError::Denied {
            action: "compare peppers, as a role must that may create keys".to_owned(),
            source: BackendError::unavailable(format!("it needs {lacks} on {peppers}")),
        })
    })
}

pub(super) fn not_logged(names: &Names) -> String {
    format!(
        "the triggers of {} that log changes are missing or disabled",
        names.table("keys")
    )
}

async fn run(connection: &mut PgConnection, text: String) -> Result<(), sqlx::Error> {
    let run = sqlx::raw_sql(AssertSqlSafe(text)).execute(connection);
    run.await.map(drop)
}

fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// `what` and `object` say what failed, where it did because the role may not do it.
fn denied(what: &str, object: &str, error: sqlx::Error) -> OpenError {
    match code(&error).as_deref() {
        Some("42501") => OpenError::Denied {
            action: format!("{what} {object}"),
            source: BackendError::unavailable(error),
        },
        _ => unavailable(error),
    }
}

fn unavailable(error: sqlx::Error) -> OpenError {
    failed(error).into()
}
