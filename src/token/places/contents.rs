//! The state files of a folder, and the chains they belong to. Pure, except for reading them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::record::Saved;
use crate::token::group::Group;
use crate::token::places::whose::{Claim, claim, freshness};
use crate::token::state_file::StateFile;

/// The readable state files of a folder, and the unreadable ones by name.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(super) folder: PathBuf,
    /// The name and the content of each file.
    pub(super) files: Vec<(String, Saved)>,
    /// The names of files that exist and can't be read for now.
    pub(super) unreadable: Vec<String>,
    /// The error of listing the folder, if there was one.
    pub(super) unlisted: Option<io::Error>,
}

/// The files of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// The name of its file, possibly that of a removed provider; None if there is no file.
    pub slug: Option<String>,
    /// Older files of its providers, to be moved aside.
    pub stale: Vec<String>,
}

/// Candidate names, of which at least one is free.
pub(super) fn numbered(slug: &str) -> impl Iterator<Item = String> {
    (2_u32..).map(move |number| format!("{slug}-{number}"))
}

impl Contents {
    /// Reads the state files in `folder`. The refresher that needs a file reports its faults.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut contents = Self { folder: folder.to_owned(), ..Self::default() };
        let all = StateFile::all_in(folder).unwrap_or_else(|error| {
            contents.unlisted = Some(error);
            Vec::new()
        });
        for file in all {
            let slug = file.slug().to_owned();
            match file.load() {
                Ok(Some(saved)) => contents.files.push((slug, saved)),
                Err(error) if error.kind() != ErrorKind::InvalidData => {
                    contents.unreadable.push(slug);
                }
                Ok(None) | Err(_) => {}
            }
        }
        contents
    }

    pub(super) fn has(&self, slug: &str) -> bool {
        self.files.iter().any(|(known, _)| known == slug)
            || self.unreadable.iter().any(|known| known == slug)
    }

    /// Finds the file of the chain of `group`, which is one of `all`. Files with the names `in_use` belong to running
    /// refreshers.
    pub(crate) fn find(&self, group: &Group, all: &[Group], in_use: &[&str]) -> FoundFile {
        let unreadable = self.unreadable.iter().find(|slug| group.slugs.contains(*slug));
        if let Some(slug) = unreadable.filter(|slug| !in_use.contains(&slug.as_str())) {
            // It may hold the newest tokens, so the refresher waits for it instead of skipping it.
            return FoundFile { slug: Some(slug.clone()), stale: Vec::new() };
        }
        let known = self.of_chain(group, all, in_use);
        let newest = known.iter().max_by_key(|(_, saved)| freshness(saved)).map(|(slug, _)| *slug);
        let stale = known.iter().map(|(slug, _)| *slug);
        let stale = stale.filter(|slug| Some(*slug) != newest && group.slugs.contains(*slug));
        FoundFile { stale: stale.map(str::to_owned).collect(), slug: newest.map(str::to_owned) }
    }

    /// Finds the files of a chain whose refresher runs with the file called `own`, and moves it itself. Another process
    /// may have moved it already: only files older than that one are stale.
    pub(crate) fn find_beside(
        &self,
        group: &Group,
        all: &[Group],
        in_use: &[&str],
        own: &str,
    ) -> FoundFile {
        let own = self.files.iter().find(|(slug, _)| slug == own);
        let Some(own) = own.map(|(_, saved)| freshness(saved)) else { return FoundFile::default() };
        let mut stale = self.of_chain(group, all, in_use);
        stale.retain(|(slug, saved)| group.slugs.contains(*slug) && freshness(saved) <= own);
        FoundFile {
            slug: None,
            stale: stale.into_iter().map(|(slug, _)| slug.to_owned()).collect(),
        }
    }

    /// The unused files with the strongest claim to be of the chain of `group`.
    fn of_chain(&self, group: &Group, all: &[Group], in_use: &[&str]) -> Vec<(&str, &Saved)> {
        let files = self.files.iter().map(|(slug, saved)| (slug.as_str(), saved));
        let free = files.filter(|(slug, _)| !in_use.contains(slug));
        let known =
            free.filter_map(|(slug, saved)| Some((claim(group, all, slug, saved)?, slug, saved)));
        let known: Vec<_> = known.collect();
        let surest = known.iter().map(|(claim, ..)| *claim).max();
        let is_surest = |(claim, ..): &(Claim, &str, &Saved)| Some(*claim) == surest;
        known.into_iter().filter(is_surest).map(|(_, slug, saved)| (slug, saved)).collect()
    }
}
