//! Finds poolers that share sessions.
//!
//! Behind such a pooler, the session that executes a statement may not be the one that prepared it:
//! then a lookup of one client executes another client's deletion. The harm is done by executing,
//! so nothing is prepared before it is known that sessions are not shared.

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool, Postgres, Row as _, raw_sql};

use super::{
    super::sql::{OpenError, failed},
    listening::Listening,
    row::in_recovery,
    session::no_connection,
};
use crate::{error::BackendError, sync::timeout};

/// How often the first step looks: a single look misses up to a quarter of the poolers.
const LOOKS: usize = 32;
/// How long a notification may take. Without a pooler it takes about a millisecond.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(2);

/// Refuses a database behind a pooler that shares sessions, as PgBouncer does in its transaction
/// and statement modes.
///
/// Looks first whether settings of one connection reach another one, which finds any pooler that
/// both go through. Only then it listens: behind a pooler that shares sessions, notifications would
/// reach other clients. This finds poolers of which there are several behind one name. All
/// statements go by the simple query protocol, which prepares nothing.
///
/// # Errors
///
/// [`OpenError::Unsupported`] if sessions are shared.
pub(super) async fn refuse_shared_sessions(
    listening_pool: &PgPool,
    other: &mut PgConnection,
    limit: Duration,
) -> Result<(), OpenError> {
    let listening = timeout(limit, Listening::connect(listening_pool)).await;
    let mut listening = listening.unwrap_or_else(|_| Err(no_connection()))?;
    for _ in 0..LOOKS {
        let (one, another) = (random_name(), random_name());
        let look = async {
            remember(listening.session()?, &one).await?;
            remember(&mut *other, &another).await?;
            remembered(listening.session()?).await
        };
        let found = timeout(limit, look).await;
        if found.unwrap_or_else(|_| Err(not_served()))? != Some(one) {
            return Err(shared());
        }
    }
    let standby = raw_sql("SELECT pg_is_in_recovery() AS in_recovery");
    let row = timeout(limit, other.fetch_one(standby)).await;
    let row = row.map_err(|_| not_served())?.map_err(failed)?;
    if row.try_get("in_recovery").map_err(failed)? {
        return Err(in_recovery().into());
    }
    let channel = random_name();
    let notify = async {
        listening.listen(&channel).await?;
        let notify = raw_sql(AssertSqlSafe(format!("NOTIFY {channel}")));
        notify.execute(&mut *other).await.map(drop).map_err(failed)
    };
    // A commit that takes long says nothing of a pooler.
    let notified = timeout(limit, notify).await;
    notified.unwrap_or_else(|_| Err(not_served()))?;
    let heard = timeout(NOTIFICATION_TIMEOUT, listening.hear()).await;
    heard.map_err(|_| shared())?;
    Ok(listening.session().map(drop)?)
}

/// Sets a variable of the session that no server knows.
async fn remember<'c>(
    session: impl sqlx::Executor<'c, Database = Postgres>,
    value: &str,
) -> Result<(), BackendError> {
    let set = format!("SELECT set_config('tower_api_key.session', '{value}', false)");
    let set = raw_sql(AssertSqlSafe(set)).execute(session).await;
    set.map(drop).map_err(failed)
}

async fn remembered<'c>(
    session: impl sqlx::Executor<'c, Database = Postgres>,
) -> Result<Option<String>, BackendError> {
    let get = raw_sql("SELECT current_setting('tower_api_key.session', true) AS value");
    let row = session.fetch_one(get).await.map_err(failed)?;
    row.try_get("value").map_err(failed)
}

/// An identifier that nobody else draws.
fn random_name() -> String {
    let mut name = "tower_api_key_".to_owned();
    for half in [0, 1] {
        let random = RandomState::new().hash_one(half);
        // Writing to a `String` never fails.
        let _ = write!(name, "{random:016x}");
    }
    name
}

fn shared() -> OpenError {
    OpenError::Unsupported(
        "a pooler that shares sessions (PgBouncer with pool_mode = transaction or statement) is \
         between this process and PostgreSQL: statements could run as those of other clients. Set \
         pool_mode = session for this database and user, or connect to PostgreSQL itself"
            .to_owned(),
    )
}

fn not_served() -> BackendError {
    BackendError::unavailable(
        "of two connections, one got no answer in time. A pooler in session mode needs at least \
         two connections to PostgreSQL for each instance (PgBouncer: default_pool_size)",
    )
}
