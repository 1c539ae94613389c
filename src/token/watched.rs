//! A credential in a file that another program keeps: read again whenever the file changes, never
//! written, never refreshed.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::token::store::Generation;

/// The largest file that is read.
pub const WATCHED_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The credential and nothing else, but for a line end.
    Text,
    /// JSON, as Claude Code keeps it: where the access token and its expiry stand.
    Json(Fields),
}

/// Paths into a JSON file, a name for each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Of the access token, a text.
    pub access_token: Vec<String>,
    /// Of its expiry: seconds or milliseconds since 1970, or RFC 3339. A token without one is sent
    /// until it is refused.
    pub expires_at: Vec<String>,
}

/// A credential as the file has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What is sent.
    pub secret: Secret,
    /// When it must not be sent any more.
    pub expires_at: Option<Timestamp>,
    /// Rises with each change of the file.
    pub generation: Generation,
}

/// A watched file.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    form: Form,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    stamp: Option<Stamp>,
    kept: Option<Kept>,
    generation: Generation,
}

/// What tells one state of the file from another.
type Stamp = (u64, u64, i64, i64, i64);

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec())
}

impl Watched {
    /// Watches `path`.
    pub fn new(path: impl Into<PathBuf>, form: Form) -> Self {
        Self { path: path.into(), form, last: Mutex::default() }
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Every change of it is complete in itself.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credential at `now`; the error says why there is none, and holds nothing of the file. A
    /// file that is just being written, or is gone for a moment, leaves what was read before.
    pub fn read(&self, now: Timestamp) -> Result<Kept, String> {
        let mut last = self.last();
        let outcome = self.look(&mut last);
        let kept = match (outcome, &last.kept) {
            (Ok(()) | Err(_), Some(kept)) => kept.clone(),
            (Err(why), None) => return Err(format!("{} {why}", self.path.display())),
            (Ok(()), None) => return Err(format!("{} holds no credential", self.path.display())),
        };
        match kept.expires_at {
            Some(at) if at <= now => Err(format!(
                "the token in {} expired at {at}; the program that keeps this file has to refresh it",
                self.path.display()
            )),
            _ => Ok(kept),
        }
    }

    /// Reads the file if it is not the one that was read last.
    fn look(&self, last: &mut Last) -> Result<(), String> {
        let metadata =
            fs::metadata(&self.path).map_err(|error| format!("can't be read: {error}"))?;
        let stamp = stamp(&metadata);
        if last.stamp == Some(stamp) {
            return Ok(());
        }
        if !metadata.is_file() || metadata.len() > WATCHED_FILE_MAX_BYTES {
            return Err(format!("is no file of at most {WATCHED_FILE_MAX_BYTES} bytes"));
        }
        let text =
            fs::read_to_string(&self.path).map_err(|error| format!("can't be read: {error}"))?;
        let (secret, expires_at) = parse(&text, &self.form)?;
        last.stamp = Some(stamp);
        if last
            .kept
            .as_ref()
            .is_none_or(|kept| kept.secret != secret || kept.expires_at != expires_at)
        {
            last.generation += 1;
            last.kept = Some(Kept { secret, expires_at, generation: last.generation });
        }
        Ok(())
    }
}

/// The credential in `text`, and its expiry.
fn parse(text: &str, form: &Form) -> Result<(Secret, Option<Timestamp>), String> {
    let (secret, expires_at) = match form {
        Form::Text => (text.trim_end_matches(['\r', '\n']).to_owned(), None),
        Form::Json(fields) => {
            // The error's own words may quote the text, which holds tokens.
            let json: Value = serde_json::from_str(text).map_err(|_| "holds no JSON".to_owned())?;
            let token = at(&json, &fields.access_token).and_then(Value::as_str);
            let token = token
                .ok_or_else(|| format!("has no text at '{}'", fields.access_token.join(".")))?;
            (token.to_owned(), at(&json, &fields.expires_at).and_then(timestamp))
        }
    };
    let plain = secret.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if secret.is_empty() || !plain {
        return Err("holds a credential that is empty, or with bytes no header may hold".to_owned());
    }
    Ok((Secret::new(secret), expires_at))
}

fn at<'a>(json: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(json, |value, name| value.get(name))
}

/// Seconds or milliseconds since 1970, as a number or a text, or RFC 3339.
fn timestamp(value: &Value) -> Option<Timestamp> {
    /// Up to here a number is taken for seconds: the year 5138; as milliseconds, 1973.
    const SECONDS_MAX: i64 = 100_000_000_000;
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    match number {
        Some(number) if number <= SECONDS_MAX => Some(Timestamp::from_secs(number)),
        Some(number) => Some(Timestamp::from_millis(number)),
        None => Timestamp::parse_rfc3339(value.as_str()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn claude() -> Form {
        let path = |last: &str| vec!["claudeAiOauth".to_owned(), last.to_owned()];
        Form::Json(Fields { access_token: path("accessToken"), expires_at: path("expiresAt") })
    }

    fn claude_file(token: &str, expires_at: &str) -> String {
        format!(
            r#"{{"claudeAiOauth":{{"accessToken":"{token}","refreshToken":"r","expiresAt":{expires_at},"scopes":["a"]}}}}"#
        )
    }

    #[test]
    fn a_text_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let watched = Watched::new(&path, Form::Text);
        assert!(watched.read(NOW).unwrap_err().contains("can't be read"));
        fs::write(&path, "one\n").unwrap();
        let first = watched.read(NOW).unwrap();
        assert_eq!((first.secret.expose(), first.generation), ("one", 1));
        assert_eq!(watched.read(NOW).unwrap(), first);
        fs::write(&path, "another\n").unwrap();
        assert_eq!(watched.read(NOW).unwrap().generation, 2);
        for odd in ["", "a b", "x\u{7}"] {
            fs::write(&path, odd).unwrap();
            assert_eq!(
                watched.read(NOW).unwrap().secret.expose(),
                "another",
                "{odd:?} is no credential"
            );
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.read(NOW).unwrap().secret.expose(), "another", "gone for a moment");
    }

    #[test]
    fn claude_codes_file_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".credentials.json");
        let watched = Watched::new(&path, claude());
        fs::write(&path, claude_file("a", "1800000000001")).unwrap();
        assert_eq!(watched.read(NOW).unwrap().secret.expose(), "a");
        let why = watched.read(NOW.plus_millis(1)).unwrap_err();
        assert!(why.contains("expired at 2027-01-15T08:00:00.001Z"), "{why}");
        // Its owner refreshes it; half of the write is not taken for all of it.
        let whole = claude_file("bb", "\"2027-01-15T09:00:00Z\"");
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(watched.read(NOW).unwrap().secret.expose(), "a");
        fs::write(&path, whole).unwrap();
        let renewed = watched.read(NOW.plus_millis(1)).unwrap();
        assert_eq!((renewed.secret.expose(), renewed.generation), ("bb", 2));
        fs::write(&path, r#"{"other":1}"#).unwrap();
        let fresh = Watched::new(&path, claude());
        assert!(
            fresh.read(NOW).unwrap_err().ends_with("has no text at 'claudeAiOauth.accessToken'")
        );
    }

    #[test]
    fn expiries_in_every_form() {
        let cases = [
            ("1800000000", Some(1_800_000_000_000)),
            ("1800000000123", Some(1_800_000_000_123)),
            ("\"1800000000\"", Some(1_800_000_000_000)),
            ("\"2027-01-15T08:00:00Z\"", Some(1_800_000_000_000)),
            ("null", None),
            ("\"soon\"", None),
        ];
        for (text, expected) in cases {
            let (_, expires_at) = parse(&claude_file("a", text), &claude()).unwrap();
            assert_eq!(expires_at.map(Timestamp::as_millis), expected, "{text}");
        }
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let at_limit = "k".repeat(usize::try_from(WATCHED_FILE_MAX_BYTES).unwrap());
        fs::write(&path, &at_limit).unwrap();
        assert!(Watched::new(&path, Form::Text).read(NOW).is_ok());
        fs::write(&path, at_limit + "k").unwrap();
        assert!(Watched::new(&path, Form::Text).read(NOW).is_err());
    }
}
