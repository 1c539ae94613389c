//! Request bodies with a hidden model or conversation: compressed ones are inflated for it, and unreadable ones cause a
//! warning if the model decides. Only requests that depend on `model_routes` or on their conversation come here.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::warn;

use crate::clock::Stopwatch;
use crate::config::Limits;
use crate::http::inflate::{self, End};
use crate::http::message::RequestHead;
use crate::http::refusal::Refusal;
use crate::ingress::Request;
use crate::proxy::body::{TakenBody, is_object};
use crate::proxy::choice::Candidate;
use crate::proxy::held::{BEYOND_MAX, HeldBytes, Permit};
use crate::proxy::model;
use crate::proxy::outcome::Stop;

/// The time between two warnings with one reason.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// The longest part of a client's text that is shown.
const SHOWN_MAX_CHARS: usize = 40;

/// The reason why a body can't be read far enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// evertoken does not decode its encoding.
    Coding,
    /// It does not match its encoding, or is cut.
    Broken,
    /// Its inflated size exceeds the limit.
    Inflated,
    /// It is compressed and large, and enough large bodies are held.
    Crowded,
    /// It is large, its model is not at its start, and enough large bodies are held.
    Late,
}

/// The task that an unreadable body prevents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undone {
    /// Routing it by its model.
    Routing,
    /// Renaming its model.
    Renaming,
}

/// The request's body with its model readable, if possible, and its candidates: the result of `serving` for its
/// model.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn by_model<'p, P>(
    limits: &Limits,
    request: &mut Request<'_>,
    body: TakenBody,
    serving: impl Fn(Option<&str>) -> Result<Vec<Candidate<'p, P>>, Refusal>,
) -> Result<(TakenBody, Vec<Candidate<'p, P>>), Stop> {
    let mut reader = BodyReader { head: request.head, rest: &mut *request.body, limits };
    let body = reader.look_into(body).map_err(Stop::of_body)?;
    let candidates = serving(body.model().as_ref().map(|one| one.name.as_str()))?;
    if candidates.iter().all(|one| one.model.is_none()) {
        return Ok((body, candidates));
    }
    Ok((reader.for_renaming(body).map_err(Stop::of_body)?, candidates))
}

/// The start of the request's body as far as it is at hand, inflated up to `replay_body_bytes`; None without a body.
pub(super) fn readable<'b>(
    limits: &Limits,
    head: &RequestHead,
    body: &'b TakenBody,
) -> Option<Cow<'b, [u8]>> {
    let bytes = match body.sent() {
        TakenBody::Held(bytes) | TakenBody::Recoded(bytes) => &**bytes,
        TakenBody::Coded { plain, .. } => plain,
        TakenBody::Streamed(_, start) => start,
        TakenBody::Absent | TakenBody::Glimpsed { .. } => return None,
    };
    if is_object(bytes) || !head.headers.contains("content-encoding") {
        return Some(Cow::Borrowed(bytes));
    }
    let most = usize::try_from(limits.replay_body_bytes).unwrap_or(usize::MAX);
    inflate::beginning(bytes, most).map(|(plain, _)| Cow::Owned(plain))
}

/// Reads the body of one request.
struct BodyReader<'a> {
    head: &'a RequestHead,
    /// The unread part of the body.
    rest: &'a mut dyn Read,
    limits: &'a Limits,
}

/// A body that is inflated whole, or the unchanged body and the reason.
type Unpacked = Result<TakenBody, (Unread, TakenBody)>;

impl BodyReader<'_> {
    /// The body with its model readable, if possible; it is sent as it came unless the model is renamed. Otherwise
    /// the request continues with the unchanged body, and the log gives the reason.
    fn look_into(&mut self, body: TakenBody) -> io::Result<TakenBody> {
        let (start, is_whole) = match &body {
            TakenBody::Held(bytes) => (&**bytes, true),
            TakenBody::Streamed(_, start) => (start.as_slice(), false),
            _ => return Ok(body),
        };
        let Some(coding) = self.coding().filter(|_| !is_object(start)) else {
            if !is_whole && is_object(start) && model::find(start).is_none() {
                self.say(Undone::Routing, Unread::Late);
            }
            return Ok(body);
        };
        if !is_known(coding) || self.head.headers.all("content-encoding").nth(1).is_some() {
            self.say(Undone::Routing, Unread::Coding);
            return Ok(body);
        }
        // It is not yet known whether a start this short is compressed.
        let is_short = !is_whole && start.len() < inflate::MARK_BYTES;
        let most = usize::try_from(self.limits.replay_body_bytes).unwrap_or(usize::MAX);
        let found = inflate::beginning(start, most);
        match (body, found) {
            (TakenBody::Held(sent), Some((plain, End::Whole))) => {
                Ok(TakenBody::Coded { sent, plain, permit: None })
            }
            (body, Some((plain, end))) if end == End::Over || !is_whole => {
                if let Some(model) = model::find(&plain) {
                    return Ok(TakenBody::Glimpsed { sent: Box::new(body), model });
                }
                if plain.is_empty() || is_object(&plain) {
                    drop(plain);
                    return self.unpacked_for_routing(body);
                }
                Ok(body)
            }
            (body, None) if is_short => self.unpacked_for_routing(body),
            (body, _) => {
                self.say(Undone::Routing, Unread::Broken);
                Ok(body)
            }
        }
    }

    /// The body for a route that renames the model: a partly inflated one is inflated whole.
    fn for_renaming(&mut self, body: TakenBody) -> io::Result<TakenBody> {
        let TakenBody::Glimpsed { sent, model } = body else { return Ok(body) };
        Ok(match self.unpacked(*sent)? {
            Ok(body) => body,
            Err((why, sent)) => {
                self.say(Undone::Renaming, why);
                TakenBody::Glimpsed { sent: Box::new(sent), model }
            }
        })
    }

    fn unpacked_for_routing(&mut self, body: TakenBody) -> io::Result<TakenBody> {
        Ok(self.unpacked(body)?.unwrap_or_else(|(why, body)| {
            self.say(Undone::Routing, why);
            body
        }))
    }

    /// The compressed `body`, held and inflated whole up to `max_body_bytes`.
    fn unpacked(&mut self, body: TakenBody) -> io::Result<Unpacked> {
        let sent = match body {
            TakenBody::Held(sent) => sent,
            TakenBody::Streamed(length, mut start) => match self.hold(length, &mut start)? {
                Some(sent) => sent,
                None => return Ok(Err((Unread::Crowded, TakenBody::Streamed(length, start)))),
            },
            other => return Ok(Ok(other)),
        };
        let is_counted = matches!(sent, HeldBytes::Beyond(..));
        let permit = if is_counted { None } else { Permit::beyond() };
        if permit.is_none() && !is_counted {
            return Ok(Err((Unread::Crowded, TakenBody::Held(sent))));
        }
        let most = usize::try_from(self.limits.max_body_bytes).unwrap_or(usize::MAX);
        Ok(match inflate::beginning(&sent, most) {
            Some((plain, End::Whole)) => Ok(TakenBody::Coded { sent, plain, permit }),
            Some((_, End::Over)) => Err((Unread::Inflated, TakenBody::Held(sent))),
            _ => Err((Unread::Broken, TakenBody::Held(sent))),
        })
    }

    /// A streamed body, held whole; None if enough large bodies are held.
    fn hold(&mut self, length: Option<u64>, start: &mut Vec<u8>) -> io::Result<Option<HeldBytes>> {
        let Some(length) = length else {
            return HeldBytes::beyond_of_any_length(start, self.rest);
        };
        let length = usize::try_from(length).map_err(|_| ErrorKind::OutOfMemory)?;
        HeldBytes::beyond(start, length, self.rest)
    }

    /// The body's encoding: the first coding named, if it has a meaning.
    fn coding(&self) -> Option<&[u8]> {
        let mut codings = self.head.headers.all("content-encoding");
        codings.next().filter(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    }

    fn say(&self, undone: Undone, why: Unread) {
        static SAID: [[Mutex<Option<Stopwatch>>; 5]; 2] =
            [const { [const { Mutex::new(None) }; 5] }; 2];
        let said = &SAID[undone as usize][why as usize];
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            *said = Some(Stopwatch::start());
            let path = self.head.path();
            let outcome = match undone {
                Undone::Routing => "is routed as one that names no model",
                Undone::Renaming => {
                    "is sent with the model that it names, though its route renames that"
                }
            };
            let why = explain(why, self.coding().unwrap_or_default(), self.limits);
            warn!("A request for {path} {outcome}: {why}");
        }
    }
}

/// True if bodies with this encoding are inflated.
fn is_known(coding: &[u8]) -> bool {
    ["gzip", "x-gzip", "zstd"].iter().any(|one| coding.eq_ignore_ascii_case(one.as_bytes()))
}

fn explain(why: Unread, coding: &[u8], limits: &Limits) -> String {
    let coding: String = String::from_utf8_lossy(coding).chars().take(SHOWN_MAX_CHARS).collect();
    let Limits { max_body_bytes, replay_body_bytes, .. } = limits;
    match why {
        Unread::Coding => format!(
            "its body is encoded as '{coding}'. Only gzip and zstd are looked into, one at a time"
        ),
        Unread::Broken => format!(
            "its body is not '{coding}' as it says, or is cut, or its zstd window is over 8 MiB"
        ),
        Unread::Inflated => format!(
            "its body, encoded as '{coding}', is larger than settings.max_body_bytes \
             ({max_body_bytes}) once it is inflated"
        ),
        Unread::Crowded => format!(
            "its body, encoded as '{coding}', is larger than settings.replay_body_bytes ({replay_body_bytes}) once it \
             is inflated, and {BEYOND_MAX} larger bodies are held already"
        ),
        Unread::Late => format!(
            "its body is larger than settings.replay_body_bytes ({replay_body_bytes}), its model does not stand in \
             this first part, and {BEYOND_MAX} larger bodies are held already"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::inflate::tests::gzip;
    use crate::http::message::{BodyLength, Headers, Version};
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

    fn limits(replay_body_bytes: u64, max_body_bytes: u64) -> Limits {
        Limits {
            max_connections: 1,
            max_connections_per_address: 1,
            max_body_bytes,
            replay_body_bytes,
            connect: Duration::ZERO,
            response: Duration::ZERO,
            idle: Duration::ZERO,
            client_head: Duration::ZERO,
            client_idle: Duration::ZERO,
        }
    }

    fn held(bytes: &[u8]) -> TakenBody {
        TakenBody::Held(HeldBytes::joined(&[bytes]).unwrap())
    }

    fn looked(codings: &[&str], body: TakenBody, mut rest: &[u8], limits: &Limits) -> TakenBody {
        let head = head(codings);
        BodyReader { head: &head, rest: &mut rest, limits }.look_into(body).unwrap()
    }

    /// The same, also prepared for a rename.
    fn readied(codings: &[&str], body: TakenBody, mut rest: &[u8], limits: &Limits) -> TakenBody {
        let head = head(codings);
        let mut reader = BodyReader { head: &head, rest: &mut rest, limits };
        let body = reader.look_into(body).unwrap();
        reader.for_renaming(body).unwrap()
    }

    fn name(body: &TakenBody) -> Option<String> {
        body.model().map(|one| one.name)
    }

    #[test]
    fn what_is_looked_into_and_what_is_not() {
        let packed = gzip(PLAIN);
        let zstd = include_bytes!("../../tests/data/zstd/level-3.zst").as_slice();
        let cases: [(&[&str], &[u8], Option<&str>); 12] = [
            (&["gzip"], &packed, Some("old")),
            (&["X-GZIP"], &packed, Some("old")),
            (&["zstd"], zstd, Some("claude-x")),
            // The bytes decide, as long as the coding is one of the two.
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
            let body = looked(codings, held(bytes), b"", &limits(10_000, 10_000));
            assert_eq!(name(&body).as_deref(), expected, "{codings:?}");
            assert!(body.is_held());
        }
    }

    #[test]
    fn a_renamed_body_is_plain() {
        let body = readied(&["gzip"], held(&gzip(PLAIN)), b"", &limits(10_000, 10_000));
        let field = body.model().unwrap();
        let Some(TakenBody::Recoded(bytes)) = body.renamed(&field, "new") else { panic!() };
        assert_eq!(&*bytes, br#"{"model":"new","x":1}"#);
    }

    #[test]
    fn a_body_over_the_bound_is_routed_by_what_stands_within_it_and_renamed_up_to_the_largest() {
        let packed = gzip(PLAIN);
        let length = PLAIN.len() as u64;
        let whole = looked(&["gzip"], held(&packed), b"", &limits(length, length));
        assert!(matches!(whole, TakenBody::Coded { .. }));
        let over = looked(&["gzip"], held(&packed), b"", &limits(length - 1, length));
        assert!(matches!(over, TakenBody::Glimpsed { .. }) && over.is_held());
        assert_eq!(name(&over).as_deref(), Some("old"));
        for (most, is_renamed) in [(length, true), (length - 1, false)] {
            let body = readied(&["gzip"], held(&packed), b"", &limits(length - 1, most));
            let field = body.model().unwrap();
            let renamed = body.renamed(&field, "new");
            assert_eq!(renamed.is_some(), is_renamed, "{most}");
            assert!(
                matches!(body.sent(), TakenBody::Held(sent)
                if **sent == *packed)
                    || matches!(body, TakenBody::Coded { .. })
            );
        }
    }

    #[test]
    fn a_model_that_stands_beyond_the_bound_is_found_up_to_the_largest_body() {
        let plain = format!(r#"{{"x":"{}","model":"last"}}"#, "x".repeat(5000));
        let packed = gzip(plain.as_bytes());
        let length = plain.len() as u64;
        for (most, expected) in [(length, Some("last")), (length - 1, None)] {
            let body = looked(&["gzip"], held(&packed), b"", &limits(1000, most));
            assert_eq!(name(&body).as_deref(), expected, "{most}");
        }
        // A body that is not a JSON object is neither held nor inflated further.
        let file = gzip("x".repeat(5000).as_bytes());
        let (start, rest) = file.split_at(file.len() - 12);
        let streamed = TakenBody::Streamed(None, start.to_vec());
        assert!(!looked(&["gzip"], streamed, rest, &limits(1000, 10_000)).is_held());
    }

    #[test]
    fn a_streamed_body_is_routed_by_its_first_part_or_held() {
        let zstd = include_bytes!("../../tests/data/zstd/level-3.zst").as_slice();
        let plain = include_bytes!("../../tests/data/zstd/plain.json").as_slice();
        // A decoder gives nothing of a zstd frame that is cut within its first window; gzip gives everything.
        let cases = [("gzip", gzip(plain), true), ("zstd", zstd.to_vec(), false)];
        for (coding, packed, shows_start) in cases {
            for at in [0, 2, 200] {
                for length in [Some(packed.len() as u64), None] {
                    let (start, rest) = packed.split_at(at);
                    let streamed = || TakenBody::Streamed(length, start.to_vec());
                    let limits = limits(200, 100_000);
                    let body = looked(&[coding], streamed(), rest, &limits);
                    assert_eq!(name(&body).as_deref(), Some("claude-x"), "{coding} {at}");
                    assert_eq!(body.is_held(), at < 200 || !shows_start, "{coding} {at}");
                    let body = readied(&[coding], streamed(), rest, &limits);
                    let field = body.model().unwrap();
                    let renamed = body.renamed(&field, "new");
                    let Some(TakenBody::Recoded(bytes)) = renamed else { panic!("{coding} {at}") };
                    let expected = String::from_utf8_lossy(plain).replace("claude-x", "new");
                    assert_eq!(String::from_utf8_lossy(&bytes), expected);
                }
            }
        }
        // A body that only claims to be compressed passes unchanged.
        let streamed = TakenBody::Streamed(None, b"no such thing".to_vec());
        assert!(!looked(&["zstd"], streamed, b"", &limits(5, 100)).is_held());
        let streamed = TakenBody::Streamed(None, b"{\"model\":\"plain\",".to_vec());
        let body = looked(&["zstd"], streamed, b"", &limits(5, 100));
        assert_eq!(name(&body).as_deref(), Some("plain"));
    }

    #[test]
    fn each_reason_says_what_to_do_and_shows_no_more_than_a_part_of_a_client_s_text() {
        let limits = limits(5, 7);
        for why in [Unread::Coding, Unread::Broken, Unread::Inflated, Unread::Crowded] {
            let text = explain(why, "x".repeat(99).as_bytes(), &limits);
            assert!(text.contains(&format!("'{}'", "x".repeat(SHOWN_MAX_CHARS))), "{text}");
        }
        for (why, setting) in [
            (Unread::Inflated, "settings.max_body_bytes (7)"),
            (Unread::Crowded, "settings.replay_body_bytes (5)"),
            (Unread::Late, "settings.replay_body_bytes (5)"),
        ] {
            assert!(explain(why, b"", &limits).contains(setting));
        }
    }
}
