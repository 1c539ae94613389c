//! Days, restarts, disks that fail, and hosts that share their counts.

use std::sync::atomic::Ordering;

use super::*;
use crate::atomic::AtomicI64;
use crate::clock::Moment;
use crate::usage::tokens::Tokens;

/// The runs so far, by which each has a name.
static COUNT: AtomicI64 = AtomicI64::new(0);

/// A ledger in `folder` whose clock shows `now`.
pub(super) fn ledger(folder: &Path, now: &Arc<AtomicI64>) -> Arc<Ledger> {
    let now = now.clone();
    let clock = Clock::from_fn(move || Moment {
        wall: Timestamp::from_millis(now.load(Ordering::SeqCst)),
        steady_ms: 0,
    });
    let run = COUNT.fetch_add(1, Ordering::SeqCst).to_string();
    Arc::new(Ledger::open(folder, clock, &run))
}

pub(super) fn at(text: &str) -> Arc<AtomicI64> {
    let time = Timestamp::parse_rfc3339(text).unwrap();
    Arc::new(AtomicI64::new(time.as_millis()))
}

pub(super) fn read(input: u64) -> Observed {
    let tokens = Some(Tokens { input, output: 1, ..Tokens::default() });
    Observed::Read(Finding { tokens, model: Some("m".to_owned()) })
}

pub(super) fn answered<'a>(key: Option<&'a str>, path: &'a str) -> Answered<'a> {
    Answered { provider: "P", key, asked_model: None, method: "POST", path, is_whole: true }
}

const PATH: &str = "/v1/messages";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[test]
fn the_tokens_of_a_key_begin_anew_each_day_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let now = at("2026-12-01T12:00:00Z");
    let one = ledger(folder.path(), &now);
    one.count(read(9), answered(Some("ci"), PATH));
    one.count(read(4), answered(Some("ci"), PATH));
    one.count(read(4), answered(None, PATH));
    assert_eq!((one.tokens_today("ci"), one.tokens_today("")), (15, 5));
    assert_eq!(one.tokens_today("other"), 0);
    one.save().unwrap();
    assert_eq!(one.tokens_today("ci"), 15, "a save changes nothing");
    one.count(read(1), answered(Some("ci"), PATH));
    let again = ledger(folder.path(), &now);
    assert_eq!((one.tokens_today("ci"), again.tokens_today("ci")), (17, 15));
    now.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!((one.tokens_today("ci"), again.tokens_today("ci")), (0, 0));
    one.count(read(1), answered(Some("ci"), PATH));
    assert_eq!(one.tokens_today("ci"), 2);
    let days = one.shown_days();
    assert_eq!(days.len(), 7);
    let sums: Vec<_> = days.iter().map(|(_, table)| table.sum(|_| true).tokens()).collect();
    assert_eq!(sums, [2, 22, 0, 0, 0, 0, 0]);
    assert_eq!(one.of_run().sum(|_| true).tokens(), 24);
    assert_eq!(again.of_run().sum(|_| true).tokens(), 0);
}

#[test]
fn what_can_t_be_saved_is_neither_lost_nor_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let one = ledger(folder.path(), &at("2026-12-01T12:00:00Z"));
    std::fs::write(folder.path().join("usage"), "in the way").unwrap();
    for _ in 0..3 {
        one.count(read(9), answered(None, PATH));
        assert!(one.save().is_err());
    }
    assert_eq!(one.tokens_today(""), 30);
    std::fs::remove_file(folder.path().join("usage")).unwrap();
    one.save().unwrap();
    one.save().unwrap();
    let again = ledger(folder.path(), &at("2026-12-01T12:00:00Z"));
    assert_eq!((one.tokens_today(""), again.tokens_today("")), (30, 30));
    assert_eq!(one.of_run().sum(|_| true).requests, 3);
}

/// A token store: the text of each run under each name, with its version.
type Store = BTreeMap<String, BTreeMap<String, (u64, String)>>;

/// Lets the ledgers write to the store and read from it.
fn exchange(ledgers: &[&Arc<Ledger>], store: &mut Store, all: bool) {
    for ledger in ledgers {
        for (run, tally) in ledger.shared(all) {
            write(store, run, tally);
        }
    }
    for ledger in ledgers {
        for name in store.keys().cloned().collect::<Vec<_>>() {
            let texts = store[&name].iter().map(|(run, (_, text))| (run.clone(), text.clone()));
            for (run, tally) in ledger.take(&name, texts.collect()) {
                write(store, run, tally);
            }
        }
    }
}

fn write(store: &mut Store, run: String, tally: Tally) {
    let known = store.entry(tally.name).or_default().entry(run).or_default();
    if tally.version > known.0 {
        *known = (tally.version, tally.text);
    }
}

#[test]
fn hosts_see_the_sum_of_all_and_keep_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (now, mut store) = (at("2026-12-01T12:00:00Z"), Store::new());
    let (one, two) = (ledger(folder.path(), &now), ledger(other.path(), &now));
    one.count(read(9), answered(Some("ci"), PATH));
    two.count(read(99), answered(Some("ci"), PATH));
    for _ in 0..3 {
        exchange(&[&one, &two], &mut store, true);
    }
    for ledger in [&one, &two] {
        assert_eq!(ledger.tokens_today("ci"), 110);
        ledger.save().unwrap();
        assert_eq!(ledger.tokens_today("ci"), 110);
    }
    two.count(read(9), answered(Some("ci"), PATH));
    exchange(&[&one, &two], &mut store, false);
    assert_eq!((one.tokens_today("ci"), two.tokens_today("ci")), (120, 120));
    // Without the store, a host remembers what it knew of the others.
    one.save().unwrap();
    let again = ledger(folder.path(), &now);
    assert_eq!(again.tokens_today("ci"), 120);
    // A store that lost its data gets those of earlier runs again, and those of other hosts too.
    let (late, mut store) = (ledger(tempfile::tempdir().unwrap().path(), &now), Store::new());
    exchange(&[&again, &late], &mut store, true);
    assert_eq!(late.tokens_today("ci"), 120);
    exchange(&[&again, &two, &late], &mut store, true);
    assert_eq!((late.tokens_today("ci"), again.tokens_today("ci")), (120, 120));
    for text in ["[]", "nonsense"] {
        again.take("usage:2026-12-01", vec![(two.run.clone(), text.to_owned())]);
        again.take("other:2026-12-01", vec![(two.run.clone(), text.to_owned())]);
    }
    assert_eq!(again.tokens_today("ci"), 120);
}

/// Its own counts were fewer after a kill than the other hosts knew of, and they took no new ones from it.
#[test]
fn a_host_that_was_killed_gets_its_unsaved_counts_back_and_adds_to_them() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (now, mut store) = (at("2026-12-01T12:00:00Z"), Store::new());
    let (one, two) = (ledger(folder.path(), &now), ledger(other.path(), &now));
    one.count(read(9), answered(None, PATH));
    one.save().unwrap();
    one.count(read(9), answered(None, PATH));
    one.count(read(9), answered(None, PATH));
    exchange(&[&one, &two], &mut store, false);
    drop(one);
    let again = ledger(folder.path(), &now);
    assert_eq!(again.tokens_today(""), 10, "the rest was not saved");
    again.count(read(9), answered(None, PATH));
    exchange(&[&again, &two], &mut store, false);
    assert_eq!((again.tokens_today(""), two.tokens_today("")), (40, 40));
}

/// Two processes on one folder, one of which has seen the other's counts only in the store.
#[test]
fn processes_on_one_folder_count_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (now, mut store) = (at("2026-12-01T12:00:00Z"), Store::new());
    let (one, two) = (ledger(folder.path(), &now), ledger(folder.path(), &now));
    for ledger in [&one, &two, &one, &two] {
        ledger.count(read(9), answered(None, PATH));
        exchange(&[&one, &two], &mut store, true);
        ledger.save().unwrap();
    }
    exchange(&[&one, &two], &mut store, true);
    for ledger in [&one, &two] {
        ledger.save().unwrap();
        assert_eq!(ledger.tokens_today(""), 40);
    }
    assert_eq!(ledger(folder.path(), &now).tokens_today(""), 40);
}

#[test]
fn a_reload_may_move_the_folder() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = at("2026-12-01T12:00:00Z");
    let before = ledger(other.path(), &now);
    before.count(read(99), answered(None, PATH));
    before.save().unwrap();
    let one = ledger(folder.path(), &now);
    one.count(read(9), answered(None, PATH));
    one.move_to(other.path());
    assert_eq!(one.tokens_today(""), 110, "what was not saved moves along");
    one.save().unwrap();
    assert_eq!(ledger(other.path(), &now).tokens_today(""), 110);
}

#[test]
fn names_that_a_client_invented_took_the_rows_of_real_models() {
    let folder = tempfile::tempdir().unwrap();
    let now = at("2026-12-01T12:00:00Z");
    let one = ledger(folder.path(), &now);
    let asking = || Answered { asked_model: Some("m"), ..answered(None, PATH) };
    for number in 0..100 {
        let name = format!("invented-{number}");
        let asked = Answered { asked_model: Some(&name), ..answered(None, PATH) };
        one.count(Observed::Nothing, asked);
    }
    one.count(read(9), answered(None, PATH));
    one.count(Observed::Nothing, asking());
    let rows = |ledger: &Ledger| {
        let table = ledger.shown_days().remove(0).1;
        let rows = table.rows().iter().map(|row| (row.model.clone(), row.counts.requests));
        rows.collect::<Vec<_>>()
    };
    let expected = [("other".to_owned(), 100), ("m".to_owned(), 2)];
    assert_eq!(rows(&one), expected);
    // Another run knows the name from the first one.
    one.save().unwrap();
    let again = ledger(folder.path(), &now);
    again.count(Observed::Nothing, asking());
    assert_eq!(rows(&again)[1], ("m".to_owned(), 3));
}

#[test]
fn answers_that_are_counted_and_their_models() {
    let nothing = || Observed::Read(Finding { tokens: None, model: None });
    let named = || Observed::Read(Finding { tokens: None, model: Some("m".to_owned()) });
    let without_model = || match read(9) {
        Observed::Read(finding) => Observed::Read(Finding { model: None, ..finding }),
        other => other,
    };
    let asked = Answered { asked_model: Some("asked"), ..answered(None, PATH) };
    let get = Answered { method: "GET", ..answered(None, PATH) };
    let other = "/v1/messages/count_tokens";
    let cut = Answered { is_whole: false, ..asked };
    // Requests, tokens, unknown and cut answers, and the model.
    let cases = [
        (read(9), asked, Some((1, 10, 0, 0, "m"))),
        (read(9), answered(None, other), Some((1, 10, 0, 0, "m"))),
        (read(9), cut, Some((1, 10, 0, 1, "m"))),
        (nothing(), asked, Some((1, 0, 1, 0, "other"))),
        (named(), asked, Some((1, 0, 1, 0, "m"))),
        (nothing(), answered(None, other), None),
        (nothing(), get, None),
        (Observed::Unread, asked, Some((1, 0, 1, 0, "asked"))),
        (Observed::Unread, answered(None, other), None),
        (Observed::Nothing, asked, Some((1, 0, 0, 0, "other"))),
        (nothing(), answered(None, PATH), Some((1, 0, 1, 0, "unknown"))),
        (without_model(), asked, Some((1, 10, 0, 0, "asked"))),
        (without_model(), answered(None, PATH), Some((1, 10, 0, 0, "unknown"))),
        (Observed::Nothing, get, None),
    ];
    for (number, (observed, answered, expected)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let one = ledger(folder.path(), &at("2026-12-01T12:00:00Z"));
        one.count(observed, answered);
        let table = one.of_run();
        let seen = table.rows().first().map(|row| {
            let counts = &row.counts;
            let tokens = counts.tokens();
            (counts.requests, tokens, counts.unknown, counts.cut, row.model.as_str())
        });
        assert_eq!(seen, expected, "{number}");
    }
}
