//! The credential of a watched file as the file changes.

use super::*;
use crate::config::CredentialFields;

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
