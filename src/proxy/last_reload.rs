//! The failure of the last reload, until one succeeds, for the status, the page and the metrics.

use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::report::FailedReload;

/// The most mistakes that are kept; the log has all of them.
const PROBLEMS_KEPT_MAX: usize = 20;

/// The last reload, if it failed. It outlives reloads.
#[derive(Debug, Default)]
pub struct LastReload {
    failed: Mutex<Option<FailedReload>>,
}

impl LastReload {
    /// Records a reload that ended at `at`, with the problems that kept the new configuration from use; the
    /// configuration from `in_use_since` stays in use.
    pub fn note(&self, problems: Option<&Vec<String>>, at: Timestamp, in_use_since: Timestamp) {
        let failed = problems.map(|all| {
            let mut problems: Vec<_> = all.iter().take(PROBLEMS_KEPT_MAX).cloned().collect();
            if all.len() > PROBLEMS_KEPT_MAX {
                problems.push(format!("and {} more", all.len() - PROBLEMS_KEPT_MAX));
            }
            FailedReload { at, in_use_since, problems }
        });
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    /// The failure, if any.
    pub fn failed(&self) -> Option<FailedReload> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_beyond_the_limit_are_counted() {
        let last = LastReload::default();
        assert_eq!(last.failed(), None);
        let problems =
            |count: usize| (0..count).map(|one| format!("line {one}")).collect::<Vec<_>>();
        let kept = |count| {
            last.note(Some(&problems(count)), Timestamp::default(), Timestamp::default());
            last.failed().unwrap().problems
        };
        assert_eq!(kept(PROBLEMS_KEPT_MAX), problems(PROBLEMS_KEPT_MAX));
        let over = kept(PROBLEMS_KEPT_MAX + 1);
        assert_eq!(over.last().unwrap(), "and 1 more");
        assert_eq!(over.len(), PROBLEMS_KEPT_MAX + 1);
        last.note(None, Timestamp::default(), Timestamp::default());
        assert_eq!(last.failed(), None);
    }
}
