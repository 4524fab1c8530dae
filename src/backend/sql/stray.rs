//! Transactions that a service has left open on a connection that it gave back to its pool.

use sqlx::{Connection, Error, SqlStr};

/// Ends the transaction that `connection` is in, if it is in one that sqlx doesn't know of: a `BEGIN` that was
/// sent as any other text. What is written there would be lost with it, and what is read may be old, or never be
/// committed. Returns whether it was in one.
pub(in crate::backend) async fn end_stray(connection: &mut impl Connection) -> Result<bool, Error> {
    // No statement begins nothing. What sqlx looks at afterwards is what the database says of the connection: so
    // it takes over what is open already.
    match connection.begin_with(SqlStr::from_static("")).await {
        Ok(stray) => stray.rollback().await.map(|()| true),
        Err(Error::BeginFailed) => Ok(false),
        Err(error) => Err(error),
    }
}
