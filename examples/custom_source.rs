//! A `KeySource` of one's own: keys from a text file that something else writes.
//!
//! One line is one key, and the file holds nothing else:
//!
//! ```text
//! <key id> <user> <pepper id> <hash in hex> <scope>,<scope>
//! ```
//!
//! `cargo run --example custom_source` makes such a file with one key in it, and prints where it is
//! and the key's token. `KEYS_FILE` names another file, `ADDR` another address. Then:
//!
//! ```sh
//! curl -i http://127.0.0.1:3000/notes -H "Authorization: Bearer $READER"   # 200
//! sed -i s/notes:read/notes:write/ "$KEYS"    # and curl again: 403
//! sed -i 's/ [^ ]*$//' "$KEYS"                # a broken line: 503, and not 401
//! : > "$KEYS"                                 # no line: 401
//! ```

#[path = "support/server.rs"]
mod server;

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs::{self, File},
    io::Read,
    path::PathBuf,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use tokio::task;
use tower_api_key::{
    ApiKey, ApiKeyLayer, ApiKeyToken, AuthContext, BackendError, Brand, CachedResolver, KeyId,
    KeySource, LookupKey, Pepper, PepperId, Peppers, RequireScope, Scopes, SecretHash,
};

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let listener = server::listen().await?;
    let path = env::var_os("KEYS_FILE").map_or_else(file_in_new_folder, |path| Ok(path.into()))?;
    println!("keys: {}", path.display());

    // Beside the keys so that there is one place to look at. Yours belongs where who can read the
    // keys can't.
    let peppers = Peppers::new(Pepper::from_file("v1", path.with_extension("pepper"))?);
    if !path.exists() {
        let token = ApiKeyToken::generate(&Brand::default())?;
        let hash = peppers.hash(&token)?;
        let (id, pepper, hash) = (token.key_id(), hash.pepper(), hash.to_hex());
        fs::write(&path, format!("{id} user_1 {pepper} {hash} notes:read\n"))?;
        println!("reader: {}", token.expose());
    }

    let resolver = CachedResolver::builder(KeyFile::at(path))
        .peppers(peppers)
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

/// The keys of a file, read again when it has changed. Clones are one source.
#[derive(Clone)]
struct KeyFile(Arc<Shared>);

struct Shared {
    path: PathBuf,
    last_read: Mutex<Option<(Stamp, Arc<Keys>)>>,
}

type Keys = HashMap<LookupKey, ApiKey>;

/// By which a change is noticed.
#[derive(PartialEq)]
struct Stamp {
    modified: SystemTime,
    len: u64,
}

impl KeySource for KeyFile {
    async fn get_many(&self, wanted: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let file = self.clone();
        // Files block, and the threads that serve requests must not.
        let keys = task::spawn_blocking(move || file.keys())
            .await
            .map_err(BackendError::unavailable)??;
        Ok(wanted
            .iter()
            .filter_map(|key| keys.get(key).cloned())
            .collect())
    }
}

impl KeyFile {
    fn at(path: PathBuf) -> Self {
        let last_read = Mutex::default();
        Self(Arc::new(Shared { path, last_read }))
    }

    /// Whatever is wrong with the file is an error, and the keys of an earlier read don't stand in:
    /// one of them may have been taken out since.
    fn keys(&self) -> Result<Arc<Keys>, BackendError> {
        let mut last_read = self
            .0
            .last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut file = File::open(&self.0.path).map_err(BackendError::unavailable)?;
        // Before the content: what is written in between then shows at the next call.
        let stamp = Stamp::of(&file)?;
        if let Some((last, keys)) = &*last_read
            && *last == stamp
        {
            return Ok(keys.clone());
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(BackendError::unavailable)?;
        let keys = Arc::new(keys_in(&bytes).map_err(BackendError::corrupt)?);
        *last_read = stamp.is_settled().then(|| (stamp, keys.clone()));
        Ok(keys)
    }
}

impl Stamp {
    fn of(file: &File) -> Result<Self, BackendError> {
        let metadata = file.metadata().map_err(BackendError::unavailable)?;
        let modified = metadata.modified().map_err(BackendError::unavailable)?;
        let len = metadata.len();
        Ok(Self { modified, len })
    }

    /// Whether a later change will show. It may not while the stamp is new: two changes within one
    /// tick of the file system's clock look the same.
    fn is_settled(&self) -> bool {
        let tick = Duration::from_secs(2);
        self.modified.elapsed().is_ok_and(|age| age > tick)
    }
}

fn keys_in(bytes: &[u8]) -> Result<Keys, AnyError> {
    let mut keys = Keys::new();
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
