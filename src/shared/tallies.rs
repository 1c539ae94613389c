//! Counts that several hosts share: each writes its own, whole, and reads those of the others.

use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use crate::shared::engine::{Line, StoreError, Tally};

/// Gives tallies, each with the name of its writer.
pub(crate) type Own = Box<dyn Fn(bool) -> Vec<(String, Tally)> + Send + Sync>;
/// Takes texts under a name: each writer and its text.
pub(crate) type Take = Box<dyn Fn(&str, Vec<(String, String)>) + Send + Sync>;

/// A part of the program whose counts are shared.
pub(crate) struct SharedCounts {
    /// The own counts, each with the name of its writer; all of them if the argument is true, else those that may have
    /// changed.
    pub own: Own,
    /// Takes the counts of all hosts.
    pub take: Take,
}

/// The registered parts. Cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct SharedParts(Arc<Mutex<Vec<Arc<SharedCounts>>>>);

impl SharedParts {
    /// Shares `counts` from now on, in the place of those that were shared before.
    pub(crate) fn set(&self, counts: Option<SharedCounts>) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *parts = counts.into_iter().map(Arc::new).collect();
    }

    fn all(&self) -> Vec<Arc<SharedCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The number of exchanges after which all counts are exchanged: ten minutes.
const ALL_EVERY: u32 = 600;

/// One connection's knowledge: the sum of versions under each name.
#[derive(Default)]
pub(super) struct Exchange {
    known: Vec<(String, u64)>,
    count: u32,
    /// The server refused the script, and the log says so.
    is_refused: bool,
}

impl Exchange {
    /// Writes and reads everything that may have changed. A server whose user may not do that keeps all else working.
    pub(super) fn run(
        &mut self,
        parts: &SharedParts,
        prefix: &str,
        line: &mut Line,
    ) -> Result<(), StoreError> {
        let all = self.count.is_multiple_of(ALL_EVERY);
        self.count = self.count.wrapping_add(1);
        for part in parts.all() {
            match self.of_part(&part, all, prefix, line) {
                Err(StoreError::Refused(why)) => {
                    if !self.is_refused {
                        warn!(
                            "Usage is not shared with other hosts: the token store refuses it ({why})"
                        );
                    }
                    self.is_refused = true;
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn of_part(
        &mut self,
        part: &SharedCounts,
        all: bool,
        prefix: &str,
        line: &mut Line,
    ) -> Result<(), StoreError> {
        for (writer, tally) in (part.own)(all) {
            let index = self.known.iter().position(|(name, _)| *name == tally.name);
            let index = index.unwrap_or_else(|| {
                self.known.push((tally.name.clone(), 0));
                self.known.len() - 1
            });
            let tallies = line.exchange(prefix, &writer, &tally, self.known[index].1)?;
            if let Some(texts) = tallies.texts {
                (part.take)(&tally.name, texts);
            }
            self.known[index].1 = tallies.sum;
        }
        Ok(())
    }
}
