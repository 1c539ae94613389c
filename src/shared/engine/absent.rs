//! The connection of a build without the feature `redis`: there is none.

use std::time::Duration;

use crate::config::SharedStore;
use crate::shared::engine::{Reply, Trouble};

/// A connection that can't be.
pub enum Link {}

impl Link {
    /// Fails.
    pub(super) fn open(_: &SharedStore) -> Result<Self, Trouble> {
        Err(Trouble("this evertoken was built without the feature 'redis'".to_owned()))
    }

    pub(super) fn ask(&mut self, _: &[&str]) -> Result<Reply, Trouble> {
        match *self {}
    }

    pub(super) fn say(&mut self, _: &[&str]) -> Result<(), Trouble> {
        match *self {}
    }

    pub(super) fn next(&mut self, _: Duration) -> Result<Option<Reply>, Trouble> {
        match *self {}
    }
}
