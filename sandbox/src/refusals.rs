//! Refusals of real APIs, by name: a fault of the provider may be one of them.

use serde::Deserialize;
use serde_json::Value;

use crate::faults::Fault;

const TEXT: &str = include_str!("../refusals.yaml");

/// The refusals that the sandbox knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusals {
    /// The documents that they are from.
    pub sources: Vec<String>,
    refusals: serde_json::Map<String, Value>,
}

/// One refusal.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    status: u16,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    #[serde(default)]
    body: Value,
    /// A stream that begins with an error, instead of a body.
    events: Option<String>,
    /// The wait that it asks for, or that used-up credit needs; None leaves it to its reader.
    pub seconds: Option<u64>,
    /// It concerns one model.
    #[serde(default)]
    pub model: bool,
}

impl Refusals {
    /// All of them.
    pub fn all() -> Self {
        serde_yaml::from_str(TEXT).expect("the file that comes with the sandbox is valid")
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.refusals.keys().map(String::as_str)
    }

    /// The refusal called `name`.
    pub fn get(&self, name: &str) -> Option<Refusal> {
        serde_json::from_value(self.refusals.get(name)?.clone()).ok()
    }
}

impl Refusal {
    /// The refusal as a fault, of a request for `model` at the time `now_seconds` since 1970.
    pub fn fault(&self, model: &str, now_seconds: u64) -> Fault {
        let filled = |text: &str| filled(text, model, now_seconds);
        let (kind, body) = match &self.events {
            Some(events) => ("text/event-stream", filled(events)),
            None => ("application/json", filled(&self.body.to_string())),
        };
        let mut headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        for (name, value) in &self.headers {
            headers.push((name.clone(), filled(value.as_str().unwrap_or_default())));
        }
        let (status, body) = (Some(self.status), Some(body.into_bytes()));
        Fault { status, body, headers, ..Fault::default() }
    }
}

/// `text` with the model and the times in place: `{now+5}`, or as a number `"{now+5:number}"`.
fn filled(text: &str, model: &str, now_seconds: u64) -> String {
    let mut text = text.replace("{model}", model);
    while let Some(start) = text.find("{now+") {
        let end = start + text[start..].find('}').expect("the brace is closed") + 1;
        let inner = &text[start + "{now+".len()..end - 1];
        let number = inner.strip_suffix(":number");
        let seconds: u64 = number.unwrap_or(inner).parse().expect("a number of seconds");
        let time = (now_seconds + seconds).to_string();
        let place = if number.is_some() { start - 1..end + 1 } else { start..end };
        text.replace_range(place, &time);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_whole() {
        let all = Refusals::all();
        assert!(!all.sources.is_empty() && all.names().count() > 15);
        for name in all.names() {
            let fault = all.get(name).unwrap_or_else(|| panic!("{name}")).fault("m-1", 100);
            let body = String::from_utf8(fault.body.unwrap()).unwrap();
            assert!(!body.contains("{now") && !body.contains("{model}"), "{name}: {body}");
        }
    }

    #[test]
    fn times_are_filled_in() {
        assert_eq!(
            filled(r#"{"a":"{now+5:number}","b":"{now+6}"}"#, "m", 100),
            r#"{"a":105,"b":"106"}"#
        );
    }
}
