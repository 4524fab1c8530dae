//! Which file is open, and whether it is still the one under its name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::BackendError;

/// A file as it was when it was opened.
///
/// It is only ever looked at from outside: to open a SQLite file a second time and close it drops all
/// locks that the process has on it.
pub(super) struct OpenFile {
    path: PathBuf,
    identity: Identity,
}

impl OpenFile {
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        let identity = Identity::of(&path)?;
        Ok(Self { path, identity })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    ///
    /// [`BackendError::unavailable`] where something else, or nothing, is there. What is open is then
    /// a file that nobody else can see.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let failed = |kind, why: &str| {
            let text = format!("{} {why} while it was open", self.path.display());
            Err(BackendError::unavailable(io::Error::new(kind, text)))
        };
        match Identity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => failed(io::ErrorKind::Other, "was replaced"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                failed(error.kind(), "was removed")
            }
            Err(error) => Err(BackendError::unavailable(error)),
        }
    }
}

/// The device and the number on it.
#[cfg(unix)]
#[derive(PartialEq, Eq)]
struct Identity(u64, u64);

#[cfg(unix)]
impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;

        let file = fs::metadata(path)?;
        Ok(Self(file.dev(), file.ino()))
    }
}

/// A file that is open can't be moved or removed.
#[cfg(not(unix))]
#[derive(PartialEq, Eq)]
struct Identity;

#[cfg(not(unix))]
impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|_| Self)
    }
}
