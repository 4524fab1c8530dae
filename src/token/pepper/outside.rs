//! Peppers from outside of the program: the environment, and files.

use std::{env, fs, io, io::Write, path::Path};

use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use super::{super::hex, Pepper, PepperId, random_bytes};
use crate::error::ConfigError;

impl Pepper {
    /// The pepper that the environment variable `variable` holds, as raw bytes: nothing is
    /// decoded or trimmed.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperNotSet`], and those of [`Pepper::new`].
    pub fn from_env(id: &str, variable: &str) -> Result<Self, ConfigError> {
        let value = env::var_os(variable).ok_or_else(|| not_set(variable))?;
        Self::new(id, &*Zeroizing::new(value.into_encoded_bytes()))
    }

    /// The pepper that the file at `path` holds, in hex, white space at its end aside.
    ///
    /// A file that isn't there is made, with 32 random bytes, readable by its owner alone (0600).
    /// It appears whole or not at all, also when several processes start at once, and it is on
    /// disk before this returns. The file system has to know hard links for that.
    ///
    /// Blocks for as long as the file system does: call it at start.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PepperFile`] where the file can't be read or made or isn't hex,
    /// [`ConfigError::Random`], and those of [`Pepper::new`].
    pub fn from_file(id: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        // Before a file is made.
        PepperId::new(id)?;
        let path = path.as_ref();
        let failed = |source| ConfigError::PepperFile {
            path: path.display().to_string(),
            source,
        };
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = Zeroizing::new(hex::encode(&*random_bytes()?));
                publish(path, new.as_bytes())
                    .and_then(|()| fs::read(path))
                    .map_err(failed)?
            }
            read => read.map_err(failed)?,
        };
        let text = Zeroizing::new(text);
        let bytes = hex::decode(text.trim_ascii_end()).ok_or_else(|| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "not hex: `openssl rand -hex 32` makes one",
            ))
        })?;
        Self::new(id, &*Zeroizing::new(bytes))
    }
}

fn not_set(variable: &str) -> ConfigError {
    let usual = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let named = variable.len() <= 40 && variable.bytes().all(usual);
    ConfigError::PepperNotSet(if named { variable } else { "(not shown)" }.to_owned())
}

/// Makes `path` with this content unless it exists by then. A link of a finished file is what
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
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        written => written?,
    }
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
