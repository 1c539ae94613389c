//! The owner and the place of each state file.

use super::*;
use crate::clock::Timestamp;
use crate::record::{Marker, Saved, SavedAccess, full};
use crate::secret::Secret;
use crate::token::group::groups;
use crate::token::group::tests::providers;
use crate::token::state_file::StateFile;

fn saved(seed: &str, obtained_secs: i64) -> Saved {
    let mut saved = Saved { refresh_token: Some(Secret::new("r")), ..Saved::default() };
    saved.begin_with_seed(&Secret::new(seed));
    saved.client = client("id");
    let obtained_at = Timestamp::from_secs(obtained_secs);
    saved.access = full().access.map(|access| SavedAccess { obtained_at, ..access });
    saved
}

/// The hash of the client called `id`.
fn client(id: &str) -> Option<String> {
    groups(&providers(&[("a", "seed", id, "")]))[0].config.client_hash()
}

fn contents(files: &[(&str, Saved)]) -> Contents {
    let files = files.iter().map(|(slug, saved)| ((*slug).to_owned(), saved.clone())).collect();
    Contents { files, ..Contents::default() }
}

/// The expected result: the name of the file, "" for none, and the names of stale ones.
fn found(slug: &str, stale: &[&str]) -> FoundFile {
    let stale = stale.iter().map(|slug| (*slug).to_owned()).collect();
    FoundFile { slug: Some(slug.to_owned()).filter(|slug| !slug.is_empty()), stale }
}

/// The result for the first group of these providers, each with its seed.
fn find(contents: &Contents, all: &[(&str, &str)], in_use: &[&str]) -> FoundFile {
    let lines: Vec<_> = all.iter().map(|(name, seed)| (*name, *seed, "id", "")).collect();
    let groups = groups(&providers(&lines));
    contents.find(&groups[0], &groups, in_use)
}

#[test]
fn the_newest_file_of_a_chain_is_found_under_whichever_name() {
    let both = [("a", "seed"), ("b", "seed")];
    let (old, new, other) = (saved("seed", 1), saved("seed", 2), saved("other", 3));
    let cases: [(&[(&str, Saved)], FoundFile); 7] = [
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

/// As [`saved`], of the client called `id`; an `id` of "" stands for an older version.
fn of_client(id: &str, obtained_secs: i64) -> Saved {
    Saved {
        client: Some(id).filter(|id| !id.is_empty()).and_then(client),
        ..saved("seed", obtained_secs)
    }
}

#[test]
fn a_refresh_token_of_another_client_is_another_chain() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str, i64)], FoundFile);
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
        ("an older version's, by name first", a, &[("a", "", 1), ("x", "", 9)], found("a", &[])),
        ("an older version's of another", b, &[("a", "", 9)], found("", &[])),
    ];
    for (what, all, files, expected) in cases {
        let lines: Vec<_> = all.iter().map(|(name, client)| (*name, "seed", *client, "")).collect();
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
fn a_chain_is_that_of_the_refresh_token_that_is_nearest_to_it_whatever_its_file_is_called() {
    let hash = |seed: &str| Some(Secret::new(seed).hash());
    let mut begun = saved("seed", 1);
    begun.begin_with_seed(&Secret::new("other"));
    let mut of_login = Saved { configured_seed: hash("other"), ..begun.clone() };
    let began_with = of_login.seed_hash.take().unwrap();
    of_login.supersede_seed(began_with);
    of_login.login_hash = Some("l".into());
    let both: &[_] = &[("a", "seed"), ("c", "other")];
    for (what, saved) in [("begun", &begun), ("of a login", &of_login)] {
        for name in ["a", "c", "gone"] {
            let files = contents(&[(name, saved.clone())]);
            assert_eq!(find(&files, both, &[]), found("", &[]), "{what}, {name}");
            assert_eq!(find(&files, &[both[1], both[0]], &[]), found(name, &[]), "{what}, {name}");
            assert_eq!(find(&files, &both[..1], &[]), found(name, &[]), "alone: {what}, {name}");
        }
    }
    // If none of them is nearer, the file's name decides.
    begun.begin_with_seed(&Secret::new("third"));
    for (name, is_own) in [("a", true), ("c", false)] {
        let files = contents(&[(name, begun.clone())]);
        assert_eq!(find(&files, both, &[]), found(if is_own { name } else { "" }, &[]), "{name}");
    }
    // A configured one that has not begun it yet has no part in it.
    let fallback = Saved { configured_seed: hash("new"), ..saved("seed", 1) };
    let all = [("a", "seed"), ("c", "new")];
    assert_eq!(find(&contents(&[("c", fallback)]), &all, &[]), found("c", &[]));
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
    let one = |from, to: &str| Move { name: "P".into(), found: found(from, &[]), home: to.into() };
    // The third belongs to nobody, and is in the way.
    let moves = [one("a", "b"), one("b", "c"), one("", "a")];
    Contents::read(folder.path()).settle(&moves, Timestamp::from_secs(0), &|_| {});
    let now = Contents::read(folder.path()).files.into_iter();
    let now: Vec<_> = now.map(|(slug, saved)| (slug, saved.seed_hash.unwrap())).collect();
    let hash = |seed| Secret::new(seed).hash();
    assert_eq!(now, [("b".to_owned(), hash("one")), ("c".to_owned(), hash("two"))]);
    assert!(folder.path().join("c.superseded-1970-01-01T00:00:00.000Z.json").exists());
}
