//! Peppers from outside of the program: the environment, and files.

use std::{env, fs, io, io::Write, path::Path};

use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use super::{super::hex, Pepper, PepperId, random_bytes};
use crate::error::ConfigError;

impl Pepper {
    /// Reads the pepper from the environment variable `variable`: its raw bytes, nothing is
    /// decoded.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperNotSet`]; [`ConfigError::PepperPadded`] if the value begins or ends
    /// with white space or a quotation mark, which one instance may have and another not; those of
    /// [`Pepper::new`].
    pub fn from_env(id: &str, variable: &str) -> Result<Self, ConfigError> {
        let value = env::var_os(variable).ok_or_else(|| not_set(variable))?;
        let value = Zeroizing::new(value.into_encoded_bytes());
        if let Some(problem) = padding(&value) {
            let variable = shown(variable);
            return Err(ConfigError::PepperPadded { variable, problem });
        }
        Self::new(id, &*value)
    }

    /// Reads the pepper from the file at `path`: hex, with any white space around it.
    ///
    /// Blocks for as long as the file system does: call it at start.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperFile`] if the file is missing, cannot be read, or is not hex, and
    /// those of [`Pepper::new`].
    pub fn from_file(id: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = Zeroizing::new(fs::read(path).map_err(|error| failed(path, error))?);
        let bytes = hex::decode(text.trim_ascii()).ok_or_else(|| {
            let problem = "not hex: `openssl rand -hex 32` makes one";
            failed(path, io::Error::new(io::ErrorKind::InvalidData, problem))
        })?;
        Self::new(id, &*Zeroizing::new(bytes))
    }

    /// Creates the file at `path` with a new pepper of 32 random bytes in hex, and returns that
    /// pepper. Only the owner may read the file (0600).
    ///
    /// An existing file is never replaced: keys may depend on it. So call this once, when the
    /// service is set up, and [`from_file`](Self::from_file) at every start.
    ///
    /// The file appears whole or not at all, and it is on disk before this returns. The file
    /// system has to support hard links. Blocks for as long as the file system does.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperFile`] if the file exists or cannot be created,
    /// [`ConfigError::PepperId`], and [`ConfigError::Random`].
    pub fn create_file(id: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        // Before a file is created.
        PepperId::new(id)?;
        let path = path.as_ref();
        let bytes = random_bytes()?;
        let text = Zeroizing::new(hex::encode(&*bytes));
        publish(path, text.as_bytes()).map_err(|error| failed(path, error))?;
        Self::new(id, bytes.as_slice())
    }
}

fn failed(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::PepperFile {
        path: path.display().to_string(),
        source,
    }
}

/// Returns what surrounds the pepper and is probably no part of it: a line break that `echo` has
/// added, or quotation marks of an `.env` file.
fn padding(value: &[u8]) -> Option<&'static str> {
    let at_either_end = |is_it: fn(&u8) -> bool| {
        value.first().is_some_and(is_it) || value.last().is_some_and(is_it)
    };
    if at_either_end(|byte| matches!(byte, b'\n' | b'\r')) {
        Some("a line break")
    } else if at_either_end(|byte| byte.is_ascii_whitespace() || *byte == b'\x0b') {
        Some("white space")
    } else if at_either_end(|byte| matches!(byte, b'"' | b'\'' | b'`')) {
        Some("a quotation mark")
    } else {
        None
    }
}

fn not_set(variable: &str) -> ConfigError {
    ConfigError::PepperNotSet(shown(variable))
}

/// The name of the variable, unless it may be the pepper, given in the wrong place.
fn shown(variable: &str) -> String {
    let usual = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let named = variable.len() <= 40 && variable.bytes().all(usual);
    if named { variable } else { "(not shown)" }.to_owned()
}

/// Creates `path` with this content unless it exists by then. A link of a finished file is what
/// appears, so no reader meets half a pepper.
fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut unique = [0; 8];
    SysRng
        .try_fill_bytes(&mut unique)
        .map_err(io::Error::other)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.tmp", hex::encode(&unique)));
    let unfinished = Path::new(&unfinished);
    let written = write_new(unfinished, content).and_then(|()| fs::hard_link(unfinished, path));
    let removed = fs::remove_file(unfinished);
    written?;
    removed?;
    sync_folder_of(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Without it a crash could take the file's name back after keys were made under its pepper.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(())
    }
}
