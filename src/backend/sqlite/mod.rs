//! Keys in a SQLite file.

/// Keys in a SQLite file.
#[derive(Debug)]
pub struct SqliteBackend;

/// Settings of a [`SqliteBackend`].
#[derive(Debug)]
pub struct SqliteBackendBuilder;
