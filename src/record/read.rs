//! Reads the text of a state file, in which optional fields may be missing or wrong. Pure.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::json;
use crate::record::saved::{FORMAT, Saved, SavedAccess};
use crate::secret::Secret;

/// The assumed refresh lead of a token whose file names no time for its refresh.
const LEAD_ASSUMED_MS: i64 = 300_000;

/// The content of a state file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Salvaged {
    /// The readable fields.
    pub saved: Saved,
    /// The format number in the file.
    pub format: u64,
    /// The fields that are there but make no sense.
    pub unread: Vec<&'static str>,
    /// Hash of the file of a newer format beside which this one stands.
    pub beside: Option<String>,
}

impl Salvaged {
    /// True if this version does not know the file's format.
    pub(crate) fn is_newer(&self) -> bool {
        self.format > FORMAT
    }
}

/// The reason why a text is not a usable record. Holds none of the text, which contains tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// It is not JSON: line, column, and kind of the parser's error.
    #[error("line {0}, column {1}: {2:?} error")]
    Json(usize, usize, Category),
    /// It is nested too deep to be a state file.
    #[error("it is nested more than {} deep", json::DEPTH_MAX)]
    TooDeep,
    /// It is JSON, but not an object.
    #[error("it is not a JSON object")]
    NoObject,
    /// It has no field of a state file.
    #[error("it holds nothing of a state file")]
    Empty,
    /// This required field makes no sense.
    #[error("its {} makes no sense", if *.0 == "refresh_token" { "refresh token" } else { .0 })]
    Field(&'static str),
    /// It has this format, of a newer version.
    #[error("format {0} is not known to this version")]
    NewerFormat(u64),
}

/// Reads the readable fields. The error is the reason why there are none.
pub(crate) fn salvage(text: &str) -> Result<Salvaged, BadRecord> {
    // The parser's own words may quote the text.
    let no_json =
        |error: serde_json::Error| BadRecord::Json(error.line(), error.column(), error.classify());
    let text = text.trim_start_matches('\u{feff}').as_bytes();
    if json::is_too_deep(text) {
        return Err(BadRecord::TooDeep);
    }
    let value = json::read(text).map_err(no_json)?;
    let Value::Object(object) = value else { return Err(BadRecord::NoObject) };
    let mut fields = Fields { object, unread: Vec::new() };
    let (format, beside) = (fields.take("format"), fields.take("beside"));
    let saved = fields.saved();
    if fields.unread.contains(&"refresh_token") {
        return Err(BadRecord::Field("refresh_token"));
    }
    let holds_something =
        saved.refresh_token.is_some() || saved.access.is_some() || format.is_some();
    if !holds_something {
        return Err(BadRecord::Empty);
    }
    Ok(Salvaged { saved, format: format.unwrap_or(FORMAT), unread: fields.unread, beside })
}

/// Reads a text that must be complete and of this format.
pub fn parse(text: &str) -> Result<Saved, BadRecord> {
    let read = salvage(text)?;
    if read.is_newer() {
        return Err(BadRecord::NewerFormat(read.format));
    }
    match read.unread.first() {
        Some(field) => Err(BadRecord::Field(field)),
        None => Ok(read.saved),
    }
}

/// The members of an object that were not taken yet, and those that made no sense.
struct Fields {
    object: Map<String, Value>,
    unread: Vec<&'static str>,
}

impl Fields {
    fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.object.remove(name).filter(|value| !value.is_null())?;
        let read = serde_json::from_value(value);
        if read.is_err() {
            self.unread.push(name);
        }
        read.ok()
    }

    fn saved(&mut self) -> Saved {
        let saved_at: Timestamp = self.take("saved_at").unwrap_or_default();
        let mut saved = Saved {
            revision: self.take("revision").unwrap_or(0),
            fence: self.take("fence").unwrap_or(0),
            saved_at,
            seed_hash: self.take("seed_hash"),
            login_hash: self.take("login_hash"),
            logged_out_at: self.take("logged_out_at"),
            granted_scope: self.take("granted_scope"),
            superseded_seeds: self.take("superseded_seeds").unwrap_or_default(),
            configured_seed: self.take("configured_seed"),
            client: self.take("client"),
            store_offset_ms: self.take("store_offset_ms"),
            refresh_token: self.take("refresh_token").and_then(filled),
            refresh_end: self.take("refresh_end"),
            access: self.access(saved_at),
            pending: self.take("pending"),
            failure: self.take("failure"),
        };
        let of_origin = ["seed_hash", "login_hash", "superseded_seeds"];
        if of_origin.iter().any(|name| self.unread.contains(name)) {
            // Half of the chain's beginning could make a used seed look new.
            (saved.seed_hash, saved.login_hash) = (None, None);
            saved.superseded_seeds.clear();
        }
        saved
    }

    fn access(&mut self, saved_at: Timestamp) -> Option<SavedAccess> {
        let object = self.take("access")?;
        let mut fields = Self { object, unread: Vec::new() };
        let access = fields.access_token(saved_at);
        if access.is_none() {
            self.unread.push("access");
        }
        access
    }

    /// An access token's text and expiry are required.
    fn access_token(&mut self, saved_at: Timestamp) -> Option<SavedAccess> {
        let token = self.take("token").and_then(filled)?;
        let expires_at: Timestamp = self.take("expires_at")?;
        let refresh_at = self.take("refresh_at");
        Some(SavedAccess {
            token,
            obtained_at: self.take("obtained_at").unwrap_or(saved_at),
            expires_at,
            refresh_at: refresh_at.unwrap_or(expires_at.plus_millis(-LEAD_ASSUMED_MS)),
            rejections: self.take("rejections").unwrap_or(0),
        })
    }
}

fn filled(text: String) -> Option<Secret> {
    Some(text).filter(|text| !text.is_empty()).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::saved::tests::full;

    fn json() -> Map<String, Value> {
        serde_json::from_str(full().to_json().expose()).unwrap()
    }

    fn of(object: Map<String, Value>) -> Result<Salvaged, BadRecord> {
        salvage(&Value::Object(object).to_string())
    }

    #[test]
    fn a_whole_file_is_read_and_so_is_one_with_more_in_it_or_a_byte_order_mark() {
        let whole = Salvaged { saved: full(), format: FORMAT, unread: Vec::new(), beside: None };
        let mut more = json();
        more.insert("since_then".into(), serde_json::json!({"a": [1]}));
        assert_eq!(of(more), Ok(whole.clone()));
        assert_eq!(salvage(&format!("\u{feff}{}", full().to_json().expose())), Ok(whole));
    }

    #[test]
    fn each_field_but_the_refresh_token_can_be_done_without() {
        let names: Vec<String> = json().keys().cloned().collect();
        assert_eq!(names.len(), 17, "{names:?}");
        for name in names {
            for wrong in [None, Some(Value::Null), Some(serde_json::json!([{"x": true}]))] {
                let mut object = json();
                match &wrong {
                    Some(wrong) => object.insert(name.clone(), wrong.clone()),
                    None => object.remove(&name),
                };
                let makes_no_sense = wrong.is_some_and(|wrong| !wrong.is_null());
                let read = of(object);
                if name == "refresh_token" {
                    assert_eq!(read.is_err(), makes_no_sense, "{read:?}");
                    continue;
                }
                let read = read.unwrap();
                assert_eq!(read.saved.refresh_token, full().refresh_token, "{name}");
                assert_eq!(read.unread.len(), usize::from(makes_no_sense), "{name}");
                assert!(!read.is_newer());
            }
        }
    }

    #[test]
    fn what_an_access_token_can_be_done_without() {
        let without = |name: &str| {
            let mut object = json();
            object["access"].as_object_mut().unwrap().remove(name);
            of(object).unwrap().saved.access
        };
        let whole = full().access.unwrap();
        assert_eq!((without("token"), without("expires_at")), (None, None));
        assert_eq!(
            without("obtained_at").unwrap(),
            SavedAccess { obtained_at: full().saved_at, ..whole.clone() }
        );
        let refresh_at = whole.expires_at.plus_millis(-300_000);
        assert_eq!(without("refresh_at").unwrap(), SavedAccess { refresh_at, ..whole });
    }

    #[test]
    fn half_of_what_a_chain_began_with_makes_no_spent_seed_look_new() {
        for name in ["seed_hash", "login_hash", "superseded_seeds"] {
            let mut object = json();
            object.insert(name.into(), 7.into());
            let read = of(object).unwrap();
            assert!(read.saved.may_know_seed("any"), "{name}: the chain's own token comes first");
        }
        assert!(!full().may_know_seed("any"));
    }

    #[test]
    fn a_newer_format_is_told_and_what_is_no_state_file_is_refused() {
        for (format, is_newer) in [(1, false), (2, true), (u64::MAX, true), (0, false)] {
            let mut object = json();
            object.insert("format".into(), format.into());
            assert_eq!(of(object).unwrap().is_newer(), is_newer, "{format}");
        }
        for text in ["", "{}", "[1]", "7", "null", "{\"refresh_token\":\"\"}", "{\"a\":1}"] {
            assert!(salvage(text).is_err(), "{text}");
        }
        assert!(salvage("{\"refresh_token\":\"r\"}").is_ok());
    }

    #[test]
    fn every_truncation_is_refused_and_quotes_nothing() {
        let text = full().to_json();
        let text = text.expose();
        for end in 0..text.len() - 1 {
            let error = parse(&text[..end]).unwrap_err().to_string();
            assert!(!error.contains("rt"), "{error}");
        }
        let error = parse(&text.replace("\"rt\"", "[\"rt\"]")).unwrap_err();
        assert_eq!(error.to_string(), "its refresh token makes no sense");
        assert!(parse(&text.replace("\"format\": 1", "\"format\": 2")).is_err());
    }
}
