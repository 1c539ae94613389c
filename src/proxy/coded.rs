//! Request bodies that hide their model: compressed ones are inflated for it, and what can't be read is said.
//! Only requests that `model_routes` decides about come here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::warn;

use crate::clock::Stopwatch;
use crate::inflate::{self, NotWhole};
use crate::message::RequestHead;
use crate::proxy::body::{TakenBody, is_object};
use crate::proxy::held::BEYOND_MAX;
use crate::proxy::model;

/// How often each reason is said.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// How much of a client's text is shown.
const SHOWN_MAX_CHARS: usize = 40;

/// Why the model of a body is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// Its encoding is none that is decoded here.
    Coding,
    /// It is not what its encoding says, or is cut.
    Broken,
    /// It is too large once it is inflated.
    Inflated,
    /// It is compressed and too large to be held.
    Streamed,
    /// It is too large, and the model does not stand at its start.
    Late,
}

impl TakenBody {
    /// The body with its model readable, where that can be; it is sent as it came unless the model is renamed.
    /// A request with the body as it is goes on where it can't, and the log says why.
    #[must_use]
    pub fn looked_into(self, head: &RequestHead, held_max: u64) -> Self {
        let mut codings = head.headers.all("content-encoding");
        let coding = codings.next().filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        let is_known = codings.next().is_none() && coding.is_some_and(is_known);
        match self {
            Self::Held(sent) if coding.is_some() && !is_object(&sent) => {
                let most = usize::try_from(held_max).unwrap_or(usize::MAX);
                let why = match inflate::whole(&sent, most) {
                    _ if !is_known => Unread::Coding,
                    Ok(plain) => return Self::Coded { sent, plain },
                    Err(NotWhole::Broken) => Unread::Broken,
                    Err(NotWhole::TooLarge) => Unread::Inflated,
                };
                say(why, head, coding.unwrap_or_default(), held_max);
                Self::Held(sent)
            }
            Self::Streamed(length, start) => {
                match coding {
                    Some(coding) => say(Unread::Streamed, head, coding, held_max),
                    None if is_object(&start) && model::find(&start).is_none() => {
                        say(Unread::Late, head, b"", held_max);
                    }
                    None => {}
                }
                Self::Streamed(length, start)
            }
            other => other,
        }
    }
}

/// Whether a body of this encoding is looked into.
fn is_known(coding: &[u8]) -> bool {
    ["gzip", "x-gzip", "zstd"].iter().any(|one| coding.eq_ignore_ascii_case(one.as_bytes()))
}

fn say(why: Unread, head: &RequestHead, coding: &[u8], held_max: u64) {
    static SAID: [Mutex<Option<Stopwatch>>; 5] = [const { Mutex::new(None) }; 5];
    let mut said = SAID[why as usize].lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
        *said = Some(Stopwatch::start());
        let path = head.path();
        let why = explain(why, coding, held_max);
        warn!("A request for {path} is routed as one that names no model: {why}");
    }
}

fn explain(why: Unread, coding: &[u8], held_max: u64) -> String {
    let coding: String = String::from_utf8_lossy(coding).chars().take(SHOWN_MAX_CHARS).collect();
    match why {
        Unread::Coding => format!(
            "its body is encoded as '{coding}'. Only gzip and zstd are looked into, one at a time"
        ),
        Unread::Broken => format!(
            "its body is not '{coding}' as it says, or is cut, or its zstd window is over 8 MiB"
        ),
        Unread::Inflated => format!(
            "its body, encoded as '{coding}', is larger than settings.replay_body_bytes \
             ({held_max}) once it is inflated"
        ),
        Unread::Streamed => format!(
            "its body is encoded as '{coding}' and larger than settings.replay_body_bytes \
             ({held_max})"
        ),
        Unread::Late => format!(
            "its body is larger than settings.replay_body_bytes ({held_max}), its model does not stand in this \
             first part, and {BEYOND_MAX} larger bodies are held already"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflate::tests::gzip;
    use crate::message::{BodyLength, Headers, Version};
    use crate::proxy::held::HeldBytes;

    const PLAIN: &[u8] = br#"{"model":"old","x":1}"#;

    fn head(codings: &[&str]) -> RequestHead {
        let mut headers = Headers::new();
        for coding in codings {
            headers.push("Content-Encoding", *coding);
        }
        RequestHead {
            method: "POST".into(),
            target: "/v1/messages".into(),
            version: Version::Http11,
            host: None,
            headers,
            body: BodyLength::Sized(1),
        }
    }

    fn held(bytes: &[u8]) -> TakenBody {
        TakenBody::Held(HeldBytes::joined(&[bytes]).unwrap())
    }

    #[test]
    fn what_is_looked_into_and_what_is_not() {
        let packed = gzip(PLAIN);
        let zstd = include_bytes!("../../tests/data/zstd/level-3.zst").as_slice();
        let cases: [(&[&str], &[u8], Option<&str>); 12] = [
            (&["gzip"], &packed, Some("old")),
            (&["X-GZIP"], &packed, Some("old")),
            (&["zstd"], zstd, Some("claude-x")),
            // What the bytes are counts, as long as it is one of the two.
            (&["gzip"], zstd, Some("claude-x")),
            (&["zstd"], &packed, Some("old")),
            (&["gzip"], PLAIN, Some("old")),
            (&["identity"], PLAIN, Some("old")),
            (&["gzip, gzip"], &packed, None),
            (&["gzip", "gzip"], &packed, None),
            (&["br"], b"\x0b\x02\x80abc\x03", None),
            (&["gzip"], &packed[..15], None),
            (&[], &packed, None),
        ];
        for (codings, bytes, expected) in cases {
            let body = held(bytes).looked_into(&head(codings), 10_000);
            let model = body.model();
            assert_eq!(model.map(|one| one.name).as_deref(), expected, "{codings:?}");
            assert!(body.is_held());
        }
        // The bound, on both sides.
        let most = PLAIN.len() as u64;
        assert!(held(&packed).looked_into(&head(&["gzip"]), most).model().is_some());
        assert!(held(&packed).looked_into(&head(&["gzip"]), most - 1).model().is_none());
    }

    #[test]
    fn a_renamed_body_is_plain() {
        let body = held(&gzip(PLAIN)).looked_into(&head(&["gzip"]), 10_000);
        let field = body.model().unwrap();
        let TakenBody::Recoded(bytes) = body.renamed(&field, "new") else { panic!() };
        assert_eq!(&*bytes, br#"{"model":"new","x":1}"#);
    }

    #[test]
    fn each_reason_says_what_to_do_and_shows_no_more_than_a_part_of_a_client_s_text() {
        for why in [Unread::Coding, Unread::Broken, Unread::Inflated, Unread::Streamed] {
            let text = explain(why, "x".repeat(99).as_bytes(), 5);
            assert!(text.contains(&format!("'{}'", "x".repeat(SHOWN_MAX_CHARS))), "{text}");
        }
        assert!(explain(Unread::Late, b"", 5).contains("settings.replay_body_bytes (5)"));
    }
}
