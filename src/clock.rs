//! Where the crate reads the time, so that a test can say what it is.

use std::{
    cell::OnceCell,
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tells the time of day, and how much time has passed.
///
/// Whether a key has expired is asked of the time of day, which may step backwards, as the clocks of
/// real machines do. How old something is that is remembered is asked of the monotonic one, and for
/// how long a change may have gone unnoticed of both: the monotonic clock stops while a machine is
/// suspended, and the other one is set by people.
///
/// ```
/// use std::time::SystemTime;
/// use tower_api_key::Clock;
///
/// #[derive(Debug)]
/// struct OneHourAhead;
///
/// impl Clock for OneHourAhead {
///     fn now(&self) -> SystemTime {
///         SystemTime::now() + std::time::Duration::from_secs(3_600)
///     }
/// }
/// ```
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// The time since some moment that stays the same. It never goes back.
    fn monotonic(&self) -> Duration {
        system::monotonic()
    }

    /// The time from 1970 to [`now`](Self::now), as it was 10 milliseconds ago at the most: read on
    /// every request.
    fn coarse_unix_time(&self) -> Duration {
        self.now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// [`monotonic`](Self::monotonic), as it was 10 milliseconds ago at the most: read on every
    /// request.
    fn coarse_monotonic(&self) -> Duration {
        self.monotonic()
    }
}

/// By how much a coarse time may be late.
pub(crate) const COARSE: Duration = Duration::from_millis(COARSE_MILLIS);
const COARSE_MILLIS: u64 = 10;

/// The clocks of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn coarse_unix_time(&self) -> Duration {
        system::coarse_unix_time()
    }

    fn coarse_monotonic(&self) -> Duration {
        system::coarse_monotonic()
    }
}

/// Read from the system each time, and kept by no ticker of ours, which could stand still.
#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    pub(super) fn monotonic() -> Duration {
        since_zero(ClockId::Monotonic)
    }

    pub(super) fn coarse_monotonic() -> Duration {
        since_zero(ClockId::MonotonicCoarse)
    }

    pub(super) fn coarse_unix_time() -> Duration {
        since_zero(ClockId::RealtimeCoarse)
    }

    fn since_zero(clock: ClockId) -> Duration {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::{
        sync::LazyLock,
        time::{Duration, Instant, SystemTime, UNIX_EPOCH},
    };

    pub(super) fn monotonic() -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    pub(super) fn coarse_monotonic() -> Duration {
        monotonic()
    }

    pub(super) fn coarse_unix_time() -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// `a - b`, or the nearest that there is.
pub(crate) fn signed_difference(a: u64, b: u64) -> i64 {
    let difference = i128::from(a) - i128::from(b);
    let least = if difference < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(difference).unwrap_or(least)
}

/// A moment on both clocks, in milliseconds: since 1970, and since the monotonic clock's zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) wall: u64,
    pub(crate) monotonic: u64,
}

impl Moment {
    /// Long ago.
    pub(crate) const ZERO: Self = Self {
        wall: 0,
        monotonic: 0,
    };

    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self {
            wall: unix_millis(clock.now()),
            monotonic: millis(clock.monotonic()),
        }
    }

    pub(crate) fn coarse(clock: &dyn Clock) -> Self {
        Self {
            wall: coarse_wall(clock),
            monotonic: millis(clock.coarse_monotonic()),
        }
    }

    /// How many of `limit` milliseconds are left at `now`, on whichever clock there are fewer; less than none
    /// where they have passed.
    pub(crate) fn millis_left(self, limit: u64, now: &Now<'_>) -> i64 {
        let left = |then: u64, now| signed_difference(then.saturating_add(limit), now);
        left(self.monotonic, now.monotonic()).min(left(self.wall, now.wall()))
    }

    /// Whether `limit` milliseconds have passed at `now`, on whichever clock they passed first.
    pub(crate) fn is_older_than(self, limit: u64, now: &Now<'_>) -> bool {
        now.monotonic() >= self.monotonic.saturating_add(limit)
            || now.wall() >= self.wall.saturating_add(limit)
    }
}

/// The coarse times of one request, in milliseconds. The time of day is read when it is first asked
/// for: most requests need the other one alone.
pub(crate) struct Now<'a> {
    clock: &'a dyn Clock,
    monotonic: u64,
    wall: OnceCell<u64>,
}

impl<'a> Now<'a> {
    pub(crate) fn of(clock: &'a dyn Clock) -> Self {
        Self {
            clock,
            monotonic: millis(clock.coarse_monotonic()),
            wall: OnceCell::new(),
        }
    }

    pub(crate) fn monotonic(&self) -> u64 {
        self.monotonic
    }

    pub(crate) fn wall(&self) -> u64 {
        *self.wall.get_or_init(|| coarse_wall(self.clock))
    }

    /// The time of day, read exactly where `end` may have come since the coarse clock last moved.
    pub(crate) fn wall_against(&self, end: u64) -> u64 {
        let coarse = self.wall();
        if coarse < end && end - coarse <= COARSE_MILLIS {
            unix_millis(self.clock.now())
        } else {
            coarse
        }
    }

    /// What it was `by` milliseconds before.
    pub(crate) fn before(&self, by: u64) -> Self {
        Self {
            clock: self.clock,
            monotonic: self.monotonic.saturating_sub(by),
            wall: OnceCell::from(self.wall().saturating_sub(by)),
        }
    }
}

/// Clamped as [`unix_millis`] is, so that the two can be compared.
fn coarse_wall(clock: &dyn Clock) -> u64 {
    millis(clock.coarse_unix_time().min(LATEST))
}

/// Whole milliseconds; what is beyond `u64` is as good as without end.
pub(crate) fn millis(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000)
        .saturating_add(u64::from(duration.subsec_millis()))
}

/// The latest moment that a key can name: the last millisecond of the year 9999.
const LATEST: Duration = Duration::from_millis(253_402_300_799_999);

pub(crate) fn latest() -> SystemTime {
    UNIX_EPOCH + LATEST
}

/// `time` in whole milliseconds, between 1970 and the end of 9999, as every backend can store it.
pub(crate) fn storable(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_millis(time))
}

/// Milliseconds since 1970, within what [`storable`] gives.
pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .min(LATEST);
    millis(since)
}

/// The time that many milliseconds after 1970, if it is one that [`storable`] gives.
pub(crate) fn from_unix_millis(millis: u64) -> Option<SystemTime> {
    let since = Duration::from_millis(millis);
    (since <= LATEST).then(|| UNIX_EPOCH + since)
}

/// `time + by`, or the end of 9999 where that lies beyond it.
pub(crate) fn saturating_add(time: SystemTime, by: Duration) -> SystemTime {
    storable(time.checked_add(by).unwrap_or(UNIX_EPOCH + LATEST))
}

/// `duration` in whole milliseconds, none longer than from 1970 to the end of 9999.
pub(crate) fn storable_duration(duration: Duration) -> Duration {
    Duration::from_millis(millis(duration.min(LATEST)))
}

#[cfg(feature = "test-util")]
pub use manual::ManualClock;

#[cfg(feature = "test-util")]
mod manual {
    use std::{
        sync::{Arc, Mutex, MutexGuard, PoisonError},
        time::{Duration, SystemTime},
    };

    use super::Clock;

    /// Clocks that stand still until a test moves them. Clones are the same clocks.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use tower_api_key::{Clock, ManualClock};
    ///
    /// let clock = ManualClock::new(UNIX_EPOCH);
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(60));
    /// ```
    #[derive(Debug, Clone)]
    pub struct ManualClock(Arc<Mutex<Shown>>);

    #[derive(Debug)]
    struct Shown {
        now: SystemTime,
        monotonic: Duration,
    }

    impl ManualClock {
        /// Clocks that show `now`, and an hour on the monotonic one.
        #[must_use]
        pub fn new(now: SystemTime) -> Self {
            let monotonic = Duration::from_secs(3_600);
            Self(Arc::new(Mutex::new(Shown { now, monotonic })))
        }

        /// Sets the time of day, which may lie before what it was, and leaves the monotonic clock
        /// alone: somebody set the clock, or the machine was suspended.
        pub fn set(&self, now: SystemTime) {
            self.shown().now = now;
        }

        /// Lets time pass, on both clocks.
        ///
        /// # Panics
        ///
        /// If the time would be beyond what [`SystemTime`] can hold.
        pub fn advance(&self, by: Duration) {
            let mut shown = self.shown();
            shown.now += by;
            shown.monotonic += by;
        }

        fn shown(&self) -> MutexGuard<'_, Shown> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> SystemTime {
            self.shown().now
        }

        fn monotonic(&self) -> Duration {
            self.shown().monotonic
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_what_a_database_holds_saturate() {
        assert_eq!(
            saturating_add(SystemTime::now(), Duration::MAX),
            UNIX_EPOCH + LATEST
        );
        assert_eq!(storable(UNIX_EPOCH - Duration::from_secs(1)), UNIX_EPOCH);
        assert_eq!(
            storable(UNIX_EPOCH + Duration::from_nanos(1_999_999)),
            UNIX_EPOCH + Duration::from_millis(1)
        );
    }
}
