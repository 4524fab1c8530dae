//! Tickets of one process: issued, presented once, gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::PoisonError,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::{
    error::RandomError,
    key::ClaimHash,
    sync::{Mutex, MutexGuard},
    token::{decode_16, random, sha256},
};

/// A one-time token: 128 bits from the operating system. `Debug` shows nothing of it, and no two can be
/// compared but by [`HandoffTokenStore::consume_matching`].
///
/// It is one of two things, which know nothing of each other:
///
/// * a **claim token**, for a key: [`ApiKeyStore::hand_off`](crate::ApiKeyStore::hand_off) gives it out, and
///   [`ApiKeyStore::claim`](crate::ApiKeyStore::claim) takes it, on any node and after a restart,
/// * a **ticket** of one process, for anything else: [`HandoffTokenStore`] issues it and takes it, and forgets it
///   with the process.
#[derive(Clone)]
pub struct HandoffToken([u8; Self::LEN]);

impl HandoffToken {
    /// Its length in bytes.
    pub const LEN: usize = 16;

    /// The token that is these bytes, as they came from where it was presented.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be handed to whom it is for. Who has them has the token.
    #[must_use]
    pub const fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The same as text, for a link: 22 characters of base64url. [`FromStr`] reads it.
    #[must_use]
    pub fn expose_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// A new one, from the operating system's randomness.
    pub(crate) fn generate() -> Result<Self, RandomError> {
        random().map(Self)
    }

    /// What is kept of it where a key is claimed with it.
    pub(crate) fn claim_hash(&self) -> ClaimHash {
        ClaimHash::from_bytes(sha256(&self.0))
    }
}

impl FromStr for HandoffToken {
    type Err = ParseHandoffTokenError;

    fn from_str(text: &str) -> Result<Self, ParseHandoffTokenError> {
        let text = text.as_bytes().try_into().ok();
        text.and_then(decode_16)
            .map(Self)
            .ok_or(ParseHandoffTokenError(()))
    }
}

/// A text is not the 22 characters of a [`HandoffToken`]. It doesn't repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a one-time token is 22 characters of [A-Za-z0-9_-]")]
pub struct ParseHandoffTokenError(());

impl Drop for HandoffToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for HandoffToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandoffToken(..)")
    }
}

/// What a [`HandoffTokenStore`] allows. Zeros are raised to the least that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct HandoffTokenConfig {
    max_pending: usize,
    time_to_live: Duration,
    collision_attempts: usize,
}

impl HandoffTokenConfig {
    /// 1,024 pending tickets, each good for 30 seconds, 16 attempts to draw one that isn't pending.
    pub const fn new() -> Self {
        Self {
            max_pending: 1_024,
            time_to_live: Duration::from_secs(30),
            collision_attempts: 16,
        }
    }

    /// How many tickets may be pending, 1 at the least.
    pub fn max_pending(mut self, tickets: usize) -> Self {
        self.max_pending = tickets.max(1);
        self
    }

    /// How long a ticket is good, a millisecond at the least. One that ends beyond what the clock can say
    /// has ended at once.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = time.max(Duration::from_millis(1));
        self
    }

    /// How often a ticket is drawn, where those before are pending already; once at the least.
    pub fn collision_attempts(mut self, attempts: usize) -> Self {
        self.collision_attempts = attempts.max(1);
        self
    }
}

impl Default for HandoffTokenConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A ticket wasn't issued, or wasn't taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The expected ticket was used, revoked or pruned, or never issued here.
    #[error("the ticket is not pending")]
    NotPending,
    /// The ticket's time was over (`now` is at or after its end). It is gone.
    #[error("the ticket has expired")]
    Expired,
    /// Another ticket was presented than was expected. Both are as they were.
    #[error("another ticket was presented than was expected")]
    Mismatch,
    /// As many tickets are pending as may be.
    #[error("{max_pending} tickets are pending, and no more may be")]
    #[non_exhaustive]
    Full {
        /// How many may be.
        max_pending: usize,
    },
    /// Every ticket that was drawn is pending already: the source of randomness repeats itself.
    #[error("{attempts} tickets were drawn, and all of them are pending already")]
    #[non_exhaustive]
    Collisions {
        /// How many were drawn.
        attempts: usize,
    },
    /// The source of randomness failed.
    #[error("no ticket can be made")]
    Random(#[from] RandomError),
}

/// One-time tickets of one process, for handing something over that both sides will recognize: a
/// connection, a child process, a page, a socket's URL. They are kept in memory, and end with the process. No key
/// is made for one: for handing over a *key*, across nodes and restarts, there is
/// [`ApiKeyStore::hand_off`](crate::ApiKeyStore::hand_off).
///
/// The side that expects a ticket keeps it, the other side presents it, and the first time that they are
/// the same it is used up. Times are given by the caller.
///
/// ```
/// use std::time::Instant;
/// use tower_api_key::{HandoffError, HandoffToken, HandoffTokenStore};
///
/// let tickets = HandoffTokenStore::new();
/// let expected = tickets.issue(Instant::now())?;
///
/// let presented = HandoffToken::from_bytes(*expected.expose());
/// tickets.consume_matching(&expected, &presented, Instant::now())?;
///
/// let again = tickets.consume_matching(&expected, &presented, Instant::now());
/// assert!(matches!(again, Err(HandoffError::NotPending)));
/// # Ok::<(), HandoffError>(())
/// ```
#[derive(Default)]
pub struct HandoffTokenStore {
    config: HandoffTokenConfig,
    pending: Mutex<Pending>,
}

type Bytes = [u8; HandoffToken::LEN];

/// Found by what they are, and by when they end.
#[derive(Default)]
struct Pending {
    ends: BTreeMap<Bytes, Instant>,
    by_end: BTreeSet<(Instant, Bytes)>,
}

impl HandoffTokenStore {
    /// An empty one, with the [defaults](HandoffTokenConfig::new).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one that allows what `config` says.
    #[must_use]
    pub fn with_config(config: HandoffTokenConfig) -> Self {
        Self {
            config,
            pending: Mutex::default(),
        }
    }

    /// A new ticket, pending from `now` on.
    ///
    /// # Errors
    ///
    /// [`HandoffError::Full`], [`HandoffError::Random`], and [`HandoffError::Collisions`] where the
    /// operating system's randomness repeats itself.
    pub fn issue(&self, now: Instant) -> Result<HandoffToken, HandoffError> {
        self.issue_with(now, random)
    }

    /// The same with bytes from `draw`, for tests.
    ///
    /// # Errors
    ///
    /// As [`issue`](Self::issue); what `draw` fails with is a [`HandoffError::Random`].
    pub fn issue_with<E>(
        &self,
        now: Instant,
        mut draw: impl FnMut() -> Result<[u8; HandoffToken::LEN], E>,
    ) -> Result<HandoffToken, HandoffError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        // Two at a time: so there is room wherever one has expired, and no call pays for all of them.
        for _ in 0..2 {
            self.pending().remove_first_expired(now);
        }
        self.check_room(&self.pending())?;
        let end = now.checked_add(self.config.time_to_live).unwrap_or(now);
        for _ in 0..self.config.collision_attempts {
            // Without the lock: whatever it does, it may do with this store, too.
            let bytes = draw().map_err(RandomError::new)?;
            let mut pending = self.pending();
            self.check_room(&pending)?;
            if pending.insert(bytes, end) {
                return Ok(HandoffToken(bytes));
            }
        }
        Err(HandoffError::Collisions {
            attempts: self.config.collision_attempts,
        })
    }

    /// Uses `expected` up if it is what was `presented`, compared in constant time.
    ///
    /// # Errors
    ///
    /// [`HandoffError::NotPending`]; then [`HandoffError::Expired`], which removes it, whatever was
    /// presented; then [`HandoffError::Mismatch`], which uses up neither.
    pub fn consume_matching(
        &self,
        expected: &HandoffToken,
        presented: &HandoffToken,
        now: Instant,
    ) -> Result<(), HandoffError> {
        let mut pending = self.pending();
        let end = *pending
            .ends
            .get(&expected.0)
            .ok_or(HandoffError::NotPending)?;
        if now >= end {
            pending.remove(&expected.0);
            return Err(HandoffError::Expired);
        }
        if !bool::from(expected.0.ct_eq(&presented.0)) {
            return Err(HandoffError::Mismatch);
        }
        pending.remove(&expected.0);
        Ok(())
    }

    /// Ends a ticket that nobody is to use any more; returns whether it was pending, expired or not.
    pub fn revoke(&self, token: &HandoffToken) -> bool {
        self.pending().remove(&token.0)
    }

    /// Removes the tickets whose time is over at `now`; returns how many.
    pub fn prune_expired(&self, now: Instant) -> usize {
        let mut pending = self.pending();
        let mut pruned = 0;
        while pending.remove_first_expired(now) {
            pruned += 1;
        }
        pruned
    }

    /// How many tickets are pending, with those that have expired and weren't removed yet.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending().ends.len()
    }

    fn check_room(&self, pending: &Pending) -> Result<(), HandoffError> {
        let max_pending = self.config.max_pending;
        if pending.ends.len() >= max_pending {
            return Err(HandoffError::Full { max_pending });
        }
        Ok(())
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn insert(&mut self, bytes: Bytes, end: Instant) -> bool {
        let is_new = !self.ends.contains_key(&bytes);
        if is_new {
            self.ends.insert(bytes, end);
            self.by_end.insert((end, bytes));
        }
        is_new
    }

    fn remove(&mut self, bytes: &Bytes) -> bool {
        match self.ends.remove(bytes) {
            Some(end) => self.by_end.remove(&(end, *bytes)),
            None => false,
        }
    }

    fn remove_first_expired(&mut self, now: Instant) -> bool {
        match self.by_end.first() {
            Some((end, bytes)) if now >= *end => {
                let bytes = *bytes;
                self.remove(&bytes)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for HandoffTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffTokenStore")
            .field("config", &self.config)
            .field("pending_len", &self.pending_len())
            .finish_non_exhaustive()
    }
}
