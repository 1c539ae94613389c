//! The order in which candidates are tried.

use std::collections::VecDeque;

use crate::config::ProviderConfig;
use crate::proxy::conversation::Conversation;
use crate::proxy::rendezvous;

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
pub(crate) enum Standing {
    /// It has a credential and did not fail lately.
    Ready,
    /// Its first token is on its way.
    Waiting,
    /// It failed lately; the milliseconds until its cooldown ends.
    Cooling(u64),
    /// It has no credential.
    Without,
}

/// The way in which equal candidates share the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// In file order.
    InOrder,
    /// One after the other, in proportion to their weights. The number counts the requests.
    InTurn(u64),
    /// A random one, in proportion to their weights. The number differs between requests.
    AtRandom(u64),
    /// Each conversation has its own provider, in proportion to their weights.
    ByConversation(Conversation),
}

/// True if some of `candidates` have the same priority.
pub(crate) fn has_equals<P>(candidates: &[Candidate<'_, P>]) -> bool {
    candidates.windows(2).any(|pair| pair[0].priority == pair[1].priority)
}

/// The candidates of a request in the order in which they are tried: those that are ready first, then those that wait
/// for a token, then those that cool down, shortest remaining time first.
///
/// Their standing is asked as late as possible: if the first one by priority is ready, the others are asked only if
/// it fails, however many there are.
#[derive(Debug)]
pub(crate) struct Queue<'a, P> {
    /// The only one, which takes no memory.
    only: Option<Candidate<'a, P>>,
    left: VecDeque<Candidate<'a, P>>,
    sharing: Sharing,
    is_ordered: bool,
}

impl<'a, P: AsRef<ProviderConfig>> Queue<'a, P> {
    /// `candidates` come in the order of their priority.
    pub(crate) fn new(candidates: Vec<Candidate<'a, P>>, sharing: Sharing) -> Self {
        Self { only: None, left: candidates.into(), sharing, is_ordered: false }
    }

    /// A single candidate.
    pub(crate) fn of_one(only: Candidate<'a, P>) -> Self {
        let left = VecDeque::new();
        Self { only: Some(only), left, sharing: Sharing::InOrder, is_ordered: true }
    }

    /// The number of untried candidates.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.only.is_some()) + self.left.len()
    }

    /// True if some candidate renames the model.
    pub(crate) fn renames(&self) -> bool {
        self.only.iter().chain(&self.left).any(|one| one.model.is_some())
    }

    /// The next candidate; `standing` returns a candidate's standing.
    pub(crate) fn next(
        &mut self,
        standing: impl Fn(&Candidate<'a, P>) -> Standing,
    ) -> Option<Candidate<'a, P>> {
        if let Some(only) = self.only.take() {
            return Some(only);
        }
        let in_order = self.sharing == Sharing::InOrder;
        let is_clear = |first: &Candidate<'a, P>| in_order && standing(first) == Standing::Ready;
        if self.left.len() > 1 && !self.is_ordered && !self.left.front().is_some_and(is_clear) {
            let candidates = std::mem::take(&mut self.left).into();
            self.left = order(candidates, standing, self.sharing).into();
            self.is_ordered = true;
        }
        self.left.pop_front()
    }
}

fn order<'a, P: AsRef<ProviderConfig>>(
    candidates: Vec<Candidate<'a, P>>,
    standing: impl Fn(&Candidate<'a, P>) -> Standing,
    sharing: Sharing,
) -> Vec<Candidate<'a, P>> {
    let mut rng = match sharing {
        Sharing::AtRandom(turn) => Some(fastrand::Rng::with_seed(turn)),
        _ => None,
    };
    let mut cost = |provider: &ProviderConfig| {
        let draw = match (sharing, &mut rng) {
            (_, Some(rng)) => rng.u64(..),
            (Sharing::ByConversation(own), _) => rendezvous::draw(&own, &provider.slug),
            _ => return 0,
        };
        rendezvous::cost(draw, provider.weight)
    };
    let mut all: Vec<_> = candidates
        .into_iter()
        .map(|one| (standing(&one), cost(one.provider.as_ref()), one))
        .collect();
    // A stable sort: file order stays among equals.
    all.sort_by_key(|(standing, cost, one)| (*standing, one.priority, *cost));
    if let Sharing::InTurn(turn) = sharing {
        let are_equal = |a: &(Standing, u64, Candidate<'_, P>),
                         b: &(Standing, u64, Candidate<'_, P>)| {
            a.0 == b.0 && a.2.priority == b.2.priority
        };
        for equals in all.chunk_by_mut(are_equal) {
            let weights = equals.iter().map(|(_, _, one)| one.provider.as_ref().weight);
            let first = in_turn(turn, weights);
            equals.rotate_left(first);
        }
    }
    all.into_iter().map(|(_, _, candidate)| candidate).collect()
}

/// The index of the `turn`th in a sequence in which each index comes as often as its weight says. One with a large
/// weight does not get all of its turns in a row.
fn in_turn(turn: u64, weights: impl Iterator<Item = u64> + Clone) -> usize {
    let total: u64 = weights.clone().sum();
    let count = weights.clone().count() as u64;
    let first = weights.clone().next().unwrap_or(1);
    if weights.clone().all(|weight| weight == first) {
        return usize::try_from(turn % count.max(1)).unwrap_or(0);
    }
    // Steps of the golden ratio visit every place of a circle once, and its parts evenly.
    let golden = (total * 618 + 500) / 1000;
    let step = (golden..=total + 1).find(|step| gcd(*step, total) == 1).unwrap_or(1);
    let mut place = (turn % total) * step % total;
    for (index, weight) in weights.enumerate() {
        if place < weight {
            return index;
        }
        place -= weight;
    }
    0
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::proxy::route::tests::config;

    /// Providers p0, p1, … of these weights.
    fn providers(weights: &[u64]) -> Config {
        let entries = weights.iter().enumerate().map(|(index, weight)| {
            format!(
                "  - {{name: p{index}, type: generic, base_url: 'http://x', auth_type: none, weight: {weight}}}\n"
            )
        });
        let entries: String = entries.collect();
        config(&format!("settings: {{selection_strategy: sticky}}\nproviders:\n{entries}"))
    }

    fn index_of(provider: &ProviderConfig) -> usize {
        provider.slug[1..].parse().unwrap()
    }

    /// Orders providers 0, 1, … of these priorities, standings and weights.
    fn ordered_by(config: &Config, of: &[(i64, Standing)], sharing: Sharing) -> Vec<usize> {
        let all = config.providers.iter().zip(of);
        let mut candidates: Vec<_> =
            all.map(|(one, of)| Candidate { priority: of.0, ..Candidate::alone(one) }).collect();
        candidates.sort_by_key(|one| one.priority);
        let mut queue = Queue::new(candidates, sharing);
        let mut tried = Vec::new();
        while let Some(one) = queue.next(|one| of[index_of(one.provider)].1) {
            tried.push(index_of(one.provider));
            assert_eq!(queue.len() + tried.len(), of.len());
        }
        assert!(queue.len() == 0);
        tried
    }

    /// The same with equal weights.
    fn ordered(of: &[(i64, Standing)], sharing: Sharing) -> Vec<usize> {
        ordered_by(&providers(&vec![1; of.len().max(1)]), of, sharing)
    }

    fn conversation(number: usize) -> Conversation {
        let mut own = [0; 32];
        own[..8].copy_from_slice(&number.to_be_bytes());
        own
    }

    /// Priorities and standings of providers 0, 1, …
    type Candidates = &'static [(i64, Standing)];

    #[test]
    fn by_standing_then_by_priority() {
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
            assert_eq!(ordered(of, Sharing::InOrder), expected, "{of:?}");
        }
    }

    #[test]
    fn equals_share_within_one_priority() {
        use Standing::{Cooling, Ready};
        let of = [(1, Ready), (1, Ready), (1, Ready), (2, Ready), (1, Cooling(9))];
        let robin = |turn| ordered(&of, Sharing::InTurn(turn));
        assert_eq!(robin(0), [0, 1, 2, 3, 4]);
        assert_eq!(robin(1), [1, 2, 0, 3, 4]);
        assert_eq!(robin(5), [2, 0, 1, 3, 4]);
        for sharing in [
            |number: usize| Sharing::AtRandom(number as u64),
            |number| Sharing::ByConversation(conversation(number)),
        ] {
            let mut firsts = [0; 3];
            for number in 0..300 {
                let order = ordered(&of, sharing(number));
                assert_eq!(order[3..], [3, 4]);
                firsts[order[0]] += 1;
            }
            assert!(firsts.iter().all(|count| *count > 60), "{firsts:?}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        use Standing::Ready;
        let (config, of) = (providers(&[5, 1, 2]), [(1, Ready); 3]);
        let count = |sharing: &dyn Fn(usize) -> Sharing, requests: usize| {
            let mut firsts = [0_u64; 3];
            (0..requests).for_each(|one| firsts[ordered_by(&config, &of, sharing(one))[0]] += 1);
            firsts
        };
        let robin = |number: usize| Sharing::InTurn(number as u64);
        assert_eq!(count(&robin, 8), [5, 1, 2]);
        assert_eq!(count(&|number| robin(number + 3), 80), [50, 10, 20], "from any turn on");
        for sharing in
            [(|number: usize| Sharing::AtRandom(number as u64)) as fn(usize) -> Sharing, |number| {
                Sharing::ByConversation(conversation(number))
            }]
        {
            let counts = count(&sharing, 4000);
            for (index, expected) in [2500, 500, 1000].into_iter().enumerate() {
                assert!(counts[index].abs_diff(expected) < 120, "{counts:?}");
            }
        }
    }

    #[test]
    fn turns_of_a_heavy_provider_are_not_all_in_a_row() {
        let sequence = |weights: &[u64], turns: u64| -> String {
            let index = |turn| in_turn(turn, weights.iter().copied());
            (0..turns).map(|turn| ["a", "b", "c"][index(turn)]).collect()
        };
        assert_eq!(sequence(&[2, 1], 6), "abaaba");
        assert_eq!(sequence(&[5, 1, 1], 7), "aaabaca");
        assert_eq!(sequence(&[3, 3, 3], 6), "abcabc");
        for weights in [[1000, 1, 999], [1, 1, 1000], [7, 11, 13]] {
            let total = weights.iter().sum();
            let turns = sequence(&weights, total);
            for (letter, weight) in ["a", "b", "c"].into_iter().zip(weights) {
                assert_eq!(turns.matches(letter).count() as u64, weight, "{weights:?}");
            }
        }
        assert!(!sequence(&[3, 1, 1], 100).contains("aaaa"));
        assert_eq!(in_turn(7, std::iter::empty()), 0);
    }

    /// While a provider cools down, each of the others gets its part of that provider's conversations, and keeps its own.
    #[test]
    fn the_conversations_of_a_cooling_provider_spread_and_come_back() {
        use Standing::{Cooling, Ready};
        let config = providers(&[1, 1, 2]);
        let first = |number, standing| {
            let of = [(1, standing), (1, Ready), (1, Ready)];
            let order = ordered_by(&config, &of, Sharing::ByConversation(conversation(number)));
            (order[0], order[2])
        };
        let (mut moved, mut own) = ([0; 3], 0);
        for number in 0..4000 {
            let (before, (during, last)) = (first(number, Ready).0, first(number, Cooling(9)));
            assert_eq!(last, 0, "the cooling one is the last resort");
            if before == 0 {
                own += 1;
                moved[during] += 1;
            } else {
                assert_eq!(during, before, "the others keep their conversations");
            }
            assert_eq!(first(number, Ready).0, before, "it comes back");
        }
        assert!(moved[1] > own * 27 / 100 && moved[2] > own * 60 / 100, "{own}: {moved:?}");
    }

    #[test]
    fn equals_are_found_within_one_priority() {
        let config = providers(&[1; 3]);
        for (priorities, expected) in
            [(vec![], false), (vec![1], false), (vec![1, 2, 3], false), (vec![1, 2, 2], true)]
        {
            let candidate = |(one, priority)| Candidate { priority, ..Candidate::alone(one) };
            let all: Vec<_> =
                config.providers.iter().zip(priorities.iter().copied()).map(candidate).collect();
            assert_eq!(has_equals(&all), expected, "{priorities:?}");
        }
    }

    #[test]
    fn the_others_are_not_asked_for_while_the_first_is_ready() {
        let asked = std::cell::Cell::new(0);
        let standing = |_: &Candidate<'_, ProviderConfig>| {
            asked.set(asked.get() + 1);
            Standing::Ready
        };
        let config = providers(&[1; 200]);
        let candidates = config.providers.iter().map(Candidate::alone).collect();
        let mut queue = Queue::new(candidates, Sharing::InOrder);
        assert_eq!(queue.next(standing).map(|one| index_of(one.provider)), Some(0));
        assert_eq!(asked.get(), 1);
    }
}
