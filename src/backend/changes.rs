//! How a source tells that keys have changed.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
};

use crate::{error::BackendError, token::LookupKey};

/// A record came, changed or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The one under this look-up key.
    Key(LookupKey),
    /// Any of them may have: it isn't known which.
    Everything,
}

/// Takes changes from a source, for one cache. Clones speak to the same one.
///
/// Once [`changed`](Self::changed) has returned, nothing that was read before is remembered for that
/// key. It doesn't wait for anything, and never calls the source back.
///
/// A source that is written by this process alone keeps the sinks and calls them, each time when the
/// change can be read and before the write returns:
///
/// ```
/// use std::{collections::HashMap, sync::Mutex};
/// use tower_api_key::{ApiKey, BackendError, Change, ChangeSink, KeySource, LookupKey, Subscription};
///
/// #[derive(Default)]
/// struct Table {
///     keys: Mutex<HashMap<LookupKey, ApiKey>>,
///     sinks: Mutex<Vec<ChangeSink>>,
/// }
///
/// impl Table {
///     fn put(&self, key: ApiKey) {
///         let place = key.lookup_key();
///         self.keys.lock().unwrap().insert(place, key);
///         for sink in &*self.sinks.lock().unwrap() {
///             sink.changed(Change::Key(place));
///         }
///     }
/// }
///
/// impl KeySource for Table {
///     async fn get_many(&self, keys: &[LookupKey]) -> Result<Vec<ApiKey>, BackendError> {
///         let table = self.keys.lock().unwrap();
///         Ok(keys.iter().filter_map(|key| table.get(key).cloned()).collect())
///     }
///
///     async fn subscribe(&self, sink: ChangeSink) -> Result<Subscription, BackendError> {
///         let mut sinks = self.sinks.lock().unwrap();
///         sinks.retain(|sink| !sink.is_closed());
///         sinks.push(sink);
///         Ok(Subscription::direct())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct ChangeSink(Weak<dyn TakesChanges>);

/// The other side of a [`ChangeSink`].
pub(crate) trait TakesChanges: Send + Sync {
    fn changed(&self, change: Change);
}

impl ChangeSink {
    pub(crate) fn to(cache: &Arc<impl TakesChanges + 'static>) -> Self {
        let cache: Weak<_> = Arc::downgrade(cache);
        Self(cache)
    }

    /// Call it when the change can be read, before the write returns.
    pub fn changed(&self, change: Change) {
        if let Some(cache) = self.0.upgrade() {
            cache.changed(change);
        }
    }

    /// Whether nobody listens any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl fmt::Debug for ChangeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSink")
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

/// How a source keeps a cache up to date; what [`KeySource::subscribe`](crate::KeySource::subscribe)
/// answers.
#[derive(Debug)]
#[must_use = "a cache has to be told how it is kept up to date"]
pub struct Subscription(pub(crate) Told);

pub(crate) enum Told {
    Nothing,
    Directly,
    By(Box<dyn DynFeed>),
}

impl Subscription {
    /// The source tells nothing: what was read is believed for `max_staleness`, and no longer.
    pub fn none() -> Self {
        Self(Told::Nothing)
    }

    /// The source has kept the [`ChangeSink`] and calls it for every change, in this process, before
    /// the write that makes the change returns: what was read is believed as long as nothing else
    /// is said, up to `time_to_live`. See the example at [`ChangeSink`].
    ///
    /// **For sources that nobody outside this process writes.** A connection that may break can't
    /// promise this.
    pub fn direct() -> Self {
        Self(Told::Directly)
    }

    /// The source can be asked what has changed: what was read is believed for `max_staleness` after
    /// the last time that it answered.
    pub fn feed(feed: impl ChangeFeed) -> Self {
        Self(Told::By(Box::new(feed)))
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Directly => "Directly",
            Self::By(_) => "By(..)",
        })
    }
}

/// What has changed since one last asked: a change log, a listening connection, a file's time.
///
/// Asking is at the same time the proof that changes still arrive. A cache calls
/// [`read`](Self::read) several times within `max_staleness`, and soon after
/// [`wait`](Self::wait) returns. Where `read` fails, or takes too long, the feed is dropped, the
/// source is subscribed to anew, and when that feed has answered, all that was read before is
/// forgotten. Until then no key is believed for longer than `max_staleness` after the last answer.
///
/// **A change that `read` misses is believed for `time_to_live`.**
///
/// ```
/// use std::{fs::Metadata, path::PathBuf, time::SystemTime};
/// use tower_api_key::{BackendError, Change, ChangeFeed, Subscription};
///
/// /// Looks at a file. (Where its time can be kept by what writes it, look at more than that.)
/// struct FileFeed {
///     path: PathBuf,
///     seen: (SystemTime, u64),
/// }
///
/// impl FileFeed {
///     fn look(path: &PathBuf) -> Result<(SystemTime, u64), BackendError> {
///         let stamp = |file: Metadata| Ok((file.modified()?, file.len()));
///         std::fs::metadata(path).and_then(stamp).map_err(BackendError::unavailable)
///     }
///
///     /// For `KeySource::subscribe`.
///     fn subscribe(path: PathBuf) -> Result<Subscription, BackendError> {
///         let seen = Self::look(&path)?;
///         Ok(Subscription::feed(Self { path, seen }))
///     }
/// }
///
/// impl ChangeFeed for FileFeed {
///     async fn read(&mut self) -> Result<Vec<Change>, BackendError> {
///         let now = Self::look(&self.path)?;
///         let changed = now != self.seen;
///         self.seen = now;
///         Ok(Vec::from_iter(changed.then_some(Change::Everything)))
///     }
/// }
/// ```
pub trait ChangeFeed: Send + 'static {
    /// All changes since the call before, or since the subscription: every one that could be read
    /// from the source when this call began, and whatever came later, too.
    ///
    /// An empty list says that there were none. **An answer has to come from where the keys are**: a
    /// connection that may be half-open proves nothing by its silence.
    ///
    /// # Errors
    ///
    /// Whenever a change may have been missed.
    fn read(&mut self) -> impl Future<Output = Result<Vec<Change>, BackendError>> + Send;

    /// Returns when there may be something to read. It may be dropped at any `.await`, and called
    /// again.
    ///
    /// It must not return while there is nothing new: a channel whose other end has gone does, at once.
    /// Then wait forever, or let [`read`](Self::read) fail. Without it, changes are found several times
    /// within `max_staleness`.
    fn wait(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`ChangeFeed`] with boxed futures.
pub(crate) trait DynFeed: Send {
    fn read(&mut self) -> Boxed<'_, Result<Vec<Change>, BackendError>>;
    fn wait(&mut self) -> Boxed<'_, ()>;
}

impl<F: ChangeFeed> DynFeed for F {
    fn read(&mut self) -> Boxed<'_, Result<Vec<Change>, BackendError>> {
        Box::pin(ChangeFeed::read(self))
    }

    fn wait(&mut self) -> Boxed<'_, ()> {
        Box::pin(ChangeFeed::wait(self))
    }
}
