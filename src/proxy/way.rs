//! The way to one provider: its connections, its token's keeper, its cooldown, and what went over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::WatchedFile;
use crate::proxy::claims::ClaimFields;
use crate::proxy::cooldown::Cooldown;
use crate::proxy::metrics::OfProvider;
use crate::shared::keeper::Herald;
use crate::token::refresher::Inbox;
use crate::token::store::PostingKey;
use crate::token::watched::{Unsaved, Watched};
use crate::upstream::Upstream;

/// The way to one provider. It outlives a reload that leaves its provider as it is.
pub struct Way {
    /// Its own number.
    pub key: PostingKey,
    /// Where its token is published: by the refresher of its chain, which other ways may share, those of an
    /// earlier configuration too.
    pub posting: PostingKey,
    /// The connections to it.
    pub upstream: Upstream,
    /// Its refresher; None where it has none.
    pub inbox: Option<Inbox>,
    /// The file with its credential; None where it has none.
    pub watched: Option<Arc<Watched>>,
    /// Its header fields with claims of its token.
    pub claims: ClaimFields,
    /// Whether it is passed over.
    pub cooldown: Arc<Cooldown>,
    /// Tells other hosts of its cooldowns; None where there are none.
    pub herald: Option<Herald>,
    /// Counts since the start, which the way of a changed provider goes on with.
    pub counts: Arc<Counts>,
    /// Its metrics.
    pub metrics: OfProvider,
}

/// What watches `file`: what did so for one of the `ways` before, which knows what the file held, or something new; that
/// is told where a token is that the file lacks.
pub fn watch(
    file: &WatchedFile,
    ways: &[Arc<Way>],
    unsaved: impl FnOnce() -> Option<Unsaved>,
) -> Arc<Watched> {
    let mut before = ways.iter().filter_map(|way| way.watched.as_ref());
    let same = before.find(|watched| watched.is_of(file)).cloned();
    same.unwrap_or_else(|| Arc::new(Watched::of(file, unsaved())))
}

/// Requests to one provider since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// All of them.
    pub total: AtomicU64,
    /// Those under way.
    pub in_flight: AtomicU64,
    /// Those that got no answer, or one of 500 and above.
    pub errors: AtomicU64,
}

/// Counts a request as under way while it lives.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Counts);

impl Counts {
    /// Takes a request in; None where `most` are under way already.
    pub fn enter(&self, most: u64) -> Option<InFlight<'_>> {
        let in_flight = InFlight(self);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= most {
            return None;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        Some(in_flight)
    }

    /// Notes that one of them got no answer, or one of 500 and above.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_under_way_than_are_allowed() {
        let counts = Counts::default();
        let first = counts.enter(2);
        let second = counts.enter(2);
        assert!(first.is_some() && second.is_some());
        assert!(counts.enter(2).is_none());
        drop(first);
        assert!(counts.enter(2).is_some());
        assert_eq!(counts.total.load(Ordering::Relaxed), 3);
        drop(second);
        assert_eq!(counts.in_flight.load(Ordering::Relaxed), 0);
    }
}
