//! The folders of a run's files: configurations, certificates, environments of other tools.

use std::path::{Path, PathBuf};

use crate::Outcome;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// `target/bench`, created if needed.
pub(crate) fn scratch() -> Outcome<PathBuf> {
    let folder = root().join("target/bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The program that `make static` builds.
pub(crate) fn static_evertoken() -> Outcome<PathBuf> {
    let path = root().join("target/static/evertoken");
    if path.exists() { Ok(path) } else { Err("make static builds it".into()) }
}

/// The evertoken that is measured.
pub(crate) fn evertoken() -> PathBuf {
    root().join("target/release/evertoken")
}
