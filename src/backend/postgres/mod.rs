//! Keys in PostgreSQL.

/// Keys in PostgreSQL.
#[derive(Debug)]
pub struct PostgresBackend;

/// Settings of a [`PostgresBackend`].
#[derive(Debug)]
pub struct PostgresBackendBuilder;
