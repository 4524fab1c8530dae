//! What the cache may believe, and for how long: with a source that tells of changes and one that
//! doesn't any more, with strangers who ask for ids that nobody has, with reads that fail and hang.

#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]
#![allow(
    clippy::unchecked_time_subtraction,
    reason = "a test whose times don't fit has failed"
)]

mod support;

#[path = "cache/bounds.rs"]
mod bounds;
#[path = "cache/clocks.rs"]
mod clocks;
#[path = "cache/held.rs"]
mod held;
#[path = "cache/lease.rs"]
mod lease;
#[path = "cache/loads.rs"]
mod loads;
#[path = "cache/node.rs"]
mod node;
#[path = "cache/outages.rs"]
mod outages;
#[path = "cache/outlived.rs"]
mod outlived;
#[path = "cache/panics.rs"]
mod panics;
#[path = "cache/reentry.rs"]
mod reentry;
#[path = "cache/runtimes.rs"]
mod runtimes;
#[path = "cache/settings.rs"]
mod settings;
#[path = "cache/silence.rs"]
mod silence;
#[path = "cache/stale.rs"]
mod stale;
#[path = "cache/told.rs"]
mod told;

use std::time::Duration;

/// The defaults of the settings that these tests move in.
const MAX_STALENESS: Duration = Duration::from_secs(5);
const TIME_TO_LIVE: Duration = Duration::from_secs(60);
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a source is asked for changes.
const HEARTBEAT: Duration = Duration::from_secs(1);

const SECOND: Duration = Duration::from_secs(1);
/// The least that tokio's timers tell apart. Where the runtime is paused, all that can be done
/// without more time is done before it has passed.
const MOMENT: Duration = Duration::from_millis(1);
