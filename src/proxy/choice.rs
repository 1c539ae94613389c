//! The order in which candidates are tried.

use std::collections::VecDeque;

use crate::config::SelectionStrategy;

/// A provider that may serve a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Candidate<'a, P> {
    /// The provider.
    pub provider: &'a P,
    /// The model name to send; None keeps the client's.
    pub model: Option<&'a str>,
    /// The lowest is tried first; equal candidates share by the strategy.
    pub priority: i64,
}

impl<'a, P> Candidate<'a, P> {
    /// A provider that gets the request unchanged.
    pub(crate) fn alone(provider: &'a P) -> Self {
        Self { provider, model: None, priority: 0 }
    }
}

/// A provider's present ability to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has a credential and did not fail lately.
    Ready,
    /// Its first token is on its way.
    Waiting,
    /// It failed lately; the milliseconds until its cooldown ends.
    Cooling(u64),
    /// It has no credential.
    Without,
}

/// The candidates of a request in the order in which they are tried: those that are ready first, then those that wait
/// for a token, then those that cool down, shortest remaining time first.
///
/// Their standing is asked as late as possible: if the first one by priority is ready, the others are asked only if
/// it fails, however many there are.
#[derive(Debug)]
pub(crate) struct Queue<'a, P> {
    left: VecDeque<Candidate<'a, P>>,
    strategy: SelectionStrategy,
    turn: u64,
    is_ordered: bool,
}

impl<'a, P> Queue<'a, P> {
    /// `candidates` come in the order of their priority. `turn` differs between requests: a count for `RoundRobin`,
    /// any number for `Random`.
    pub(crate) fn new(
        candidates: Vec<Candidate<'a, P>>,
        strategy: SelectionStrategy,
        turn: u64,
    ) -> Self {
        Self { left: candidates.into(), strategy, turn, is_ordered: false }
    }

    /// The number of untried candidates.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }

    /// True if some candidate renames the model.
    pub(crate) fn renames(&self) -> bool {
        self.left.iter().any(|one| one.model.is_some())
    }

    /// The next candidate; `standing` returns a provider's standing.
    pub(crate) fn next(&mut self, standing: impl Fn(&P) -> Standing) -> Option<Candidate<'a, P>> {
        let by_priority = self.strategy == SelectionStrategy::Priority;
        let is_clear =
            |first: &Candidate<'_, P>| by_priority && standing(first.provider) == Standing::Ready;
        if self.left.len() > 1 && !self.is_ordered && !self.left.front().is_some_and(is_clear) {
            let candidates = std::mem::take(&mut self.left).into();
            self.left = order(candidates, standing, self.strategy, self.turn).into();
            self.is_ordered = true;
        }
        self.left.pop_front()
    }
}

fn order<P>(
    candidates: Vec<Candidate<'_, P>>,
    standing: impl Fn(&P) -> Standing,
    strategy: SelectionStrategy,
    turn: u64,
) -> Vec<Candidate<'_, P>> {
    let mut standings: Vec<_> =
        candidates.into_iter().map(|one| (standing(one.provider), one)).collect();
    // A stable sort: file order stays within one priority.
    standings.sort_by_key(|(standing, one)| (*standing, one.priority));
    let same = |a: &(Standing, Candidate<'_, P>), b: &(Standing, Candidate<'_, P>)| {
        a.0 == b.0 && a.1.priority == b.1.priority
    };
    for equals in standings.chunk_by_mut(same) {
        match strategy {
            SelectionStrategy::Priority => {}
            SelectionStrategy::RoundRobin => {
                let shift = turn % equals.len() as u64;
                equals.rotate_left(usize::try_from(shift).unwrap_or(0));
            }
            SelectionStrategy::Random => fastrand::Rng::with_seed(turn).shuffle(equals),
        }
    }
    standings.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(provider: &usize, priority: i64) -> Candidate<'_, usize> {
        Candidate { provider, model: None, priority }
    }

    /// Orders providers 0, 1, … of these priorities and standings.
    fn ordered(of: &[(i64, Standing)], strategy: SelectionStrategy, turn: u64) -> Vec<usize> {
        let all: Vec<usize> = (0..of.len()).collect();
        let mut candidates: Vec<_> =
            all.iter().map(|index| candidate(index, of[*index].0)).collect();
        candidates.sort_by_key(|one| one.priority);
        let mut queue = Queue::new(candidates, strategy, turn);
        let mut tried = Vec::new();
        while let Some(one) = queue.next(|index| of[*index].1) {
            tried.push(*one.provider);
            assert_eq!(queue.len() + tried.len(), of.len());
        }
        assert!(queue.len() == 0);
        tried
    }

    /// Priorities and standings of providers 0, 1, …
    type Candidates = &'static [(i64, Standing)];

    #[test]
    fn by_standing_then_by_priority() {
        use SelectionStrategy::Priority;
        use Standing::{Cooling, Ready, Waiting, Without};
        let cases: [(Candidates, &[usize]); 7] = [
            (&[(1, Ready), (1, Cooling(5)), (1, Without), (1, Ready)], &[0, 3, 1, 2]),
            (&[(1, Ready), (1, Ready)], &[0, 1]),
            (&[(2, Ready), (1, Ready)], &[1, 0]),
            (&[(1, Cooling(5)), (2, Ready)], &[1, 0]),
            (&[(1, Cooling(5)), (2, Cooling(4)), (3, Waiting)], &[2, 1, 0]),
            (&[(1, Without), (9, Cooling(9)), (5, Ready)], &[2, 1, 0]),
            (&[], &[]),
        ];
        for (of, expected) in cases {
            assert_eq!(ordered(of, Priority, 7), expected, "{of:?}");
        }
    }

    #[test]
    fn strategies_share_within_one_priority() {
        use Standing::{Cooling, Ready};
        let of = [(1, Ready), (1, Ready), (1, Ready), (2, Ready), (1, Cooling(9))];
        let robin = |turn| ordered(&of, SelectionStrategy::RoundRobin, turn);
        assert_eq!(robin(0), [0, 1, 2, 3, 4]);
        assert_eq!(robin(1), [1, 2, 0, 3, 4]);
        assert_eq!(robin(5), [2, 0, 1, 3, 4]);
        let mut firsts = [0; 3];
        for turn in 0..300 {
            let order = ordered(&of, SelectionStrategy::Random, turn);
            assert_eq!(order[3..], [3, 4]);
            firsts[order[0]] += 1;
        }
        assert!(firsts.iter().all(|count| *count > 60), "{firsts:?}");
    }

    #[test]
    fn the_others_are_not_asked_for_while_the_first_is_ready() {
        let asked = std::cell::Cell::new(0);
        let standing = |_: &usize| {
            asked.set(asked.get() + 1);
            Standing::Ready
        };
        let all: Vec<usize> = (0..200).collect();
        let candidates = all.iter().map(|index| candidate(index, 0)).collect();
        let mut queue = Queue::new(candidates, SelectionStrategy::Priority, 0);
        assert_eq!(queue.next(standing).map(|one| one.provider), Some(&0));
        assert_eq!(asked.get(), 1);
    }
}
