//! Opening a file without touching what isn't ours.

use std::{
    error::Error as _,
    fs, io,
    path::{self, Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use super::schema::{self, Found, STEPS};
use crate::{
    backend::sql::{OpenError, TablePrefix, failed},
    clock::{Clock, SystemClock},
    error::BackendError,
    sync::{hold_paused_clock, sleep},
};

/// How often it is tried to switch to the write-ahead log, for which SQLite itself doesn't wait.
const TRY_AGAIN_EVERY: Duration = Duration::from_millis(10);

/// One page of the smallest size, in bytes.
const SMALLEST_DATABASE: u64 = 512;

/// Makes the file where there is none, and sees to it that it is a database of ours, or empty, and in
/// WAL mode. Answers with how to connect to it.
pub(super) async fn prepare(
    path: &Path,
    prefix: &TablePrefix,
    busy_timeout: Duration,
) -> Result<SqliteConnectOptions, OpenError> {
    ensure_file(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(busy_timeout)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let found = match look(options.clone().read_only(true), prefix).await {
        // After a crash there may be something to recover before it can be read.
        Err(Refused::CannotRead(_)) => look(options.clone(), prefix).await,
        found => found,
    };
    match found {
        Ok(Found::Schema(_) | Found::Nothing { is_empty: true }) => {}
        Ok(Found::Nothing { is_empty: false }) => {
            let path = path.display();
            return Err(OpenError::NotOurs(format!(
                "{path} is the database of something else: to keep keys in it, give its pool to `over`"
            )));
        }
        Err(refused) => return Err(refused.into_error(path)),
    }
    switch_to_wal(&options, busy_timeout).await?;
    Ok(options)
}

/// Absolute, so that neither a change of the working directory nor a name like `file:…` opens another.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if path == Path::new(":memory:") {
        return Err(OpenError::Unsupported(
            "`:memory:` is no file: `in_memory` keeps keys in memory".to_owned(),
        ));
    }
    if path
        .to_str()
        .is_some_and(|path| path.starts_with("sqlite:"))
    {
        return Err(OpenError::Unsupported(
            "`open` takes a path, `keys.db`, and not a URL".to_owned(),
        ));
    }
    if path.to_str().is_none_or(|path| path.contains('\0')) {
        let wrong = "SQLite takes names in UTF-8, without a NUL byte";
        return Err(unavailable(
            path,
            &io::Error::new(io::ErrorKind::InvalidInput, wrong),
        ));
    }
    path::absolute(path).map_err(|error| unavailable(path, &error))
}

/// Adds the path, which SQLite doesn't name, and what to do, to an error that has neither.
pub(super) fn at(path: &Path, error: OpenError) -> OpenError {
    const NOT_WRITABLE: [&str; 2] = ["readonly database", "unable to open database file"];

    let OpenError::Unavailable(cause) = &error else {
        return error;
    };
    let said = cause.source().map(ToString::to_string).unwrap_or_default();
    let path = path.display().to_string();
    if !cause.is_unavailable() || said.contains(&path) {
        return error;
    }
    let advice = if NOT_WRITABLE.iter().any(|text| said.contains(text)) {
        ": the file and its folder must be writable, for the files -wal and -shm also"
    } else {
        ""
    };
    BackendError::unavailable(format!("{path}: {said}{advice}")).into()
}

fn unavailable(path: &Path, error: &io::Error) -> OpenError {
    let folder = path.parent().filter(|folder| !folder.exists());
    let advice = match (error.kind(), folder) {
        (io::ErrorKind::NotFound, Some(_)) => ": the folder does not exist, create it first",
        _ => "",
    };
    let text = format!("{}: {error}{advice}", path.display());
    BackendError::unavailable(io::Error::new(error.kind(), text)).into()
}

fn ensure_file(path: &Path) -> Result<(), OpenError> {
    /// To close a file drops all locks that this process has on it. So nobody here goes on to open one
    /// that another is about to close.
    static MAKING: Mutex<()> = Mutex::new(());

    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::metadata(path) {
        Ok(file) if file.is_dir() => {
            let path = path.display();
            Err(OpenError::Unsupported(format!("{path} is a folder")))
        }
        Ok(file) if !file.is_file() => {
            let path = path.display();
            Err(OpenError::Unsupported(format!("{path} is not a file")))
        }
        Ok(file) if file.permissions().readonly() => {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only");
            Err(unavailable(path, &error))
        }
        // SQLite would take a few bytes for nothing at all, and write over them.
        Ok(file) if (1..SMALLEST_DATABASE).contains(&file.len()) => {
            Err(Refused::NotADatabase.into_error(path))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|error| unavailable(path, &error))
        }
        Err(error) => Err(unavailable(path, &error)),
    }
}

/// SQLite gives its other files the permissions of this one.
fn create(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // Another process was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened.map(drop),
    }
}

enum Refused {
    CannotRead(sqlx::Error),
    NotADatabase,
    Other(OpenError),
}

impl Refused {
    fn into_error(self, path: &Path) -> OpenError {
        match self {
            Self::CannotRead(error) => failed(error).into(),
            Self::NotADatabase => {
                OpenError::NotOurs(format!("{} is not a SQLite database", path.display()))
            }
            Self::Other(error) => error,
        }
    }
}

async fn look(options: SqliteConnectOptions, prefix: &TablePrefix) -> Result<Found, Refused> {
    let refused = |error: sqlx::Error| match result_code(&error) {
        Some(READONLY | CANTOPEN) => Refused::CannotRead(error),
        Some(NOTADB) => Refused::NotADatabase,
        _ => Refused::Other(cannot_open(error)),
    };
    let _clock = hold_paused_clock();
    let mut connection = options.connect().await.map_err(refused)?;
    // The first that reads the file.
    let read = sqlx::query("PRAGMA schema_version").execute(&mut connection);
    let found = match read.await {
        Ok(_) => schema::look(&mut connection, prefix, STEPS)
            .await
            .map_err(Refused::Other),
        Err(error) => Err(refused(error)),
    };
    let _ = connection.close().await;
    found
}

/// The mode stays with the file. To switch needs it alone for a moment, which others that open it
/// at the same time want as well.
async fn switch_to_wal(
    options: &SqliteConnectOptions,
    busy_timeout: Duration,
) -> Result<(), OpenError> {
    let held = hold_paused_clock();
    let mut connection = options.connect().await.map_err(cannot_open)?;
    drop(held);
    let clock = SystemClock;
    let start = clock.monotonic();
    let mode = loop {
        let held = hold_paused_clock();
        let mode = sqlx::query_scalar::<_, String>("PRAGMA main.journal_mode = WAL")
            .fetch_one(&mut connection)
            .await;
        drop(held);
        match mode {
            Err(error)
                if result_code(&error) == Some(BUSY)
                    && clock.monotonic().saturating_sub(start) < busy_timeout =>
            {
                sleep(TRY_AGAIN_EVERY).await;
            }
            mode => break mode.map_err(cannot_open),
        }
    };
    let _held = hold_paused_clock();
    let _ = connection.close().await;
    if mode? == "wal" {
        Ok(())
    } else {
        Err(OpenError::Unsupported(
            "the file system doesn't let SQLite keep a write-ahead log".to_owned(),
        ))
    }
}

/// The file of a connection's main database; none in memory.
pub(super) async fn file_of(
    connection: &mut SqliteConnection,
) -> Result<Option<PathBuf>, OpenError> {
    let file: Option<String> =
        sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
            .fetch_one(connection)
            .await
            .map_err(cannot_open)?;
    Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
}

// SQLite's result codes: <https://www.sqlite.org/rescode.html>.
const BUSY: i32 = 5;
const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

/// The result code without what extends it.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

pub(super) fn cannot_open(error: sqlx::Error) -> OpenError {
    match result_code(&error) {
        Some(NOTADB) => OpenError::NotOurs("the file is not a SQLite database".to_owned()),
        _ => failed(error).into(),
    }
}
