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
use crate::http::refusal::{Code, Refusal};
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

/// The whole body with its bytes uncompressed, for a decision that nothing in it may escape; the reason if that is not
/// possible.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn whole(
    limits: &Limits,
    request: &mut Request<'_>,
    body: TakenBody,
) -> Result<Result<TakenBody, String>, Stop> {
    let mut reader = BodyReader { head: request.head, rest: &mut *request.body, limits };
    let held = match body {
        TakenBody::Streamed(length, mut start) => {
            let held = reader.hold(length, &mut start).map_err(Stop::of_body)?;
            let held = held.ok_or_else(|| {
                let message = "The body is large and has to be read whole for its model, and enough large bodies are \
                               held already";
                Refusal::new(Code::Overloaded, message)
            })?;
            TakenBody::Held(held)
        }
        other => other,
    };
    let Some(coding) = reader.coding() else { return Ok(Ok(held)) };
    let why = if is_known(coding) && reader.head.headers.all("content-encoding").nth(1).is_none() {
        match reader.unpacked(held).map_err(Stop::of_body)? {
            Ok(body) => return Ok(Ok(body)),
            Err((why, _)) => why,
        }
    } else {
        Unread::Coding
    };
    Ok(Err(explain(why, reader.coding().unwrap_or_default(), limits)))
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
mod tests;
