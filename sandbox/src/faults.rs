//! Faults on request: a queue for the token endpoint and one for the provider.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use crate::manners::answer::Answer;

/// One fault. Without a field, that part stays as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The silence before the answer.
    pub stall: Duration,
    /// This status instead of the usual one.
    pub status: Option<u16>,
    /// This body instead of the usual one.
    pub body: Option<Vec<u8>>,
    /// Header fields, which replace the usual answer's fields with those names.
    pub headers: Vec<(String, String)>,
    /// A stream ends after this many events, without its last chunk.
    pub stop_after_events: Option<usize>,
    /// The silence of a stream after its first event.
    pub stall_in_stream: Duration,
    /// The token endpoint does its work before the status above hides it, so the answer is lost.
    pub after_processing: bool,
}

impl Fault {
    /// A fault with `answer` instead of the usual one.
    pub fn of(answer: Answer) -> Self {
        Self {
            status: Some(answer.status),
            body: Some(answer.body),
            headers: answer.headers,
            ..Self::default()
        }
    }

    /// `answer`, changed by this fault.
    pub fn instead_of(self, mut answer: Answer) -> Answer {
        answer.status = self.status.unwrap_or(answer.status);
        answer.body = self.body.unwrap_or(answer.body);
        for (name, value) in self.headers {
            answer.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(&name));
            answer.headers.push((name, value));
        }
        answer
    }
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults {
    token: VecDeque<Fault>,
    provider: VecDeque<Fault>,
}

impl Faults {
    /// The next request to the token endpoint meets `fault`, after earlier faults.
    pub fn at_token(&mut self, fault: Fault) {
        self.token.push_back(fault);
    }

    /// The next request to the provider meets `fault`, after earlier faults.
    pub fn at_provider(&mut self, fault: Fault) {
        self.provider.push_back(fault);
    }

    /// The fault for the next request to the token endpoint.
    pub fn next_at_token(&mut self) -> Option<Fault> {
        self.token.pop_front()
    }

    /// The fault for the next request to the provider.
    pub fn next_at_provider(&mut self) -> Option<Fault> {
        self.provider.pop_front()
    }

    /// Adds the faults in a body of `POST /control/faults`: a list of objects with `at` (`token` or `provider`),
    /// `times`, and the fields of [`Fault`], with durations in `…_ms`.
    pub fn take_up(&mut self, list: &Value) -> Result<usize, String> {
        let list = list.as_array().ok_or("a list of faults is needed")?;
        for entry in list {
            let fault = read(entry)?;
            for _ in 0..entry["times"].as_u64().unwrap_or(1) {
                match entry["at"].as_str() {
                    Some("token") => self.at_token(fault.clone()),
                    Some("provider") => self.at_provider(fault.clone()),
                    _ => return Err("'at' must be token or provider".to_owned()),
                }
            }
        }
        Ok(list.len())
    }
}

fn read(entry: &Value) -> Result<Fault, String> {
    let millis = |key: &str| Duration::from_millis(entry[key].as_u64().unwrap_or(0));
    let status = entry["status"].as_u64().map(u16::try_from).transpose();
    let headers = entry["headers"].as_object().into_iter().flatten();
    Ok(Fault {
        stall: millis("stall_ms"),
        status: status.map_err(|_| "'status' is no status".to_owned())?,
        body: entry["body"].as_str().map(Into::into),
        headers: headers
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
            .collect(),
        stop_after_events: entry["stop_after_events"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok()),
        stall_in_stream: millis("stall_in_stream_ms"),
        after_processing: entry["after_processing"].as_bool().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_taken_up_in_order() {
        let mut faults = Faults::default();
        let list = json!([
            {"at": "token", "status": 503, "times": 2, "headers": {"Retry-After": "7"}},
            {"at": "provider", "stall_ms": 5, "stop_after_events": 1},
        ]);
        assert_eq!(faults.take_up(&list), Ok(2));
        let first = faults.next_at_token().unwrap();
        assert_eq!((first.status, first.headers.len()), (Some(503), 1));
        assert_eq!(faults.next_at_token().unwrap(), first);
        assert_eq!(faults.next_at_token(), None);
        let other = faults.next_at_provider().unwrap();
        assert_eq!((other.stall.as_millis(), other.stop_after_events), (5, Some(1)));
        assert!(faults.take_up(&json!([{"at": "nowhere"}])).is_err());
        assert!(faults.take_up(&json!({})).is_err());
    }
}
