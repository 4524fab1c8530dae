//! A `KeySource` of one's own: keys from a text file that something else writes.
//!
//! One line is one key, and the file holds nothing else:
//!
//! ```text
//! <key id> <user> <pepper id> <hash in hex> <scope>,<scope>
//! ```
//!
//! Whoever changes it writes a new one beside it and renames that, so that nobody reads half of it.
//!
//! `cargo run --example custom_source` makes such a file with one key in it, and prints where it is
//! and the key's token. `KEYS_FILE` names another file, `ADDR` another address. Then:
//!
//! ```sh
//! curl -i http://127.0.0.1:3000/notes -H "Authorization: Bearer $READER"   # 200
//! sed -i s/notes:read/notes:write/ "$KEYS"    # and curl again, a moment later: 403
//! sed -i 's/ [^ ]*$//' "$KEYS"                # a broken line: 503, and not 401
//! : > "$KEYS"                                 # no line: 401
//! ```

#[path = "support/server.rs"]
mod server;

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use tokio::task;
use tower_api_key::{
    ApiKey, ApiKeyLayer, ApiKeyToken, AuthContext, BackendError, Brand, CacheConfig,
    CachedResolver, Change, ChangeFeed, ChangeSink, KeyId, KeySource, LookupKey, Pepper, PepperId,
    Peppers, RequireScope, Scopes, SecretHash, Subscription,
};

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let listener = server::listen().await?;
    let path = env::var_os("KEYS_FILE").map_or_else(file_in_new_folder, |path| Ok(path.into()))?;
    println!("keys: {}", path.display());

    // Beside the keys so that there is one place to look at. Yours belongs where who can read the
    // keys can't.
    let pepper_file = path.with_extension("pepper");
    let pepper = if path.exists() || pepper_file.exists() {
        Pepper::from_file("v1", pepper_file)?
    } else {
        Pepper::create_file("v1", pepper_file)?
    };
    let peppers = Peppers::new(pepper);
    if !path.exists() {
        let token = ApiKeyToken::generate(&Brand::default())?;
        let hash = peppers.hash(&token)?;
        let (id, pepper) = token
            .key_id()
            .zip(hash.pepper())
            .ok_or("a new token has both")?;
        let hash = hash.to_hex();
        fs::write(&path, format!("{id} user_1 {pepper} {hash} notes:read\n"))?;
        println!("reader: {}", token.expose());
    }

    // A change of the file counts within a fifth of this, and within all of it when the file can't be
    // looked at any more.
    let max_staleness = Duration::from_secs(1);
    let resolver = CachedResolver::builder(KeyFile(path))
        .peppers(peppers)
        .cache(CacheConfig::new().max_staleness(max_staleness))
        .build()
        .await?;
    let app = Router::new()
        .route("/notes", get(notes))
        .route_layer(RequireScope("notes:read"))
        .route_layer(ApiKeyLayer::new(resolver));
    server::serve(listener, app).await?;
    Ok(())
}

async fn notes(auth: AuthContext) -> String {
    format!("the notes of {}\n", auth.user_id())
}

fn file_in_new_folder() -> Result<PathBuf, AnyError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let folder = env::temp_dir().join(format!("custom_source-{}-{now}", process::id()));
    fs::create_dir(&folder)?;
    Ok(folder.join("keys.txt"))
}

/// The keys of a file. It is read for keys that the resolver doesn't remember: those that wait at
/// the same moment come in one call.
struct KeyFile(PathBuf);

impl KeySource for KeyFile {
    /// Whatever is wrong with the file is an error: a key that is left out looks as if it had never
    /// been.
    async fn get_many(&self, wanted: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let path = self.0.clone();
        let bytes = blocking(move || fs::read(path)).await?;
        let keys = keys_in(&bytes).map_err(BackendError::corrupt)?;
        Ok(wanted
            .iter()
            .filter_map(|key| keys.get(key).cloned())
            .collect())
    }

    /// A file doesn't call when it changes. It can be looked at.
    async fn subscribe(&self, _: ChangeSink) -> Result<Subscription, BackendError> {
        Ok(Subscription::feed(FileChanges {
            path: self.0.clone(),
            seen: None,
        }))
    }
}

/// Whether the file has changed since one last looked.
struct FileChanges {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// By which a change is noticed.
#[derive(PartialEq)]
struct Stamp {
    modified: SystemTime,
    len: u64,
}

impl ChangeFeed for FileChanges {
    /// Called every fifth of `max_staleness`. That the file could be looked at is the proof that no
    /// change was missed; where it can't be, nothing that was read before is believed for long.
    async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
        let path = self.path.clone();
        let stamp = blocking(move || Stamp::of(&path)).await?;
        if self.seen.as_ref() == Some(&stamp) {
            return Ok(Vec::new());
        }
        self.seen = stamp.is_settled().then_some(stamp);
        // Which of its lines has changed isn't known.
        Ok(vec![Change::Everything])
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            modified: metadata.modified()?,
            len: metadata.len(),
        })
    }

    /// Whether a later change will show. It may not while the stamp is new: two changes within one
    /// tick of the file system's clock look the same.
    fn is_settled(&self) -> bool {
        let tick = Duration::from_secs(2);
        self.modified.elapsed().is_ok_and(|age| age > tick)
    }
}

/// Files block, and the threads that serve requests must not.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BackendError> {
    let done = task::spawn_blocking(work).await;
    done.map_err(BackendError::unavailable)?
        .map_err(BackendError::unavailable)
}

fn keys_in(bytes: &[u8]) -> Result<HashMap<LookupKey, ApiKey>, AnyError> {
    let mut keys = HashMap::new();
    for (at, line) in str::from_utf8(bytes)?.lines().enumerate() {
        let key = key_in(line).map_err(|error| format!("line {}: {error}", at + 1))?;
        if keys.insert(key.lookup_key(), key).is_some() {
            return Err(format!("line {}: the key was there before", at + 1).into());
        }
    }
    Ok(keys)
}

fn key_in(line: &str) -> Result<ApiKey, AnyError> {
    let [id, user, pepper, hash, scopes] = line.split_ascii_whitespace().collect::<Vec<_>>()[..]
    else {
        return Err("five fields were expected".into());
    };
    let id: KeyId = id.parse()?;
    let hash = SecretHash::from_hex(PepperId::new(pepper)?, hash)?;
    let scopes = Scopes::of(scopes.split(','))?;
    Ok(ApiKey::new(id, user, scopes, hash))
}
