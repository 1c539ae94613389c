//! Counts that several hosts share: each run of the program writes its own, whole, reads those of the others, and writes
//! what the store lacks of them. So all hosts agree in the end, whatever was lost on the way: by a store that lost its data,
//! or with a host that was killed.

use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use crate::shared::engine::{StoreError, Tallies, Tally};

/// A tally, and the name of its writer.
pub(crate) type HostTally = (String, Tally);
/// Gives the tallies of this run.
pub(crate) type Own = Box<dyn Fn(bool) -> Vec<HostTally> + Send + Sync>;
/// Takes all texts under a name, each with its writer; returns the tallies of which more is known.
pub(crate) type Take = Box<dyn Fn(&str, Vec<(String, String)>) -> Vec<HostTally> + Send + Sync>;
/// Writes a tally to the store, and reads those of all hosts if the sum of their versions is not the given one.
pub(crate) type Ask<'a> = dyn FnMut(&str, &Tally, u64) -> Result<Tallies, StoreError> + 'a;

/// A part of the program whose counts are shared.
pub(crate) struct SharedCounts {
    /// The own tallies; all of them if the argument is true, else those that may have changed.
    pub own: Own,
    /// Takes the counts of all hosts.
    pub take: Take,
}

/// The part whose counts are shared, if there is one. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct SharedPart(Arc<Mutex<Option<Arc<SharedCounts>>>>);

impl SharedPart {
    /// Shares `counts` from now on, in the place of those that were shared before.
    pub(crate) fn set(&self, counts: Option<SharedCounts>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts.map(Arc::new);
    }

    fn get(&self) -> Option<Arc<SharedCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The number of exchanges after which all counts are exchanged: ten minutes.
const ALL_EVERY: u32 = 600;

/// One connection's knowledge: the sum of versions under each name.
#[derive(Default)]
pub(crate) struct Exchange {
    known: Vec<(String, u64)>,
    /// The exchanges until all counts are exchanged.
    left: u32,
    /// The part at the last exchange: a new one has told nothing yet.
    part: Option<Arc<SharedCounts>>,
    /// The server refused the script, and the log says so.
    is_refused: bool,
}

impl Exchange {
    /// Writes and reads everything that may have changed. A server whose user may not do that keeps all else working.
    pub(crate) fn run(&mut self, shared: &SharedPart, ask: &mut Ask<'_>) -> Result<(), StoreError> {
        let Some(part) = shared.get() else { return Ok(()) };
        let is_known = self.part.as_ref().is_some_and(|known| Arc::ptr_eq(known, &part));
        if !is_known || self.left == 0 {
            (self.known, self.left) = (Vec::new(), ALL_EVERY);
        }
        match self.of_part(&part, self.left == ALL_EVERY, ask) {
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
        self.left -= 1;
        self.part = Some(part);
        Ok(())
    }

    fn of_part(
        &mut self,
        part: &SharedCounts,
        all: bool,
        ask: &mut Ask<'_>,
    ) -> Result<(), StoreError> {
        for (writer, tally) in (part.own)(all) {
            let index = self.known.iter().position(|(name, _)| *name == tally.name);
            let known = index.map_or(0, |index| self.known[index].1);
            let told = ask(&writer, &tally, known)?;
            // An empty store tells nothing, and lacks everything.
            let texts = told.texts.or_else(|| (told.sum == 0).then(Vec::new));
            for (writer, lacking) in
                texts.map_or_else(Vec::new, |texts| (part.take)(&tally.name, texts))
            {
                ask(&writer, &lacking, told.sum)?;
            }
            // The counts added here are read at the next exchange, with what others add meanwhile.
            match index {
                Some(index) => self.known[index].1 = told.sum,
                None => self.known.push((tally.name, told.sum)),
            }
        }
        Ok(())
    }
}
