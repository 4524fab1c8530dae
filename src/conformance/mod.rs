//! Whether a backend of one's own, or a source, keeps the rules: checks to be called in its tests.
//!
//! Each rule has a name and is checked by what can be seen from outside: many writers at once, odd
//! texts and times, pages while keys come and go, calls that are dropped midway, changes that have to
//! be told. All rules are checked, and the panic names those that were broken, and how:
//!
//! ```
//! use tower_api_key::{MemoryBackend, conformance};
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
//! # async fn main() {
//! // In a test: `#[tokio::test(flavor = "multi_thread")]`.
//! let backend = MemoryBackend::new();
//! conformance::check_backend(async || Ok(backend.clone())).await;
//! # }
//! ```
//!
//! The closure is called twice and gives a handle each time: two pools on one database, as two
//! processes have. What one writes, the other must read and tell of. Users and ids are new in each
//! run, and the keys stay where they are, so take a database that is there for tests.
//!
//! Run it on a runtime with several threads, under which more can go wrong, and one whose time isn't paused. It
//! waits for nothing but what has to happen, and for nothing longer than a minute.

mod bench;
mod changes;
mod claims;
mod digests;
mod dropped;
mod endings;
mod fields;
mod filters;
mod follow;
mod frozen;
mod grant_limits;
mod grant_lists;
mod grants;
mod lists;
mod makers;
mod peppers;
mod reads;
mod report;
mod rotations;
mod rules;
mod source;
mod steps;
mod touches;
mod writes;

use std::{error::Error, fmt, pin::Pin, time::Duration};

use self::{bench::Bench, report::Run, source::Edited};
pub use self::{report::Violations, source::Edit};
use crate::{
    backend::{ApiKeyBackend, KeySource},
    error::BackendError,
    token::KeyId,
};

type AnyError = Box<dyn Error + Send + Sync>;
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Checks a backend against every rule, with the usual [settings](Checks).
///
/// `open` gives a handle on the same database at each call.
///
/// # Panics
///
/// Where a rule is broken, with all of them.
pub async fn check_backend<B: ApiKeyBackend>(open: impl AsyncFn() -> Result<B, AnyError>) {
    panic_with(Checks::of_backend(open).run().await);
}

/// Checks a source against every rule, with the usual [settings](Checks).
///
/// `open` gives a handle on the same table at each call, and `edit` changes that table, as whoever
/// writes it would: when it has returned, the handles have to see what it did. Several edits are
/// under way at once, of different keys.
///
/// # Panics
///
/// Where a rule is broken, with all of them.
pub async fn check_source<S: KeySource, F>(
    open: impl AsyncFn() -> Result<S, AnyError>,
    edit: impl Fn(Edit) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Result<(), BackendError>> + Send,
{
    panic_with(Checks::of_source(open, edit).run().await);
}

fn panic_with(outcome: Result<(), Violations>) {
    if let Err(violations) = outcome {
        panic!("{violations}");
    }
}

/// Checks with settings of one's own.
///
/// ```
/// use tower_api_key::{MemoryBackend, conformance::Checks};
///
/// # #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
/// # async fn main() {
/// let backend = MemoryBackend::new();
/// let checks = Checks::of_backend(async || Ok(backend.clone()));
/// checks.run().await.unwrap();
/// # }
/// ```
#[must_use = "nothing is checked before `run`"]
pub struct Checks<'a> {
    settings: Settings,
    check: Box<dyn FnOnce(Settings) -> Boxed<'a, Result<(), Violations>> + 'a>,
}

type Interfere = dyn Fn(KeyId) -> Boxed<'static, Result<(), AnyError>>;

#[allow(clippy::struct_excessive_bools, reason = "each is said by itself")]
struct Settings {
    patience: Duration,
    wakes: bool,
    corrupt: Option<Box<Interfere>>,
    freeze: Option<Box<Interfere>>,
    /// Whether there are lists: a source has none.
    lists: bool,
    /// Whether keys can be handed off.
    grants: bool,
    pepper_usage: bool,
    /// Whether there are lists by a filter.
    filters: bool,
    purges: bool,
}

impl<'a> Checks<'a> {
    /// Those of a backend. `open` gives a handle on the same database at each call.
    pub fn of_backend<B: ApiKeyBackend>(open: impl AsyncFn() -> Result<B, AnyError> + 'a) -> Self {
        Self::new(true, open)
    }

    /// Those of a source: see [`check_source`].
    pub fn of_source<S: KeySource, F>(
        open: impl AsyncFn() -> Result<S, AnyError> + 'a,
        edit: impl Fn(Edit) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), BackendError>> + Send,
    {
        Self::new(false, async move || {
            let (source, edit) = (open().await?, edit.clone());
            Ok(Edited { source, edit })
        })
    }

    fn new<B: ApiKeyBackend>(
        lists: bool,
        open: impl AsyncFn() -> Result<B, AnyError> + 'a,
    ) -> Self {
        Self {
            settings: Settings {
                patience: Duration::from_secs(5),
                wakes: true,
                corrupt: None,
                freeze: None,
                lists,
                grants: true,
                pepper_usage: true,
                filters: true,
                purges: true,
            },
            check: Box::new(|settings| Box::pin(check(open, settings))),
        }
    }

    /// Makes the stored record of a key unreadable, from outside: one digit less of its hash, say.
    /// Without it, nothing is checked of records that can't be read.
    pub fn corrupt<F>(mut self, corrupt: impl Fn(KeyId) -> F + 'static) -> Self
    where
        F: Future<Output = Result<(), AnyError>> + 'static,
    {
        self.settings.corrupt = Some(Box::new(move |id| Box::pin(corrupt(id))));
        self
    }

    /// Makes the database ignore every change of a key's record, from outside, as a trigger that
    /// returns NULL does. Without it, nothing is checked of changes that are ignored.
    pub fn freeze<F>(mut self, freeze: impl Fn(KeyId) -> F + 'static) -> Self
    where
        F: Future<Output = Result<(), AnyError>> + 'static,
    {
        self.settings.freeze = Some(Box::new(move |id| Box::pin(freeze(id))));
        self
    }

    /// How soon after a change [`ChangeFeed::wait`](crate::ChangeFeed::wait) has to return: 5 seconds unless it is
    /// set.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// The feed is one without [`wait`](crate::ChangeFeed::wait), which is read every second.
    pub fn without_wait(mut self) -> Self {
        self.settings.wakes = false;
        self
    }

    /// The backend keeps no [grants](crate::KeyGrant), so that keys can't be handed off with it: nothing is checked
    /// of them.
    pub fn without_grants(mut self) -> Self {
        self.settings.grants = false;
        self
    }

    /// The backend doesn't count keys by pepper: [`ApiKeyBackend::pepper_usage`] is left as it is.
    pub fn without_pepper_usage(mut self) -> Self {
        self.settings.pepper_usage = false;
        self
    }

    /// The backend has no [`list`](ApiKeyBackend::list).
    pub fn without_list(mut self) -> Self {
        self.settings.filters = false;
        self
    }

    /// The backend has no [`purge`](ApiKeyBackend::purge). Otherwise what ended in the first half of the first
    /// second of 1970 is removed.
    pub fn without_purge(mut self) -> Self {
        self.settings.purges = false;
        self
    }

    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// All rules that were broken.
    pub async fn run(self) -> Result<(), Violations> {
        (self.check)(self.settings).await
    }
}

impl fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks")
            .field("patience", &self.settings.patience)
            .field("wakes", &self.settings.wakes)
            .field("grants", &self.settings.grants)
            .finish_non_exhaustive()
    }
}

/// No check takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(60);

async fn check<B: ApiKeyBackend>(
    open: impl AsyncFn() -> Result<B, AnyError>,
    settings: Settings,
) -> Result<(), Violations> {
    let mut run = Run::new(TIME_LIMIT);
    let mut bench = None;
    let is_source = !settings.lists;
    let opening = async {
        let nodes = [open().await, open().await];
        let [here, there] = nodes.map(|node| node.map_err(|error| report::Broken::of(&*error)));
        bench = Some(Bench::new([here?, there?], settings)?);
        Ok(())
    };
    run.rule(rules::OPENS, || opening).await;
    if let Some(bench) = bench {
        rules::of_sources(&bench, &mut run).await;
        if !is_source {
            rules::of_backends(&bench, &mut run).await;
            if bench.settings.grants {
                rules::of_grants(&bench, &mut run).await;
            }
            rules::of_rotations(&bench, &mut run).await;
            rules::of_many_keys(&bench, &mut run).await;
        }
    }
    run.finish()
}
