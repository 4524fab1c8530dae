//! Where keys are kept: the two traits to implement for a place of one's own, and ours.

mod arc;
mod changes;
mod erased;
mod filter;
mod forward;
mod grant_page;
mod grants;
mod managed;
mod memory;
mod page;
mod pepper_usage;
#[cfg(feature = "postgres")]
mod postgres;
mod revocation;
mod source;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod unchanged;

#[cfg(feature = "postgres")]
pub use self::postgres::{ExposedPrivileges, PostgresBackend, PostgresBackendBuilder};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::sql::OpenError;
#[cfg(feature = "sqlite")]
pub use self::sqlite::{SqliteBackend, SqliteBackendBuilder};
pub use self::{
    changes::{Change, ChangeFeed, ChangeSink, Subscription},
    filter::KeyFilter,
    grant_page::{GrantCursor, GrantPage, GrantPageRequest, ParseGrantCursorError},
    grants::{GrantInsertion, GrantLimits},
    managed::{ApiKeyBackend, Touch},
    memory::MemoryBackend,
    page::{Cursor, Page, PageRequest, ParseCursorError},
    pepper_usage::{PepperStatus, PepperUsage},
    revocation::RevokedKey,
    source::KeySource,
};
pub(crate) use self::{
    changes::{DynFeed, TakesChanges, Told},
    erased::{DynBackend, DynSource},
    page::check_list,
    source::only_record,
};
