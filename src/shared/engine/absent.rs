//! The connection of a build without the feature `redis`, which always fails.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use crate::config::SharedStore;
use crate::shared::engine::reply::{EngineReply, StoreError};

/// A connection that can't exist.
pub(super) enum Link {}

impl Link {
    /// Fails.
    pub(super) fn open(_: &SharedStore) -> Result<Self, StoreError> {
        Err(StoreError::NotBuilt)
    }

    pub(super) fn ask(&mut self, _: &[&str]) -> Result<EngineReply, StoreError> {
        match *self {}
    }

    pub(super) fn listen(&mut self, _: &str) -> Result<Hearing<'_>, StoreError> {
        match *self {}
    }
}

/// A subscription that can't exist.
pub(super) struct Hearing<'a>(Infallible, PhantomData<&'a ()>);

impl Hearing<'_> {
    pub(super) fn next(&mut self, _: Duration) -> Result<Option<String>, StoreError> {
        match self.0 {}
    }

    pub(super) fn ping(&mut self) -> Result<(), StoreError> {
        match self.0 {}
    }
}
