//! The files with what is left of each provider's quota: `<state_dir>/quota/<slug>.json`.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;

use crate::bookkeeper::{Registrar, Reminder};
use crate::clock::Clock;
use crate::config::ProviderConfig;
use crate::proxy::allowance::AllowanceState;
use crate::proxy::cooldown::Cooldown;
use crate::quota::account;
use crate::quota::stored::StoredQuota;
use crate::regular_file;
use crate::token::hang::in_folder;
use crate::token::state_file::write_in;

/// The folder in the state folder.
const FOLDER: &str = "quota";
/// A larger file is none of evertoken's. The longest names of models take up to 90 KiB of one.
const FILE_MAX_BYTES: u64 = 128 * 1024;
/// The most files that are read. A provider that was renamed finds its quota in another's file.
const FILES_MAX: usize = 256;

/// The quotas in the files, by the slugs in their names.
#[derive(Debug, Default)]
pub(super) struct QuotaFiles(Vec<(String, StoredQuota)>);

impl QuotaFiles {
    /// Reads all files of `state_dir`, however long its disk takes.
    pub(super) fn read(state_dir: &Path, clock: &Clock) -> Self {
        let folder = state_dir.join(FOLDER);
        Self(in_folder(state_dir, clock, || read_all(&folder)))
    }

    /// The quotas of accounts of `provider`, one of `all`. Another one's cooldown is none of its own, even if the
    /// account is the same.
    pub(super) fn state_of(
        &self,
        provider: &ProviderConfig,
        all: &[ProviderConfig],
    ) -> AllowanceState {
        let base = account::base(provider);
        let is_own = |one: &StoredQuota| base.is_some() && one.account().map(|it| it.base) == base;
        let of_account = self.0.iter().filter(|(_, stored)| is_own(stored));
        let taken = of_account.map(|(slug, stored)| {
            let is_others =
                *slug != provider.slug && all.iter().any(|one| one.enabled && one.slug == *slug);
            if is_others { stored.clone().without_rests() } else { stored.clone() }
        });
        AllowanceState::new(taken.collect())
    }
}

/// Has `state` and `cooldown` of the provider called `slug` saved whenever the reminder is called.
pub(super) fn saved_by(
    registrar: &Registrar,
    state_dir: &Path,
    slug: &str,
    (state, cooldown): (Arc<AllowanceState>, Arc<Cooldown>),
    clock: &Clock,
) -> Reminder {
    let (folder, name) = (state_dir.join(FOLDER), format!("{slug}.json"));
    let clock = clock.clone();
    registrar.add(format!("quota of {slug}"), move || match state.stored(&cooldown, clock.now()) {
        Some(stored) => write_in(&folder, &name, stored.to_json().as_bytes()),
        None => Ok(()),
    })
}

fn read_all(folder: &Path) -> Vec<(String, StoredQuota)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_own = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    let read = |path: PathBuf| {
        let slug = path.file_stem()?.to_str()?.to_owned();
        Some((slug, read_one(&path)?))
    };
    paths.filter(is_own).take(FILES_MAX).filter_map(read).collect()
}

fn read_one(path: &Path) -> Option<StoredQuota> {
    let mut bytes = Vec::new();
    let read = regular_file::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes));
    let why = match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
        Ok(_) if bytes.len() as u64 > FILE_MAX_BYTES => {
            format!("it has more than {} KiB", FILE_MAX_BYTES / 1024)
        }
        Ok(_) => match StoredQuota::parse(&bytes) {
            Ok(stored) => return Some(stored),
            Err(why) => why.to_string(),
        },
    };
    warn!(
        "{} is ignored: {why}. It is replaced once its provider says what is left",
        path.display()
    );
    None
}
