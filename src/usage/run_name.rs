//! The names of runs of the program: `<host>-<start>-<random>`. The sum of the runs of a host up to a start is a run as
//! well, `<host>-<start>-sum`, and takes their places. Pure.

/// The end of the name of a sum.
const SUM: &str = "sum";

/// A name in its parts. Cut from a text, of which earlier versions wrote others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunName<'a> {
    /// The host: a state folder, and one process after another on it.
    pub(super) host: &'a str,
    /// The start of the run, in milliseconds since 1970; of a sum, that of its last run.
    pub(super) start_ms: u64,
    is_sum: bool,
}

impl<'a> RunName<'a> {
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let mut parts = name.split('-');
        let (host, start, end) = (parts.next()?, parts.next()?, parts.next()?);
        let start_ms = start.parse().ok().filter(|_| parts.next().is_none())?;
        Some(Self { host, start_ms, is_sum: end == SUM })
    }

    /// The name of the sum of the runs of `host` up to the one that started at `start_ms`.
    pub(super) fn of_sum(host: &str, start_ms: u64) -> String {
        format!("{host}-{start_ms}-{SUM}")
    }
}

/// True if `sum` is the name of a sum that has the counts of the run called `name`.
pub(super) fn covers(sum: &str, name: &str) -> bool {
    let Some(sum) = RunName::of(sum).filter(|one| one.is_sum) else { return false };
    RunName::of(name).is_some_and(|one| {
        let is_earlier = one.start_ms < sum.start_ms;
        one.host == sum.host && (is_earlier || one.start_ms == sum.start_ms && !one.is_sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_the_counts_of_earlier_runs_of_its_host() {
        let sum = RunName::of_sum("a", 20);
        for (name, expected) in [
            ("a-19-x", true),
            ("a-20-x", true),
            ("a-3-x", true),
            ("a-19-sum", true),
            ("a-21-x", false),
            ("a-20-sum", false),
            ("a-21-sum", false),
            ("b-19-x", false),
            ("a-19", false),
            ("a-19-x-y", false),
            ("a-x-y", false),
            ("a", false),
        ] {
            assert_eq!(covers(&sum, name), expected, "{name}");
        }
        assert!(!covers("a-20-x", "a-19-x"));
    }
}
