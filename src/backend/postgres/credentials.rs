//! The options of new connections, which may change while a backend runs.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;

use crate::{
    error::BackendError,
    sync::{Mutex, MutexGuard, timeout},
};

type BoxError = Box<dyn Error + Send + Sync>;
type Password = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// Fetches the password for a new connection.
#[derive(Clone)]
pub(super) struct PasswordSource(Arc<dyn Fn() -> Password + Send + Sync>);

impl PasswordSource {
    pub(super) fn new<F, R, E>(fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let password = fetch();
            Box::pin(async { password.await.map_err(Into::into) })
        }))
    }
}

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordSource(_)")
    }
}

/// How new connections are made.
pub(super) struct Credentials {
    options: Mutex<PgConnectOptions>,
    password: Option<PasswordSource>,
    /// Of fetching a password.
    limit: Duration,
}

impl Credentials {
    pub(super) fn new(
        options: PgConnectOptions,
        password: Option<PasswordSource>,
        limit: Duration,
    ) -> Self {
        Self {
            options: Mutex::new(own(options)),
            password,
            limit,
        }
    }

    pub(super) fn set(&self, options: PgConnectOptions) {
        *self.lock() = own(options);
    }

    /// Returns the options of a connection that is made now.
    ///
    /// # Errors
    ///
    /// [`BackendError::unavailable`] if the password could not be fetched in time.
    pub(super) async fn current(&self) -> Result<PgConnectOptions, BackendError> {
        let Some(PasswordSource(fetch)) = &self.password else {
            return Ok(self.lock().clone());
        };
        let too_slow = || {
            BackendError::unavailable(
                "limit reached: `password_from` returned no password within `acquire_timeout`",
            )
        };
        let password = timeout(self.limit, fetch()).await.map_err(|_| too_slow())?;
        let password = password.map_err(BackendError::unavailable)?;
        // Read after the wait, so that the newest ones are used.
        Ok(self.lock().clone().password(&password))
    }

    fn lock(&self) -> MutexGuard<'_, PgConnectOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets what connections of our own need.
fn own(options: PgConnectOptions) -> PgConnectOptions {
    // PgBouncer refuses the parameter, and no column is a float.
    let options = options.extra_float_digits(None);
    match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("tower-api-key"),
    }
}
