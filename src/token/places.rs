//! Finds the state file of each chain before a refresher begins with it.
//!
//! A chain is kept under the name of one of its providers. Where that one was renamed or taken out, or where
//! each of several had a file of its own once, the tokens are not where they are looked for first, and to
//! begin without them would spend a refresh token a second time, which many issuers take for theft. A file
//! tells whose it is by the seed that its chain began with, and by its issuer and client.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};

use crate::clock::Timestamp;
use crate::record::Saved;
use crate::token::group::Group;
use crate::token::state_file::{Locking, StateFile, StateLock};

mod homes;
mod seek;
mod whose;

pub use homes::Homes;
pub use seek::{OnChain, Seeker, Sought, Unseen};
pub use whose::of_stored;
use whose::{Claim, claim, freshness};

/// How often the lock of a file that is to be moved is tried for, and how long to wait between.
const LOCK_TRIES_MAX: u32 = 20;
const LOCK_RETRY: Duration = Duration::from_millis(250);

/// The state files of a folder, as far as they can be read.
#[derive(Debug, Default)]
pub struct Contents {
    folder: PathBuf,
    /// The name of each, and what it holds.
    files: Vec<(String, Saved)>,
    /// The names of those that are there and can't be read for now.
    unreadable: Vec<String>,
    /// Why the folder can't be listed, where it can't.
    unlisted: Option<io::Error>,
}

/// What was found of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The name of its file, which may be that of a provider that is no more; None where there is none.
    pub slug: Option<String>,
    /// Older files of its providers, to be moved aside.
    pub stale: Vec<String>,
}

/// What is to be done with the files of one chain.
#[derive(Clone, Debug)]
pub struct Move {
    /// The names of its providers.
    pub name: String,
    /// Its files.
    pub found: Found,
    /// What its file is to be called.
    pub home: String,
}

/// Names of which one is surely free.
fn numbered(slug: &str) -> impl Iterator<Item = String> {
    (2_u32..).map(move |number| format!("{slug}-{number}"))
}

impl Contents {
    /// Reads the state files in `folder`. What is wrong with one is said by the refresher that needs it.
    pub fn read(folder: &Path) -> Self {
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

    fn has(&self, slug: &str) -> bool {
        self.files.iter().any(|(known, _)| known == slug)
            || self.unreadable.iter().any(|known| known == slug)
    }

    /// Where the chain of `group` is, which is one of `all`. Files called as in `in_use` belong to refreshers
    /// that run.
    pub fn find(&self, group: &Group, all: &[Group], in_use: &[&str]) -> Found {
        let unreadable = self.unreadable.iter().find(|slug| group.slugs.contains(*slug));
        if let Some(slug) = unreadable.filter(|slug| !in_use.contains(&slug.as_str())) {
            // It may hold the newest tokens: it is waited for rather than passed over.
            return Found { slug: Some(slug.clone()), stale: Vec::new() };
        }
        let known = self.of_chain(group, all, in_use);
        let newest = known.iter().max_by_key(|(_, saved)| freshness(saved)).map(|(slug, _)| *slug);
        let stale = known.iter().map(|(slug, _)| *slug);
        let stale = stale.filter(|slug| Some(*slug) != newest && group.slugs.contains(*slug));
        Found { stale: stale.map(str::to_owned).collect(), slug: newest.map(str::to_owned) }
    }

    /// The same for a chain whose refresher runs with the file called `own`, and moves it itself. Another process
    /// may have moved it already: only what is older than that file is stale.
    pub fn find_beside(&self, group: &Group, all: &[Group], in_use: &[&str], own: &str) -> Found {
        let own = self.files.iter().find(|(slug, _)| slug == own);
        let Some(own) = own.map(|(_, saved)| freshness(saved)) else { return Found::default() };
        let mut stale = self.of_chain(group, all, in_use);
        stale.retain(|(slug, saved)| group.slugs.contains(*slug) && freshness(saved) <= own);
        Found { slug: None, stale: stale.into_iter().map(|(slug, _)| slug.to_owned()).collect() }
    }

    /// The files of the chain of `group` that are the surest ones, of those that nobody uses.
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

impl Contents {
    /// Sorts the folder out: moves older files aside, and those of the chains to their names.
    pub fn settle(&self, moves: &[Move], now: Timestamp, wait: &dyn Fn(Duration)) {
        let file = |slug: &str| StateFile::new(&self.folder, slug);
        for one in moves {
            for slug in &one.found.stale {
                set_aside(&file(slug), &one.name, now);
            }
        }
        // Two chains may change places: all are taken away before the first is put down.
        let mut carried = Vec::new();
        for one in moves {
            let from = one.found.slug.as_ref().filter(|slug| **slug != one.home);
            let between = numbered(&one.home).find(|slug| !self.has(slug));
            if let Some((from, between)) = from.zip(between)
                && rename(&file(from), &file(&between), &one.name, wait)
            {
                carried.push((one, from, between));
            }
        }
        for (one, from, between) in carried {
            let home = file(&one.home);
            if home.path().exists() {
                set_aside(&home, &one.name, now);
            }
            if rename(&file(&between), &home, &one.name, wait) {
                info!(
                    provider = one.name.as_str();
                    "The tokens of provider {} are kept in {} now; they were in {}",
                    one.name,
                    home.path().display(),
                    file(from).path().display()
                );
            }
        }
    }
}

/// Renames a state file under its lock; where that fails it is said, and false returned.
fn rename(from: &StateFile, to: &StateFile, name: &str, wait: &dyn Fn(Duration)) -> bool {
    let Ok(_lock) = lock(from, wait) else { return false };
    let renamed = from.rename_to(to);
    if let Err(error) = &renamed {
        warn!(
            provider = name;
            "The tokens of provider {name} are in {}, which can't be renamed to {}: {error}",
            from.path().display(),
            to.path().display()
        );
    }
    renamed.is_ok()
}

fn set_aside(file: &StateFile, name: &str, now: Timestamp) {
    let path = file.path();
    match file.set_aside_as_superseded(now) {
        Ok(aside) => warn!(
            provider = name;
            "The state file {} does not hold the newest tokens of provider {name}; it is kept as {}",
            path.display(),
            aside.display()
        ),
        Err(error) => warn!(
            provider = name;
            "The state file {} does not hold the newest tokens of provider {name}, and can't be moved \
             aside: {error}",
            path.display()
        ),
    }
}

/// Another process has the lock, or nobody knows. It is said.
struct NotLocked;

/// The lock; None where nobody can hold one there.
fn lock(file: &StateFile, wait: &dyn Fn(Duration)) -> Result<Option<StateLock>, NotLocked> {
    for _ in 0..LOCK_TRIES_MAX {
        match file.try_lock() {
            Ok(Locking::Ours(lock)) => return Ok(Some(lock)),
            Ok(Locking::Nobodys(_)) => return Ok(None),
            Ok(Locking::Theirs) => wait(LOCK_RETRY),
            Err(error) => {
                warn!("The state file {} can't be locked: {error}", file.path().display());
                return Err(NotLocked);
            }
        }
    }
    warn!("The state file {} is locked by another process", file.path().display());
    Err(NotLocked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::full;
    use crate::record::{Marker, SavedAccess};
    use crate::secret::Secret;
    use crate::token::group::groups;
    use crate::token::group::tests::providers;

    fn saved(seed: &str, obtained_secs: i64) -> Saved {
        let mut saved = Saved { refresh_token: Some(Secret::new("r")), ..Saved::default() };
        saved.begin_with_seed(&Secret::new(seed));
        saved.client = client("id");
        let obtained_at = Timestamp::from_secs(obtained_secs);
        saved.access = full().access.map(|access| SavedAccess { obtained_at, ..access });
        saved
    }

    /// Of the client called `id`.
    fn client(id: &str) -> Option<String> {
        groups(&providers(&[("a", "seed", id, "")]))[0].client()
    }

    fn contents(files: &[(&str, Saved)]) -> Contents {
        let files = files.iter().map(|(slug, saved)| ((*slug).to_owned(), saved.clone())).collect();
        Contents { files, ..Contents::default() }
    }

    /// The name of the file that was found, "" for none, and those of stale ones.
    fn found(slug: &str, stale: &[&str]) -> Found {
        let stale = stale.iter().map(|slug| (*slug).to_owned()).collect();
        Found { slug: Some(slug.to_owned()).filter(|slug| !slug.is_empty()), stale }
    }

    /// What is found for the first group of these providers, each with its seed.
    fn find(contents: &Contents, all: &[(&str, &str)], in_use: &[&str]) -> Found {
        let lines: Vec<_> = all.iter().map(|(name, seed)| (*name, *seed, "id", "")).collect();
        let groups = groups(&providers(&lines));
        contents.find(&groups[0], &groups, in_use)
    }

    #[test]
    fn the_newest_file_of_a_chain_is_found_under_whichever_name() {
        let both = [("a", "seed"), ("b", "seed")];
        let (old, new, other) = (saved("seed", 1), saved("seed", 2), saved("other", 3));
        let cases: [(&[(&str, Saved)], Found); 7] = [
            (&[], found("", &[])),
            (&[("b", new.clone())], found("b", &[])),
            (&[("a", old.clone()), ("b", new.clone())], found("b", &["a"])),
            (&[("a", new.clone()), ("b", old.clone())], found("a", &["b"])),
            (&[("a", other.clone()), ("gone", new.clone())], found("gone", &[])),
            (&[("a", old), ("gone", new.clone())], found("gone", &["a"])),
            (&[("gone", other)], found("", &[])),
        ];
        for (files, expected) in cases {
            assert_eq!(find(&contents(files), &both, &[]), expected);
        }
        let mut dead = saved("seed", 9);
        dead.failure = full().failure;
        dead.failure.as_mut().unwrap().refresh_token_hash = Secret::new("r").hash();
        let refused = contents(&[("a", dead), ("b", new)]);
        let newest = find(&refused, &both, &[]);
        assert_eq!(newest, found("b", &["a"]), "what was refused is no good, however new");
    }

    /// As [`saved`], of the client called `id`; of an older version, where that is "".
    fn of_client(id: &str, obtained_secs: i64) -> Saved {
        Saved {
            client: Some(id).filter(|id| !id.is_empty()).and_then(client),
            ..saved("seed", obtained_secs)
        }
    }

    #[test]
    fn a_refresh_token_of_another_client_is_another_chain() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str, i64)], Found);
        let (a, b): (&[_], &[_]) = (&[("a", "id")], &[("b", "other"), ("a", "id")]);
        let cases: [Case<'_>; 11] = [
            // Files by name, client and time; a "" is of an older version.
            (
                "the other is gone",
                &[("b", "other")],
                &[("a", "id", 9), ("b", "other", 1)],
                found("b", &[]),
            ),
            ("nobody has a file of its own", &[("b", "other")], &[("a", "id", 9)], found("", &[])),
            ("renamed", a, &[("x", "id", 1), ("y", "other", 9)], found("x", &[])),
            ("they changed names", b, &[("a", "other", 1), ("b", "id", 9)], found("a", &[])),
            ("its client was corrected", a, &[("a", "other", 1)], found("a", &[])),
            (
                "and another has that now",
                &[("a", "id"), ("c", "other")],
                &[("a", "other", 1)],
                found("", &[]),
            ),
            (
                "its own comes before its name's",
                a,
                &[("a", "other", 9), ("x", "id", 1)],
                found("x", &[]),
            ),
            ("an older version's", a, &[("a", "", 1)], found("a", &[])),
            ("an older version's, renamed", a, &[("x", "", 1)], found("x", &[])),
            (
                "an older version's, by name first",
                a,
                &[("a", "", 1), ("x", "", 9)],
                found("a", &[]),
            ),
            ("an older version's of another", b, &[("a", "", 9)], found("", &[])),
        ];
        for (what, all, files, expected) in cases {
            let lines: Vec<_> =
                all.iter().map(|(name, client)| (*name, "seed", *client, "")).collect();
            let groups = groups(&providers(&lines));
            let files: Vec<_> =
                files.iter().map(|(slug, id, at)| (*slug, of_client(id, *at))).collect();
            assert_eq!(contents(&files).find(&groups[0], &groups, &[]), expected, "{what}");
        }
    }

    #[test]
    fn a_chain_that_just_begins_elsewhere_is_found() {
        let marker =
            Marker { refresh_token_hash: Secret::new("seed").hash(), at: Timestamp::from_secs(1) };
        let begun = Saved { pending: Some(marker), client: client("id"), ..Saved::default() };
        let files = contents(&[("x", begun)]);
        assert_eq!(find(&files, &[("a", "seed")], &[]), found("x", &[]));
        assert_eq!(find(&files, &[("a", "other")], &[]), found("", &[]));
    }

    #[test]
    fn a_file_is_taken_from_nobody_who_owns_it() {
        let files = contents(&[("b", saved("seed", 1))]);
        // Its name is another chain's now, or that of a provider that waits for a login.
        assert_eq!(find(&files, &[("a", "seed"), ("b", "other")], &[]), found("b", &[]));
        assert_eq!(find(&files, &[("a", "seed"), ("b", "")], &[]), found("b", &[]));
        assert_eq!(find(&files, &[("a", "seed")], &["b"]), found("", &[]), "it is in use");
        let mut login = saved("seed", 1);
        (login.login_hash, login.seed_hash) = (Some("l".into()), None);
        login.supersede_seed(Secret::new("seed").hash());
        let files = contents(&[("b", login)]);
        assert_eq!(find(&files, &[("a", "seed"), ("b", "")], &[]), found("", &[]));
        assert_eq!(find(&files, &[("a", "seed"), ("c", "")], &[]), found("b", &[]));
    }

    #[test]
    fn a_file_that_does_not_tell_what_its_chain_began_with_is_its_names() {
        let mut lost = saved("seed", 1);
        lost.seed_hash = None;
        let files = contents(&[("gone", lost.clone())]);
        assert_eq!(find(&files, &[("a", "seed")], &[]), found("", &[]), "it may be anybody's");
        let files = contents(&[("b", lost)]);
        let both = [("a", "seed"), ("b", "seed")];
        assert_eq!(find(&files, &both, &[]), found("b", &[]));
        assert_eq!(find(&files, &[("a", "seed"), ("b", "other")], &[]), found("", &[]));
    }

    #[test]
    fn a_file_that_cannot_be_read_for_now_is_waited_for() {
        let mut files = contents(&[("a", saved("seed", 1)), ("gone", saved("seed", 2))]);
        files.unreadable.push("b".into());
        assert_eq!(find(&files, &[("a", "seed"), ("b", "seed")], &[]), found("b", &[]));
        assert_eq!(find(&files, &[("a", "seed")], &[]), found("gone", &["a"]), "another's");
    }

    #[test]
    fn beside_a_running_refresher_only_old_files_of_its_providers_are_found() {
        let files = contents(&[("a", saved("seed", 9)), ("gone", saved("seed", 9))]);
        let groups = groups(&providers(&[("a", "seed", "id", ""), ("b", "seed", "id", "")]));
        let beside = |files: &Contents, slug| files.find_beside(&groups[0], &groups, &[slug], slug);
        assert_eq!(beside(&files, "a"), found("", &[]));
        assert_eq!(beside(&files, "b"), found("", &[]), "another process may have moved it");
        for (obtained_secs, stale) in [(8, found("", &[])), (9, found("", &["a"]))] {
            let mut both = contents(&[("a", saved("seed", 9))]);
            both.files.push(("b".into(), saved("seed", obtained_secs)));
            assert_eq!(beside(&both, "b"), stale);
        }
    }

    #[test]
    fn no_name_is_given_out_twice() {
        let groups = groups(&providers(&[("a", "seed", "id", ""), ("b", "seed", "id", "")]));
        let files = contents(&[("a-2", saved("other", 1))]);
        let mut homes = Homes::default();
        homes.leaving.insert("b".into());
        let mut give = |found, may_wait| homes.give(&groups[0], found, may_wait, &files);
        assert_eq!(give(Some("b"), false), "a", "the other is not free yet");
        assert_eq!(give(None, false), "a-3");
        assert_eq!(give(None, true), "b", "once it is left");
        assert_eq!(give(None, true), "a-4");
        assert_eq!(Homes::default().give(&groups[0], Some("b"), false, &files), "b");
        assert_eq!(Homes::default().give(&groups[0], Some("gone"), false, &files), "a");
    }

    #[test]
    fn chains_may_change_places() {
        let folder = tempfile::tempdir().unwrap();
        for (slug, seed) in [("a", "one"), ("b", "two"), ("c", "three")] {
            StateFile::new(folder.path(), slug).replace(&saved(seed, 1)).unwrap();
        }
        let one =
            |from, to: &str| Move { name: "P".into(), found: found(from, &[]), home: to.into() };
        // The third is of nobody, and in the way.
        let moves = [one("a", "b"), one("b", "c"), one("", "a")];
        Contents::read(folder.path()).settle(&moves, Timestamp::from_secs(0), &|_| {});
        let now = Contents::read(folder.path()).files.into_iter();
        let now: Vec<_> = now.map(|(slug, saved)| (slug, saved.seed_hash.unwrap())).collect();
        let hash = |seed| Secret::new(seed).hash();
        assert_eq!(now, [("b".to_owned(), hash("one")), ("c".to_owned(), hash("two"))]);
        assert!(folder.path().join("c.superseded-1970-01-01T00:00:00.000Z.json").exists());
    }
}
