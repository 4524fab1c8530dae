//! What the SQL backends share: names of tables, rows, and what can go wrong.

mod failed;
mod filter;
mod grant;
mod lanes;
mod open;
mod prefix;
mod row;
mod stray;

pub use self::open::OpenError;
pub(super) use self::{
    failed::failed,
    filter::{Argument, Dialect, listing},
    grant::{GRANT_COLUMNS, GrantRow},
    lanes::{Lane, LanePermit, Lanes},
    prefix::TablePrefix,
    row::{Row, millis, read_id, read_pepper_check, read_pepper_usage},
    stray::end_stray,
};

/// The columns of a record, in the order of [`Row`]'s fields.
pub(super) const COLUMNS: &str = "id, user_id, name, scopes, unrestricted, display_prefix, pepper, \
     secret_hash, created_at, expires_at, last_used_at, revoked_at, disabled_at, version, retires_at, \
     revocation_reason, metadata, predecessor, successor, made_by";
