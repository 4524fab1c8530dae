//! Where the crate reads the time, so that a test can say what it is.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tells the time of day.
///
/// Expiry is checked against it on every request. It may step backwards, as the clocks of real
/// machines do.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The latest moment that a key can name: the last millisecond of the year 9999.
const LATEST: Duration = Duration::from_millis(253_402_300_799_999);

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
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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

#[cfg(feature = "test-util")]
pub use manual::ManualClock;

#[cfg(feature = "test-util")]
mod manual {
    use std::{
        sync::{Arc, Mutex, PoisonError},
        time::{Duration, SystemTime},
    };

    use super::Clock;

    /// A clock that stands still until a test moves it. Clones are one clock.
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
    pub struct ManualClock(Arc<Mutex<SystemTime>>);

    impl ManualClock {
        /// A clock that shows `now`.
        #[must_use]
        pub fn new(now: SystemTime) -> Self {
            Self(Arc::new(Mutex::new(now)))
        }

        /// Shows `now` from here on, which may lie before what it showed.
        pub fn set(&self, now: SystemTime) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }

        /// Moves the time forward by `by`.
        ///
        /// # Panics
        ///
        /// If the time would be beyond what [`SystemTime`] can hold.
        pub fn advance(&self, by: Duration) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> SystemTime {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
