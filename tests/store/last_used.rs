//! When keys were last used: written behind the requests, together, and seldom.

use std::{
    collections::HashSet,
    future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tower_api_key::{
    ApiKey, ApiKeyBackend, ApiKeyStore, BackendError, Change, ChangeFeed, ChangeSink, KeyId,
    KeySource, LookupKey, ManualClock, MemoryBackend, PageRequest, Peppers, StoreError,
    Subscription, Touch,
};

use super::{SECOND, is_the_outage, new_key, verified};
use crate::support::{USER, id_of, outage, start, unknown_token, with_wrong_secret};
