//! What came of the checks.

use std::{error::Error, fmt, iter::successors, time::Duration};

/// The rules that were broken, and how. `Debug` is the same text as `Display`, for a test that
/// unwraps.
pub struct Violations(Vec<Violation>);

/// A rule that was broken.
struct Violation {
    rule: &'static str,
    how: String,
}

impl Violations {
    /// The names of the rules that were broken, in the order in which they were checked.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|violation| violation.rule)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken:", self.0.len())?;
        for Violation { rule, how } in &self.0 {
            write!(f, "\n  * {rule}: {how}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Violations {}

/// How a rule was broken. Every error becomes one: no check expects a call to fail without saying so.
pub(super) struct Broken(pub(super) String);

impl Broken {
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let texts: Vec<_> = successors(Some(error), |&error| error.source())
            .map(ToString::to_string)
            .collect();
        Self(format!("a call failed: {}", texts.join(": ")))
    }
}

impl<E: Error + 'static> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

pub(super) type Outcome<T = ()> = Result<T, Broken>;

/// Ends a check unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($how:tt)+) => {
        if !$holds {
            return Err($crate::conformance::report::Broken(format!($($how)+)));
        }
    };
}
pub(super) use ensure;

/// Collects what the checks find, one after the other.
pub(super) struct Run {
    violations: Vec<Violation>,
    time_limit: Duration,
}

impl Run {
    /// No check may take longer than `time_limit`.
    pub(super) fn new(time_limit: Duration) -> Self {
        Self {
            violations: Vec::new(),
            time_limit,
        }
    }

    /// The check is made here, so that no caller's stack frame has room for all of them at once.
    pub(super) async fn rule<F: Future<Output = Outcome>>(
        &mut self,
        rule: &'static str,
        check: impl FnOnce() -> F,
    ) {
        let check = super::steps::caught(Box::pin(check()));
        let outcome = match crate::sync::timeout(self.time_limit, check).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Broken(format!("not done after {:?}", self.time_limit))),
        };
        if let Err(Broken(how)) = outcome {
            self.violations.push(Violation { rule, how });
        }
    }

    pub(super) fn finish(self) -> Result<(), Violations> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(Violations(self.violations))
        }
    }
}
