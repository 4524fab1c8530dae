//! Who may do what with our tables.
//!
//! Hosted platforms give new objects of a schema to roles that strangers act as, by default
//! privileges. Such a role could read hashes, or un-revoke a key.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use super::{
    super::sql::{OpenError, failed},
    names::Names,
};
use crate::error::BackendError;

/// What a role other than the tables' owner may do with one of our tables, sequences or functions.
///
/// Returned by [`PostgresBackend::exposed_privileges`](crate::PostgresBackend::exposed_privileges).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExposedPrivileges {
    /// The role, or `PUBLIC`, which is every role.
    pub role: String,
    /// What they are for: `TABLE public.tower_api_keys`.
    pub object: String,
    /// What the role may do: `SELECT`, `UPDATE` and others.
    pub privileges: Vec<String>,
    /// The statement that withdraws them.
    pub statement: String,
}

/// What roles that the builder names may do with a table, and with a schema that we create.
const NEEDED: [(&str, &str); 5] = [
    ("keys", "SELECT, INSERT, UPDATE, DELETE"),
    ("key_grants", "SELECT, INSERT, UPDATE, DELETE"),
    ("key_changes", "SELECT, DELETE"),
    ("key_peppers", "SELECT, INSERT"),
    ("key_schema", "SELECT, UPDATE"),
];

/// Our objects, by kind and name.
#[derive(Debug, Default)]
pub(super) struct Objects(BTreeSet<(String, String)>);

/// Finds our tables, their sequences, and our functions.
const OBJECTS: &str = "
WITH tables AS (
    SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace('\"{schema}\"')
        AND c.relname = ANY (ARRAY[{tables}]) AND c.relkind IN ('r', 'p')
), objects AS (
    SELECT 'TABLE' AS kind, '\"{schema}\".' || quote_ident(relname) AS name, relowner AS owner,
        coalesce(relacl, acldefault('r', relowner)) AS acl
    FROM tables
    UNION ALL
    SELECT 'TABLE', '\"{schema}\".' || quote_ident(relname), relowner, a.attacl
    FROM tables JOIN pg_attribute AS a ON a.attrelid = tables.oid
    WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT 'SEQUENCE', '\"{schema}\".' || quote_ident(s.relname), s.relowner,
        coalesce(s.relacl, acldefault('s', s.relowner))
    FROM tables JOIN pg_depend AS d ON d.refobjid = tables.oid
        AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass
    JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
    UNION ALL
    SELECT 'FUNCTION', '\"{schema}\".' || quote_ident(p.proname) || '()', p.proowner,
        coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc AS p
    WHERE p.pronamespace = to_regnamespace('\"{schema}\"') AND p.pronargs = 0
        AND p.proname = ANY (ARRAY['{prefix}log_key_changes', '{prefix}log_replicated_key',
            '{prefix}raise_key_version'])
)";

/// Everybody but the owner, this role, and superusers, who need no privileges.
const GRANTEES: &str = "
SELECT kind, name, coalesce(quote_ident(r.rolname), 'PUBLIC') AS role, r.rolname::text AS bare,
    array_agg(DISTINCT g.privilege_type ORDER BY g.privilege_type) AS privileges
FROM objects, aclexplode(acl) AS g LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE g.grantee <> owner AND (g.grantee = 0 OR NOT r.rolsuper)
GROUP BY kind, name, r.rolname
ORDER BY role, kind DESC, name";

fn fill(names: &Names, template: &str) -> String {
    let tables = NEEDED.map(|(table, _)| format!("'{}'", names.bare(table)));
    names.fill(&template.replace("{tables}", &tables.join(", ")))
}

/// Returns which of our objects are there.
pub(super) async fn objects(
    connection: &mut PgConnection,
    names: &Names,
) -> Result<Objects, OpenError> {
    let text = fill(names, &format!("{OBJECTS} SELECT kind, name FROM objects"));
    let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(connection).await;
    let mut objects = Objects::default();
    for row in rows.map_err(unavailable)? {
        let read = |column| row.try_get(column).map_err(unavailable);
        objects.0.insert((read("kind")?, read("name")?));
    }
    Ok(objects)
}

/// Withdraws all privileges on objects that were created since `before`, in the same transaction:
/// nobody else has ever seen them.
pub(super) async fn withdraw(
    connection: &mut PgConnection,
    names: &Names,
    before: &Objects,
) -> Result<(), OpenError> {
    for row in grantees(connection, names).await.map_err(unavailable)? {
        let found = Grantee::read(&row).map_err(unavailable)?;
        if !before.0.contains(&(found.kind.clone(), found.name.clone())) {
            run(connection, found.statement()).await?;
        }
    }
    Ok(())
}

/// Withdraws all privileges on the schema, which this transaction has created.
pub(super) async fn withdraw_schema(
    connection: &mut PgConnection,
    names: &Names,
) -> Result<(), OpenError> {
    let text = names.fill(
        "SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC')
        FROM pg_namespace AS n, aclexplode(n.nspacl) AS g
        LEFT JOIN pg_roles AS r ON r.oid = g.grantee
        WHERE n.nspname = '{schema}' AND g.grantee <> n.nspowner",
    );
    let roles = sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&mut *connection);
    let roles: Vec<String> = roles.await.map_err(unavailable)?;
    for role in roles {
        let revoke = format!(r#"REVOKE ALL ON SCHEMA "{}" FROM {role}"#, names.schema);
        run(connection, revoke).await?;
    }
    Ok(())
}

/// Gives the roles what they need and lack, if the current role owns the tables. A named role that
/// lacks some is refused when it opens the tables itself.
///
/// # Errors
///
/// Also if one of them doesn't exist.
pub(super) async fn grant(
    connection: &mut PgConnection,
    names: &Names,
    roles: &[String],
    is_new_schema: bool,
) -> Result<(), OpenError> {
    if roles.is_empty() || !is_owner(connection, names).await? {
        return Ok(());
    }
    for role in roles {
        let quoted =
            sqlx::query_scalar("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = $1");
        let quoted = quoted.bind(role).fetch_optional(&mut *connection).await;
        let quoted: String = quoted.map_err(unavailable)?.ok_or_else(|| {
            OpenError::Unsupported(format!(
                "the role {role:?} of `privileges_for` not found: create it, or leave it out"
            ))
        })?;
        if is_new_schema {
            let usage = format!(r#"GRANT USAGE ON SCHEMA "{}" TO {quoted}"#, names.schema);
            run(connection, usage).await?;
        }
        for (table, needed) in NEEDED {
            let table = names.table(table);
            let has = "SELECT bool_and(has_table_privilege($1, $2, needed))
                FROM unnest(string_to_array($3, ', ')) AS needed";
            let has = sqlx::query_scalar(has).bind(role).bind(&table).bind(needed);
            let has: bool = has.fetch_one(&mut *connection).await.map_err(unavailable)?;
            if !has {
                run(connection, format!("GRANT {needed} ON {table} TO {quoted}")).await?;
            }
        }
    }
    Ok(())
}

async fn is_owner(connection: &mut PgConnection, names: &Names) -> Result<bool, OpenError> {
    let text = names
        .fill("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = '{keys}'::regclass");
    let owner = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection);
    owner.await.map_err(unavailable)
}

/// Returns what roles other than the owner, the current one and `roles` may do.
pub(super) async fn exposed(
    connection: &mut PgConnection,
    names: &Names,
    roles: &[String],
) -> Result<Vec<ExposedPrivileges>, BackendError> {
    let current = sqlx::query_scalar("SELECT current_user::text");
    let current: String = current.fetch_one(&mut *connection).await.map_err(failed)?;
    let mut exposed = Vec::new();
    for row in grantees(connection, names).await.map_err(failed)? {
        let found = Grantee::read(&row).map_err(failed)?;
        let may = |role: &String| roles.contains(role) || *role == current;
        if !found.bare.as_ref().is_some_and(may) {
            exposed.push(ExposedPrivileges {
                statement: found.statement(),
                object: format!("{} {}", found.kind, found.name),
                role: found.bare.unwrap_or(found.role),
                privileges: found.privileges,
            });
        }
    }
    Ok(exposed)
}

/// A line that says which roles have privileges, if any.
pub(super) fn warning(exposed: &[ExposedPrivileges]) -> Option<String> {
    let roles: BTreeSet<_> = exposed.iter().map(|it| it.role.as_str()).collect();
    if roles.is_empty() {
        return None;
    }
    let roles: Vec<_> = roles.into_iter().collect();
    Some(format!(
        "other roles have privileges on the tables of keys: {}. `exposed_privileges` has the \
         statements that withdraw them; name roles that need them in `privileges_for`",
        roles.join(", ")
    ))
}

/// The privileges of one role on one object.
struct Grantee {
    kind: String,
    name: String,
    /// As SQL writes it.
    role: String,
    /// `None` is `PUBLIC`.
    bare: Option<String>,
    privileges: Vec<String>,
}

impl Grantee {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kind: row.try_get("kind")?,
            name: row.try_get("name")?,
            role: row.try_get("role")?,
            bare: row.try_get("bare")?,
            privileges: row.try_get("privileges")?,
        })
    }

    /// Withdraws privileges on columns also, and what the role has passed on.
    fn statement(&self) -> String {
        format!(
            "REVOKE ALL ON {} {} FROM {} CASCADE",
            self.kind, self.name, self.role
        )
    }
}

async fn grantees(connection: &mut PgConnection, names: &Names) -> Result<Vec<PgRow>, sqlx::Error> {
    let text = fill(names, &format!("{OBJECTS} {GRANTEES}"));
    sqlx::query(AssertSqlSafe(text)).fetch_all(connection).await
}

async fn run(connection: &mut PgConnection, text: String) -> Result<(), OpenError> {
    let done = sqlx::raw_sql(AssertSqlSafe(text.clone()))
        .execute(connection)
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(error)
            if error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code)
                .as_deref()
                == Some("42501") =>
        {
            Err(OpenError::Denied {
                action: text,
                source: failed(error),
            })
        }
        Err(error) => Err(unavailable(error)),
    }
}

fn unavailable(error: sqlx::Error) -> OpenError {
    failed(error).into()
}
