//! Reads the state file for a refresher, and moves one aside that can't be used.

use std::io::ErrorKind;

use log::error;

use crate::token::refresher::Setup;
use crate::token::saved::Saved;

/// Reads the state file; one that can't be used is moved aside and said.
pub(super) fn load(setup: &Setup) -> Option<Saved> {
    let error = match setup.state.load() {
        Ok(saved) => return saved,
        Err(error) => error,
    };
    let path = setup.state.path();
    // A file that belongs to somebody else would be replaced by the next write, and its chain lost.
    if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::PermissionDenied) {
        match setup.state.set_aside(setup.clock.wall()) {
            Ok(aside) => error!(
                "The state file {} can't be used ({error}); it is kept as {}, and the refresh token \
                 of the configuration is tried",
                path.display(),
                aside.display()
            ),
            Err(rename) => error!(
                "The state file {} can't be used ({error}) and can't be moved aside ({rename})",
                path.display()
            ),
        }
    } else {
        error!("The state file {} can't be read: {error}", path.display());
    }
    None
}
