//! The backend: a table, and rows made from keys and read back.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tower_api_key::{
    ApiKey, ApiKeyBackend, BackendError, Change, ChangeSink, KeyFilter, KeyId, KeySource,
    LookupKey, Metadata, PageRequest, PepperId, PepperUsage, Scopes, SecretHash, Subscription,
    Touch,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// The database: rows under their look-up keys, which are the primary key.
#[derive(Default)]
pub(crate) struct Table {
    rows: Mutex<BTreeMap<[u8; LookupKey::LEN], Row>>,
    /// The caches of the stores on this table.
    caches: Mutex<Vec<ChangeSink>>,
}

/// Times are milliseconds since 1970.
#[derive(Clone)]
struct Row {
    id: [u8; KeyId::LEN],
    user_id: String,
    name: Option<String>,
    display_prefix: String,
    /// A column of its own. Were an empty list or a NULL to mean "everything", a forgotten value
    /// would open every door.
    unrestricted: bool,
    /// Separated by spaces.
    scopes: String,
    secret_hash: String,
    /// None beside the digest of a whole token.
    pepper_id: Option<String>,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
    revocation_reason: Option<String>,
    disabled_at: Option<i64>,
    retires_at: Option<i64>,
    metadata: Option<String>,
    predecessor: Option<[u8; KeyId::LEN]>,
    successor: Option<[u8; KeyId::LEN]>,
    made_by: Option<[u8; KeyId::LEN]>,
    version: u64,
}

impl KeySource for Table {
    /// `SELECT … WHERE lookup_key IN (…)`
    async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
        let rows = self.rows();
        let found = keys.iter().filter_map(|key| rows.get(key.as_bytes()));
        found.map(Row::to_key).collect()
    }

    /// Nobody else writes this table, so each write can tell of itself before it returns. A database
    /// with other writers can't promise that: it is asked for its changes with a `ChangeFeed`, as the
    /// file is in the example `custom_source`.
    async fn subscribe(&self, cache: ChangeSink) -> Result<Subscription, BackendError> {
        let mut caches = lock(&self.caches);
        caches.retain(|cache| !cache.is_closed());
        caches.push(cache);
        Ok(Subscription::direct())
    }
}

impl ApiKeyBackend for Table {
    /// `INSERT … ON CONFLICT DO NOTHING`
    async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
        let inserted = {
            let mut rows = self.rows();
            let is_taken = by_id(&rows, &key.id).is_some();
            match rows.entry(*key.lookup_key().as_bytes()) {
                Entry::Vacant(place) if !is_taken => {
                    place.insert(Row::of(key));
                    true
                }
                _ => false,
            }
        };
        self.tell(key.lookup_key());
        Ok(inserted)
    }

    /// `UPDATE … SET name = ?, …, last_used_at = greatest(last_used_at, ?),
    /// revoked_at = coalesce(revoked_at, ?), version = ? WHERE lookup_key = ? AND version = ?`, without the columns
    /// that never change: `user_id`, `created_at`, `predecessor`, `made_by`.
    async fn update(&self, key: &ApiKey, expected: u64) -> Result<bool, BackendError> {
        let mut new = Row::of(key);
        let updated = match self.rows().get_mut(key.lookup_key().as_bytes()) {
            Some(row) if row.version == expected => {
                new.user_id.clone_from(&row.user_id);
                new.created_at = row.created_at;
                new.last_used_at = new.last_used_at.max(row.last_used_at);
                if row.revoked_at.is_some() {
                    new.revoked_at = row.revoked_at;
                    new.revocation_reason.clone_from(&row.revocation_reason);
                }
                (new.predecessor, new.made_by) = (row.predecessor, row.made_by);
                *row = new;
                true
            }
            _ => false,
        };
        self.tell(key.lookup_key());
        Ok(updated)
    }

    /// `DELETE … WHERE id = ? RETURNING lookup_key`
    async fn delete(&self, id: &KeyId) -> Result<bool, BackendError> {
        let deleted = {
            let mut rows = self.rows();
            by_id(&rows, id).and_then(|place| rows.remove(&place))
        };
        let Some(row) = deleted else { return Ok(false) };
        self.tell(row.to_key()?.lookup_key());
        Ok(true)
    }

    /// `SELECT … WHERE id = ANY (?)`: what a key is looked up by is its id, unless it was imported by a digest.
    async fn get_by_id(&self, ids: &[KeyId]) -> Result<Vec<ApiKey>, BackendError> {
        let rows = self.rows();
        let found = ids.iter().filter_map(|id| rows.get(&by_id(&rows, id)?));
        found.map(Row::to_key).collect()
    }

    /// `SELECT … WHERE user_id = ? AND (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC
    /// LIMIT ?`, with an index on these three columns.
    async fn list_for_user(
        &self,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let after = page.cursor();
        let after = after.map(|cursor| (millis(cursor.created_at()), *cursor.id().as_bytes()));
        let rows = self.rows();
        let of_user = rows.values().filter(|row| row.user_id == user_id);
        let mut found: Vec<_> = of_user
            .filter(|row| after.is_none_or(|after| row.place() < after))
            .collect();
        found.sort_unstable_by_key(|row| Reverse(row.place()));
        found
            .into_iter()
            .take(page.max_keys())
            .map(Row::to_key)
            .collect()
    }

    /// `SELECT … WHERE` with what was set of the filter, in the same order.
    async fn list(
        &self,
        filter: &KeyFilter,
        page: &PageRequest,
    ) -> Result<Vec<ApiKey>, BackendError> {
        let place = |key: &ApiKey| (key.created_at, key.id);
        let after = page.cursor().map(|after| (after.created_at(), *after.id()));
        let keys: Result<Vec<_>, _> = self.rows().values().map(Row::to_key).collect();
        let mut keys = keys?;
        keys.retain(|key| filter.fits(key) && after.is_none_or(|after| place(key) < after));
        keys.sort_unstable_by_key(|key| Reverse(place(key)));
        keys.truncate(page.max_keys());
        Ok(keys)
    }

    /// `DELETE … WHERE lookup_key IN (SELECT lookup_key … WHERE pepper_id IS NOT NULL AND (revoked_at < ? OR
    /// least(expires_at, retires_at) < ?) LIMIT ?)`: without a pepper, it was imported by a digest, and stays.
    async fn purge(&self, before: SystemTime, at_most: usize) -> Result<usize, BackendError> {
        let before = millis(before);
        let is_over = |row: &Row| {
            let ends = [row.revoked_at, row.expires_at, row.retires_at];
            row.pepper_id.is_some() && ends.into_iter().flatten().any(|end| end < before)
        };
        let gone: Vec<_> = {
            let mut rows = self.rows();
            let over = rows.iter().filter(|(_, row)| is_over(row));
            let gone: Vec<_> = over.map(|(key, _)| *key).take(at_most).collect();
            rows.retain(|key, _| !gone.contains(key));
            gone
        };
        for key in &gone {
            self.tell(LookupKey::from_bytes(*key));
        }
        Ok(gone.len())
    }

    /// `UPDATE … SET last_used_at = greatest(last_used_at, used_at) FROM unnest(?, ?) AS
    /// used (id, used_at) WHERE keys.id = used.id`: one statement for up to 1,000 keys.
    ///
    /// No request waits for it, and no cache has to know.
    async fn touch(&self, touches: &[Touch]) -> Result<(), BackendError> {
        let mut rows = self.rows();
        for touch in touches {
            if let Some(place) = by_id(&rows, &touch.id)
                && let Some(row) = rows.get_mut(&place)
            {
                row.last_used_at = row.last_used_at.max(Some(millis(touch.used_at)));
            }
        }
        Ok(())
    }

    /// `SELECT pepper_id, count(*), count(*) FILTER (WHERE revoked_at IS NULL AND
    /// coalesce(least(expires_at, retires_at) > ?, true)) … GROUP BY pepper_id`
    async fn pepper_usage(&self, now: SystemTime) -> Result<Vec<PepperUsage>, BackendError> {
        let now = millis(now);
        let mut counts = BTreeMap::new();
        for row in self.rows().values() {
            let (keys, working) = counts.entry(row.pepper_id.clone()).or_insert((0, 0));
            let ends = [row.expires_at, row.retires_at];
            let works = row.revoked_at.is_none() && ends.iter().flatten().all(|end| now < *end);
            *keys += 1;
            *working += u64::from(works);
        }
        counts
            .into_iter()
            .map(|(id, (keys, working))| {
                let pepper = id.map(|id| PepperId::new(&id)).transpose();
                let pepper = pepper.map_err(BackendError::corrupt)?;
                Ok(PepperUsage::new(pepper, keys, working))
            })
            .collect()
    }
}

impl Table {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<[u8; LookupKey::LEN], Row>> {
        lock(&self.rows)
    }

    /// When the change can be read, and not before.
    fn tell(&self, key: LookupKey) {
        for cache in &*lock(&self.caches) {
            cache.changed(Change::Key(key));
        }
    }
}

/// What the row is looked up by. A database has an index for this.
fn by_id(rows: &BTreeMap<[u8; LookupKey::LEN], Row>, id: &KeyId) -> Option<[u8; LookupKey::LEN]> {
    let is_it = |row: &Row| row.id == *id.as_bytes();
    if rows.get(id.as_bytes()).is_some_and(is_it) {
        return Some(*id.as_bytes());
    }
    let found = rows.iter().find(|(_, row)| is_it(row));
    found.map(|(place, _)| *place)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Row {
    fn of(key: &ApiKey) -> Self {
        Self {
            id: *key.id.as_bytes(),
            user_id: key.user_id.clone(),
            name: key.name.clone(),
            display_prefix: key.display_prefix.to_string(),
            unrestricted: key.scopes.is_unrestricted(),
            scopes: key.scopes.iter().collect::<Vec<_>>().join(" "),
            secret_hash: key.secret_hash.to_hex(),
            pepper_id: key.secret_hash.pepper().map(ToString::to_string),
            created_at: millis(key.created_at),
            expires_at: key.expires_at.map(millis),
            last_used_at: key.last_used_at.map(millis),
            revoked_at: key.revoked_at.map(millis),
            revocation_reason: key.revocation_reason.as_ref().map(ToString::to_string),
            disabled_at: key.disabled_at.map(millis),
            retires_at: key.retires_at.map(millis),
            metadata: key.metadata.as_ref().map(|it| it.as_str().to_owned()),
            predecessor: key.predecessor.as_ref().map(KeyId::as_bytes).copied(),
            successor: key.successor.as_ref().map(KeyId::as_bytes).copied(),
            made_by: key.made_by.as_ref().map(KeyId::as_bytes).copied(),
            version: key.version,
        }
    }

    /// What can't be read is an error: a key that is skipped looks as if it had never been.
    fn to_key(&self) -> Result<ApiKey, BackendError> {
        self.read().map_err(BackendError::corrupt)
    }

    fn read(&self) -> Result<ApiKey, AnyError> {
        let id = KeyId::from_bytes(self.id);
        let scopes = match (self.unrestricted, self.scopes.as_str()) {
            (true, "") => Scopes::unrestricted(),
            (true, _) => return Err("scopes of a key that is unrestricted".into()),
            (false, list) => Scopes::of(list.split_ascii_whitespace())?,
        };
        let hash = match &self.pepper_id {
            Some(pepper) => SecretHash::from_hex(PepperId::new(pepper)?, &self.secret_hash)?,
            None => SecretHash::from_digest_hex(&self.secret_hash)?,
        };
        let mut key = ApiKey::new(id, &*self.user_id, scopes, hash);
        key.display_prefix = self.display_prefix.parse()?;
        key.created_at = time(self.created_at)?;
        key.name.clone_from(&self.name);
        key.expires_at = self.expires_at.map(time).transpose()?;
        key.last_used_at = self.last_used_at.map(time).transpose()?;
        key.revoked_at = self.revoked_at.map(time).transpose()?;
        key.disabled_at = self.disabled_at.map(time).transpose()?;
        key.revocation_reason = self
            .revocation_reason
            .as_deref()
            .map(str::parse)
            .transpose()?;
        key.retires_at = self.retires_at.map(time).transpose()?;
        let metadata = self.metadata.as_deref().map(Metadata::from_stored);
        key.metadata = metadata.transpose()?;
        key.predecessor = self.predecessor.map(KeyId::from_bytes);
        key.successor = self.successor.map(KeyId::from_bytes);
        key.made_by = self.made_by.map(KeyId::from_bytes);
        key.version = self.version;
        Ok(key)
    }

    /// Where the row stands in lists.
    fn place(&self) -> (i64, [u8; KeyId::LEN]) {
        (self.created_at, self.id)
    }
}

/// The store gives times between 1970 and the end of 9999, and no others.
fn millis(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> Result<SystemTime, AnyError> {
    let since_1970 = Duration::from_millis(u64::try_from(millis)?);
    UNIX_EPOCH
        .checked_add(since_1970)
        .ok_or_else(|| "a time beyond all clocks".into())
}
