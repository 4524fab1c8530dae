//! Lists of keys that fit a filter, as statements.

use std::time::SystemTime;

use super::COLUMNS;
use crate::backend::{KeyFilter, PageRequest};

/// How a database says what the others say in other words.
pub(in crate::backend) struct Dialect {
    /// What stands before the number of an argument.
    pub(in crate::backend) argument: char,
    /// When a key ends, as its index has it.
    pub(in crate::backend) end: &'static str,
    /// What holds of an end that is one, where there are others.
    pub(in crate::backend) is_an_end: Option<&'static str>,
}

/// A statement, and what its arguments are, in their order.
pub(in crate::backend) struct Listing<'a> {
    pub(in crate::backend) text: String,
    pub(in crate::backend) arguments: Vec<Argument<'a>>,
}

#[derive(Clone, Copy)]
pub(in crate::backend) enum Argument<'a> {
    Text(&'a str),
    Time(SystemTime),
    Id(&'a [u8]),
    Number(i64),
}

/// The keys in the table `keys` that fit `filter`, in the order of lists. Only what is asked for is in the
/// statement: so the database sees which index narrows it down most.
pub(in crate::backend) fn listing<'a>(
    dialect: &Dialect,
    keys: &str,
    filter: &'a KeyFilter,
    page: &'a PageRequest,
) -> Listing<'a> {
    let mut arguments = Vec::new();
    let mut argument = |value| {
        arguments.push(value);
        format!("{}{}", dialect.argument, arguments.len())
    };
    let mut conditions = Vec::new();
    let end = dialect.end;
    if let Some(user_id) = filter.wanted_user() {
        let user_id = argument(Argument::Text(user_id));
        conditions.push(format!("user_id = {user_id}"));
    }
    if let Some(from) = filter.wanted_ends_from() {
        let from = argument(Argument::Time(from));
        conditions.push(format!("{end} >= {from}"));
        conditions.extend(dialect.is_an_end.map(str::to_owned));
    }
    if let Some(before) = filter.wanted_ends_before() {
        let before = argument(Argument::Time(before));
        conditions.push(format!("{end} < {before}"));
    }
    if let Some(since) = filter.wanted_unused_since() {
        let since = argument(Argument::Time(since));
        conditions.push(format!("created_at < {since}"));
        conditions.push(format!("(last_used_at IS NULL OR last_used_at < {since})"));
    }
    if let Some(maker) = filter.wanted_made_by() {
        let maker = argument(Argument::Id(maker.as_bytes()));
        conditions.push(format!("made_by = {maker}"));
    }
    if let Some(pepper) = filter.wanted_pepper() {
        let pepper = argument(Argument::Text(pepper.as_str()));
        conditions.push(format!("pepper = {pepper}"));
    }
    if !filter.wants_revoked() {
        conditions.push("revoked_at IS NULL".to_owned());
    }
    if let Some(cursor) = page.cursor() {
        let created_at = argument(Argument::Time(cursor.created_at()));
        let id = argument(Argument::Id(cursor.id().as_bytes()));
        conditions.push(format!("(created_at, id) < ({created_at}, {id})"));
    }
    let limit = i64::try_from(page.max_keys()).unwrap_or(i64::MAX);
    let limit = argument(Argument::Number(limit));
    let all = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {} ", conditions.join(" AND "))
    };
    let text = format!(
        "SELECT {COLUMNS} FROM {keys} {all}ORDER BY created_at DESC, id DESC LIMIT {limit}"
    );
    Listing { text, arguments }
}
