//! The credential of a watched file as the file changes.

use super::*;
use crate::config::CredentialFields;
use crate::regular_file::stamp::Stamp;
use crate::thread;
use crate::token::watched::fault::WATCHED_FILE_MAX_BYTES;
use std::fs;
use std::time::Duration;

/// The stack of a thread that waits.
const STACK_BYTES: usize = 128 * 1024;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// This many milliseconds after the start, by both clocks.
fn at(millis: u64) -> Moment {
    let wall = START.plus_millis(i64::try_from(millis).unwrap());
    Moment { wall, steady_ms: millis }
}

fn claude() -> FileFormat {
    let path = |last: &str| vec!["claudeAiOauth".to_owned(), last.to_owned()];
    FileFormat::Json(CredentialFields {
        access_token: path("accessToken"),
        expires_at: path("expiresAt"),
        expires_at_is_written: false,
        zone: None,
    })
}

fn claude_file(token: &str, expires_at: &str) -> String {
    format!(
        r#"{{"claudeAiOauth":{{"accessToken":"{token}","refreshToken":"r","expiresAt":{expires_at},"scopes":["a"]}}}}"#
    )
}

#[track_caller]
fn sent(watched: &Watched, millis: u64) -> String {
    watched.read(at(millis)).unwrap().secret.expose().to_owned()
}

#[test]
fn a_text_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let watched = Watched::new(&path, FileFormat::Text);
    assert!(watched.read(at(0)).unwrap_err().to_string().contains("can't be read"));
    fs::write(&path, "one\n").unwrap();
    let first = watched.read(at(0)).unwrap();
    assert_eq!((first.secret.expose(), first.generation), ("one", 1));
    assert_eq!(watched.read(at(0)).unwrap(), first);
    fs::write(&path, "\u{feff}another\r\n").unwrap();
    let second = watched.read(at(0)).unwrap();
    assert_eq!((second.secret.expose(), second.generation), ("another", 2));
}

#[test]
fn a_credential_whose_file_is_gone_serves_a_minute_longer_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let utf_16: &[u8] = b"\xff\xfeo\0n\0e\0";
    let breaks: [(&str, &dyn Fn(), &str); 5] = [
        ("removed", &|| fs::remove_file(&path).unwrap(), "can't be read: No such file"),
        ("emptied", &|| fs::write(&path, "").unwrap(), "credential that is empty"),
        ("blank", &|| fs::write(&path, "a b").unwrap(), "no header may hold"),
        ("UTF-16", &|| fs::write(&path, utf_16).unwrap(), "UTF-16"),
        (
            "a folder",
            &|| {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            },
            "is not a file",
        ),
    ];
    for (what, break_it, part) in breaks {
        let watched = Watched::new(&path, FileFormat::Text);
        fs::write(&path, "one").unwrap();
        assert_eq!((sent(&watched, 0).as_str(), watched.warning()), ("one", None));
        break_it();
        assert_eq!(sent(&watched, 1_000), "one", "{what}");
        assert!(watched.warning().unwrap().contains(part), "{what}: {:?}", watched.warning());
        assert_eq!(sent(&watched, 1_000 + GONE_FILE_GRACE_MS - 1), "one", "{what}");
        let why = watched.read(at(1_000 + GONE_FILE_GRACE_MS)).unwrap_err().to_string();
        assert!(why.contains(part), "{what}: {why}");
        // A backward step of the wall clock alone brings nothing back.
        let stepped = Moment { wall: START, ..at(2_000 + GONE_FILE_GRACE_MS) };
        assert!(watched.read(stepped).is_err(), "{what}");
        // It is there again.
        let _ = fs::remove_dir(&path);
        fs::write(&path, "two").unwrap();
        assert_eq!(sent(&watched, 3_000 + GONE_FILE_GRACE_MS), "two", "{what}");
        assert_eq!(watched.warning(), None, "{what}");
    }
}

#[test]
fn a_file_that_is_back_within_the_minute_begins_no_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let watched = Watched::new(&path, FileFormat::Text);
    for round in 0..3 {
        fs::write(&path, "one").unwrap();
        assert_eq!(sent(&watched, round * 50_000), "one");
        fs::remove_file(&path).unwrap();
        assert_eq!(sent(&watched, round * 50_000 + 40_000), "one");
    }
}

#[test]
fn a_file_that_is_written_twice_within_its_times_is_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let watched = Watched::new(&path, FileFormat::Text);
    // The same inode and length, on a disk whose times show both writes as one.
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        if let Some(seen) = watched.last().seen.as_mut() {
            seen.stamp = stamp;
        }
    };
    write("one");
    assert_eq!(sent(&watched, 0), "one");
    write("two");
    assert_eq!(sent(&watched, 900), "two");
    assert_eq!(sent(&watched, 2_000), "two");
    // The file was seen for longer than the times of such writes last.
    write("six");
    assert_eq!(sent(&watched, 2_001), "two");
}

#[test]
fn claude_codes_file_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".credentials.json");
    let watched = Watched::new(&path, claude());
    fs::write(&path, claude_file("a", "1800000000001")).unwrap();
    assert_eq!(sent(&watched, 0), "a");
    let why = watched.read(at(1)).unwrap_err().to_string();
    assert!(why.contains("expired at 2027-01-15T08:00:00.001Z"), "{why}");
    // Its owner refreshes it; half a write does not count as a whole one.
    let whole = claude_file("bb", "\"2027-01-15T09:00:00Z\"");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(sent(&watched, 0), "a");
    fs::write(&path, whole).unwrap();
    let renewed = watched.read(at(1)).unwrap();
    assert_eq!((renewed.secret.expose(), renewed.generation), ("bb", 2));
    fs::write(&path, r#"{"other":1}"#).unwrap();
    let fresh = Watched::new(&path, claude());
    assert!(
        fresh
            .read(at(0))
            .unwrap_err()
            .to_string()
            .ends_with("has no text at 'claudeAiOauth.accessToken'")
    );
}

#[test]
fn an_expiry_that_nobody_understands_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".credentials.json");
    let watched = Watched::new(&path, claude());
    fs::write(&path, claude_file("a", "\"soon\"")).unwrap();
    assert_eq!(sent(&watched, 0), "a");
    let warning = watched.warning().unwrap();
    assert!(warning.contains("holds no known time format"), "{warning}");
    assert!(!warning.contains("soon"), "nothing of the file is said: {warning}");
    fs::write(&path, claude_file("a", "1900000000")).unwrap();
    assert_eq!((sent(&watched, 0).as_str(), watched.warning()), ("a", None));
}

#[test]
fn a_stored_token_serves_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.json");
    let mut saved = crate::record::full();
    saved.begin_with_seed(&Secret::new("seed"));
    saved.access.as_mut().unwrap().expires_at = at(10).wall;
    fs::write(&path, saved.to_json().expose()).unwrap();
    let access = saved.access.unwrap().token;
    let stored = |seed: Option<&str>| {
        let seed = seed.map(Secret::new);
        Watched::new(&path, FileFormat::Stored { seed, client: None })
    };
    for seed in [None, Some("seed")] {
        assert_eq!(stored(seed).read(at(9)).unwrap().secret, access);
        let why = stored(seed).read(at(10)).unwrap_err().to_string();
        assert!(why.contains("enabled is false, so it is not refreshed"), "{why}");
    }
    let why = stored(Some("another")).read(at(9)).unwrap_err().to_string();
    assert!(why.contains("began with another refresh token"), "{why}");
    fs::remove_file(&path).unwrap();
    let why = stored(None).read(at(9)).unwrap_err().to_string();
    assert!(why.contains("no stored token can be used"), "{why}");
}

#[test]
fn a_stored_token_is_followed_to_the_file_that_its_chain_moved_to() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("p.json"), folder.path().join("q.json"));
    let mut saved = crate::record::full();
    saved.begin_with_seed(&Secret::new("seed"));
    saved.access.as_mut().unwrap().expires_at = at(200_000).wall;
    fs::write(&own, saved.to_json().expose()).unwrap();
    let form = FileFormat::Stored { seed: Some(Secret::new("seed")), client: None };
    let watched = Watched::of(&WatchedFile { path: own.clone(), form, missing: None }, None);
    watched.read(at(0)).unwrap();
    fs::rename(&own, &other).unwrap();
    watched.read(at(1)).unwrap();
    // Long after the earlier content would have served.
    watched.read(at(2 * GONE_FILE_GRACE_MS)).unwrap();
    assert_eq!(watched.path(), other);
    fs::rename(&other, &own).unwrap();
    watched.read(at(2 * GONE_FILE_GRACE_MS + 1)).unwrap();
    assert_eq!(watched.path(), own);
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let at_limit = "k".repeat(usize::try_from(WATCHED_FILE_MAX_BYTES).unwrap());
    fs::write(&path, &at_limit).unwrap();
    assert!(Watched::new(&path, FileFormat::Text).read(at(0)).is_ok());
    fs::write(&path, at_limit + "k").unwrap();
    assert!(Watched::new(&path, FileFormat::Text).read(at(0)).is_err());
}

/// A lock was held during the look, so everybody waited who asked for the credential, or for whether there is one.
#[test]
fn while_a_look_hangs_the_known_credential_serves_a_minute_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let watched = Arc::new(Watched::new(&path, FileFormat::Text));
    fs::write(&path, "one").unwrap();
    assert_eq!(sent(&watched, 0), "one");
    fs::write(&path, "two").unwrap();
    let hanging = Watched::begin(&*watched, at(1_000)).unwrap();
    let waited = |millis| {
        let clock = Clock::from_fn(move || at(millis));
        watched.wait(&clock, |_| true).map(|kept| kept.secret.expose().to_owned())
    };
    for millis in [1_000, 999 + SAID_AFTER_MS] {
        assert_eq!((sent(&watched, millis).as_str(), watched.warning()), ("one", None));
        assert_eq!(waited(millis), Ok("one".to_owned()));
    }
    watched.look_aside(0, at(2_000));
    assert!(watched.last().is_looking, "no other thread looks too");
    let end = 1_000 + GONE_FILE_GRACE_MS;
    for millis in [1_000 + SAID_AFTER_MS, end - 1] {
        assert_eq!(waited(millis), Ok("one".to_owned()));
        let warning = watched.warning().unwrap();
        assert!(warning.contains("its disk does not answer; its last"), "{warning}");
    }
    let why = waited(end).unwrap_err().to_string();
    assert!(why.ends_with("can't be read: its disk does not answer"), "{why}");
    // The disk answers again.
    hanging.make(at(end));
    assert_eq!((waited(end), watched.warning()), (Ok("two".to_owned()), None));
}

#[test]
fn who_has_not_enough_waits_for_the_look_of_another_as_for_a_first_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let watched = Arc::new(Watched::new(&path, FileFormat::Text));
    for (generation, text) in [(1, "one"), (2, "two")] {
        fs::write(&path, text).unwrap();
        let look = Watched::begin(&*watched, at(0)).unwrap();
        let of_thread = watched.clone();
        let (tell, told) = crossbeam_channel::bounded(1);
        let wait = move || {
            let clock = Clock::from_fn(|| at(0));
            let kept = of_thread.wait(&clock, |kept| kept.generation >= generation).unwrap();
            tell.send(kept.secret.expose().to_owned()).unwrap();
        };
        let _waiting = thread::spawn("request", STACK_BYTES, wait).unwrap();
        while watched.last().waiting == 0 {
            std::thread::yield_now();
        }
        look.make(at(0));
        assert_eq!(told.recv().unwrap(), text);
    }
    // Nothing was ever read, and the look hangs.
    let silent = Watched::new(&path, FileFormat::Text);
    let _hanging = Watched::begin(&silent, at(0)).unwrap();
    for (millis, words) in
        [(SAID_AFTER_MS - 1, "was not read yet"), (SAID_AFTER_MS, "does not answer")]
    {
        let clock = Clock::from_fn(move || at(millis));
        let why = silent.wait(&clock, |_| true).unwrap_err().to_string();
        assert!(why.ends_with(words), "{why}");
    }
}

#[test]
fn a_thread_of_its_own_looks_for_those_that_must_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let watched = Arc::new(Watched::new(&path, FileFormat::Text));
    let known = |millis| {
        watched.wait_for_look(Duration::from_secs(20), at(millis));
        watched.known(at(millis)).map(|kept| kept.secret.expose().to_owned())
    };
    let why = known(0).unwrap_err().to_string();
    assert!(why.ends_with("was not read yet"), "{why}");
    fs::write(&path, "one").unwrap();
    watched.look_aside(1_000, at(0));
    assert_eq!(known(0), Ok("one".to_owned()));
    fs::write(&path, "other").unwrap();
    watched.look_aside(1_000, at(999));
    assert_eq!(known(999), Ok("one".to_owned()), "the last look was just now");
    watched.look_aside(1_000, at(1_000));
    assert_eq!(known(1_000), Ok("other".to_owned()));
}
