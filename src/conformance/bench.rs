//! Two handles on the database, and keys to put into it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Settings,
    report::{Broken, Outcome, ensure},
    steps::Tasks,
};
use crate::{
    backend::{ApiKeyBackend, PageRequest},
    key::{ApiKey, Metadata, RevocationReason},
    scope::Scopes,
    sync::{AtomicU64, Ordering},
    token::{ApiKeyToken, Brand, KeyId, PepperId, SecretHash},
};

/// How many tasks meet where they compete.
pub(super) const CONTENDERS: usize = 64;

pub(super) struct Bench<B> {
    nodes: [Arc<B>; 2],
    /// Random: ids and users of this run are those of no other.
    run: [u8; KeyId::LEN],
    made: AtomicU64,
    pub(super) settings: Settings,
}

impl<B: ApiKeyBackend> Bench<B> {
    pub(super) fn new(nodes: [B; 2], settings: Settings) -> Outcome<Self> {
        let random = ApiKeyToken::generate(&Brand::default())?.lookup_key();
        Ok(Self {
            nodes: nodes.map(Arc::new),
            run: *random.as_bytes(),
            made: AtomicU64::new(1),
            settings,
        })
    }

    /// The handle that most is written through.
    pub(super) fn here(&self) -> &Arc<B> {
        &self.nodes[0]
    }

    /// The handle that most is read and followed through.
    pub(super) fn there(&self) -> &Arc<B> {
        &self.nodes[1]
    }

    /// One of the two.
    pub(super) fn node(&self, at: usize) -> &Arc<B> {
        &self.nodes[at % 2]
    }

    /// A user that no other run has.
    pub(super) fn user(&self, name: &str) -> String {
        let bytes = self.run[..8].iter();
        let run = bytes.fold(0_u64, |run, byte| run << 8 | u64::from(*byte));
        format!("{name}-{run:016x}")
    }

    /// Another one for each run, of whole milliseconds.
    pub(super) fn offset(&self) -> Duration {
        let bytes = [self.run[20], self.run[21], self.run[22], self.run[23]];
        Duration::from_millis(1_000 * u64::from(u32::from_be_bytes(bytes)))
    }

    /// A number that wasn't given before.
    pub(super) fn number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::SeqCst)
    }

    /// A number of seconds that no other run has, nor is near.
    pub(super) fn moment(&self) -> u64 {
        let bytes = self.run[8..12].iter();
        bytes.fold(1, |moment, byte| moment << 8 | u64::from(*byte))
    }

    /// A pepper that no other run has.
    pub(super) fn pepper(&self, name: &str) -> Outcome<PepperId> {
        let user = self.user(name);
        Ok(PepperId::new(&user[..user.len().min(15)])?)
    }

    /// An id that wasn't given before. They don't come in the order of their bytes.
    pub(super) fn id(&self) -> KeyId {
        let mut id = self.run;
        let mixed = self.number().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        id[..8].copy_from_slice(&mixed.to_be_bytes());
        KeyId::from_bytes(id)
    }

    /// An id whose first byte is given.
    pub(super) fn id_from(&self, first: u8) -> KeyId {
        let mut id = *self.id().as_bytes();
        id.rotate_right(1);
        id[0] = first;
        KeyId::from_bytes(id)
    }

    /// A new key of `user`. No two have anything in common.
    pub(super) fn key(&self, user: &str) -> Outcome<ApiKey> {
        let number = self.number();
        let mut key = ApiKey::new(self.id(), user, Scopes::none(), hash(number)?);
        key.created_at = at(number);
        key.predecessor = Some(self.id());
        key.made_by = Some(self.id());
        self.fill(&mut key)?;
        Ok(key)
    }

    /// `key` as the next update would write it: all is new that may be.
    pub(super) fn next(&self, key: &ApiKey) -> Outcome<ApiKey> {
        let mut next = key.clone();
        self.fill(&mut next)?;
        // A revocation stays, and why it was made.
        if key.revoked_at.is_some() {
            next.revoked_at = key.revoked_at;
            next.revocation_reason.clone_from(&key.revocation_reason);
        }
        next.version += 1;
        Ok(next)
    }

    /// All but what never changes, with values that tell where they come from.
    fn fill(&self, key: &mut ApiKey) -> Outcome {
        let number = self.number();
        key.name = Some(format!("name {number}"));
        key.scopes = Scopes::of([format!("scope:{number}"), "notes:*".to_owned()])?;
        key.secret_hash = hash(number)?;
        key.expires_at = Some(at(number + 1));
        key.revoked_at = number.is_multiple_of(2).then(|| at(number + 2));
        key.revocation_reason = key
            .revoked_at
            .map(|_| RevocationReason::Other(format!("{number}")));
        key.disabled_at = number.is_multiple_of(3).then(|| at(number + 3));
        key.retires_at = number.is_multiple_of(5).then(|| at(number + 4));
        key.metadata = Some(Metadata::from_json(format!("{{\"number\":{number}}}"))?);
        key.successor = number.is_multiple_of(7).then(|| self.id());
        Ok(())
    }

    /// A new key of `user` that is stored already, and isn't revoked: it can create others.
    pub(super) async fn stored_parent(&self, user: &str) -> Outcome<ApiKey> {
        let key = unrevoked(self.key(user)?);
        self.store(&key).await?;
        Ok(key)
    }

    /// Keys of `user` to create others with: one before it was changed, the same as it is stored,
    /// and one that is revoked.
    pub(super) async fn changed_parents(&self, user: &str) -> Outcome<(ApiKey, ApiKey, ApiKey)> {
        let before = self.stored_parent(user).await?;
        let newer = unrevoked(self.next(&before)?);
        let revoked = ApiKey {
            revoked_at: Some(before.created_at),
            ..unrevoked(self.key(user)?)
        };
        self.store(&revoked).await?;
        ensure!(
            self.here().update(&newer, before.version).await?,
            "`update` didn't find the version that is stored"
        );
        Ok((before, newer, revoked))
    }

    /// A new key of `user` that is stored already.
    pub(super) async fn stored(&self, user: &str) -> Outcome<ApiKey> {
        let key = self.key(user)?;
        self.store(&key).await?;
        Ok(key)
    }

    pub(super) async fn store(&self, key: &ApiKey) -> Outcome {
        ensure!(
            self.here().insert(key).await?,
            "`insert` of a new id answered that it is taken"
        );
        Ok(())
    }

    /// What is stored under `id`, as one handle reads it.
    pub(super) async fn read(&self, node: &B, id: &KeyId) -> Outcome<Option<ApiKey>> {
        let mut found = node.get_many(&[id.lookup_key()]).await?;
        found.retain(|key| key.id == *id);
        ensure!(found.len() < 2, "{id} has {} records", found.len());
        Ok(found.pop())
    }

    /// The record is `expected`, whichever handle reads it.
    pub(super) async fn holds(&self, expected: &ApiKey, when: &str) -> Outcome {
        for node in &self.nodes {
            match self.read(node, &expected.id).await? {
                Some(found) => same(expected, &found, when)?,
                None => return Err(Broken(format!("{when}, the key isn't found"))),
            }
        }
        Ok(())
    }

    /// There is no such record, whichever handle reads it.
    pub(super) async fn lacks(&self, id: &KeyId, when: &str) -> Outcome {
        for node in &self.nodes {
            let found = self.read(node, id).await?;
            ensure!(found.is_none(), "{when}, the key is found");
        }
        Ok(())
    }

    /// All keys of `user`, as one handle lists them.
    pub(super) async fn listed(&self, node: &B, user: &str) -> Outcome<Vec<ApiKey>> {
        let page = PageRequest::new().limit(PageRequest::MAX_LIMIT);
        Ok(node.list_for_user(user, &page).await?)
    }

    /// As many tasks as compete, begun at the same moment, on both handles in turns. The answer of
    /// each.
    pub(super) async fn contend<T, F>(&self, task: impl Fn(usize, Arc<B>) -> F) -> Outcome<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut tasks = Tasks::new();
        for at in 0..CONTENDERS {
            tasks.add(task(at, self.node(at).clone()))?;
        }
        tasks.join().await
    }
}

/// Which of several attempts answered `true`, where exactly one may.
pub(super) fn winner<E: std::error::Error + 'static>(
    what: &str,
    answers: Vec<Result<bool, E>>,
) -> Outcome<usize> {
    let mut winners = Vec::new();
    for (at, answer) in answers.into_iter().enumerate() {
        if answer? {
            winners.push(at);
        }
    }
    match *winners {
        [winner] => Ok(winner),
        _ => Err(Broken(format!(
            "of {CONTENDERS} {what} at once, {} answered that they were the one",
            winners.len()
        ))),
    }
}

/// A time in whole seconds, another one for each number: that milliseconds survive has a rule of its
/// own.
pub(super) fn at(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + number)
}

fn hash(number: u64) -> Outcome<SecretHash> {
    let pepper = PepperId::new(&format!("v{}", number % 1_000))?;
    let hex = format!("{:064x}", u128::from(number) << 64 | u128::from(number));
    Ok(SecretHash::from_hex(pepper, &hex)?)
}

/// Whether two records say the same, and if not, in which field they differ.
pub(super) fn same(expected: &ApiKey, found: &ApiKey, when: &str) -> Outcome {
    let secret = |key: &ApiKey| (key.secret_hash.to_hex(), key.secret_hash.pepper().copied());
    ensure!(
        secret(expected) == secret(found),
        "{when}, `secret_hash` is another"
    );
    macro_rules! field {
        ($field:ident) => {
            ensure!(
                expected.$field == found.$field,
                "{when}, `{}` is {:?} instead of {:?}",
                stringify!($field),
                found.$field,
                expected.$field
            )
        };
        (time $field:ident) => {
            ensure!(
                expected.$field == found.$field,
                "{when}, `{}` is {} instead of {}",
                stringify!($field),
                time(found.$field.into()),
                time(expected.$field.into())
            )
        };
    }
    field!(id);
    field!(user_id);
    field!(name);
    field!(display_prefix);
    field!(version);
    field!(time created_at);
    field!(time expires_at);
    field!(time last_used_at);
    field!(time revoked_at);
    field!(time disabled_at);
    field!(time retires_at);
    field!(revocation_reason);
    field!(metadata);
    field!(predecessor);
    field!(successor);
    field!(made_by);
    // Their order may be another.
    field!(scopes);
    Ok(())
}

/// Milliseconds since 1970, and what is below them.
fn time(time: Option<SystemTime>) -> String {
    match time.map(|time| time.duration_since(UNIX_EPOCH)) {
        None => "none".to_owned(),
        Some(Ok(since)) => format!(
            "{}.{:06} ms",
            since.as_millis(),
            since.subsec_nanos() % 1_000_000
        ),
        Some(Err(_)) => "before 1970".to_owned(),
    }
}

/// `key` as it was before anybody revoked it.
pub(super) fn unrevoked(key: ApiKey) -> ApiKey {
    ApiKey {
        revoked_at: None,
        revocation_reason: None,
        ..key
    }
}
