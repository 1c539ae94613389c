//! Looks at a provider's answer before anything of it goes to the client: at the body of a refusal, and at the first
//! event of a stream.

use std::time::Duration;

use crate::clock::{Clock, Deadline};
use crate::http::inflate;
use crate::http::message::{AnswerLength, Headers, ResponseHead};
use crate::proxy::rejection;
use crate::quota::body::{BODY_MAX_BYTES, RefusalBody};
use crate::quota::first_event::{self, Start};
use crate::quota::refusal::{self, Limited, Refused};
use crate::upstream::{Answer, Peeked};

/// The longest wait for the body of a refusal.
const BODY_READ_MAX: Duration = Duration::from_secs(5);
/// The longest wait for the first event of a stream, while another provider could serve the request.
const FIRST_EVENT_MAX: Duration = Duration::from_secs(10);

/// The way of looking at an answer.
pub(super) struct Examiner<'a> {
    /// The time.
    pub(super) clock: &'a Clock,
    /// The cooldown after a refusal that names none.
    pub(super) usual: Duration,
    /// Returns the model of the request.
    pub(super) model: &'a dyn Fn() -> Option<String>,
}

/// The way of looking at an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamLook {
    /// It is not looked at: there is only one provider, which would be tried again anyway.
    Never,
    /// It is looked at while it is passed on.
    InPassing,
    /// It is read up to its first event, because another provider could serve the request.
    Before,
}

/// The meaning of an answer.
pub(super) enum Finding {
    /// It is passed on.
    Good,
    /// It is an event stream whose first event did not come in time, or whose client left.
    Open,
    /// It is an event stream that was not looked at.
    Unseen,
    /// It rejects the access token.
    TokenRejected,
    /// It is a refusal that another provider may not have.
    Limited(Box<Refusal>),
}

/// A refusal that another provider may not have.
pub(super) struct Refusal {
    /// The status, or the one that the first event of a stream stands for.
    pub(super) status: u16,
    /// It came as the first event of a stream.
    pub(super) is_event: bool,
    /// Its meaning for the provider.
    pub(super) limited: Limited,
}

impl Refusal {
    /// The reason for the log.
    pub(super) fn why(&self) -> String {
        let Self { status, is_event, limited } = self;
        if *is_event {
            return format!("its stream began with an error (as {status})");
        }
        let meaning = match limited {
            Limited { is_used_up: true, .. } => ", its credit or quota is used up",
            Limited { is_rate_limit: true, .. } => ", a rate limit is reached",
            _ => "",
        };
        format!("it answered {status}{meaning}")
    }
}

/// Examines an answer.
pub(super) fn examine(
    answer: &mut Answer<'_>,
    examiner: &Examiner<'_>,
    look: StreamLook,
) -> Finding {
    match answer.head.status {
        200 if look == StreamLook::Never => Finding::Good,
        200 if !is_event_stream(&answer.head.headers) => Finding::Good,
        200 if look == StreamLook::InPassing => Finding::Unseen,
        200 => {
            let start = first_event(answer, FIRST_EVENT_MAX);
            let otherwise =
                if matches!(start, Start::Open) { Finding::Open } else { Finding::Good };
            let refusal = of_start(&answer.head.headers, start, examiner);
            refusal.map_or(otherwise, |refusal| Finding::Limited(Box::new(refusal)))
        }
        status if refusal::is_failing(status) || refusal::may_be_used_up(status) => {
            of_refusal(answer, status, examiner)
        }
        _ => Finding::Good,
    }
}

/// The meaning of the first pieces of an event stream with these `headers`; None as long as its first event is not there.
pub(super) fn of_first_pieces(
    headers: &Headers,
    pieces: Peeked<'_>,
    examiner: &Examiner<'_>,
) -> Option<Finding> {
    let is_over = pieces.bytes.len() > BODY_MAX_BYTES || pieces.is_whole;
    match judge(headers.contains("content-encoding"), pieces) {
        Start::Open => is_over.then_some(Finding::Open),
        start => Some(
            of_start(headers, start, examiner)
                .map_or(Finding::Good, |refusal| Finding::Limited(Box::new(refusal))),
        ),
    }
}

/// True if the body is an event stream.
fn is_event_stream(headers: &Headers) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.first("content-type").and_then(|kind| kind.get(..KIND.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn of_refusal(answer: &mut Answer<'_>, status: u16, examiner: &Examiner<'_>) -> Finding {
    let body = body(answer);
    let headers = &answer.head.headers;
    let refused = Refused { status, headers, body: body.as_ref() };
    let limited = refusal::judge(&refused, examiner.clock.wall(), examiner.usual, examiner.model);
    if let Some(limited) = limited {
        return Finding::Limited(Box::new(Refusal { status, is_event: false, limited }));
    }
    let rejects = match rejection::of_head(&answer.head, answer.length) {
        rejection::Head::Rejects => true,
        rejection::Head::Accepts => false,
        rejection::Head::AsksBody => body.as_ref().is_some_and(rejection::of_body),
    };
    if rejects { Finding::TokenRejected } else { Finding::Good }
}

/// The body of a refusal; None if it has none, or one that is too large.
fn body(answer: &mut Answer<'_>) -> Option<RefusalBody> {
    let is_too_large = |bytes: u64| bytes > BODY_MAX_BYTES as u64;
    match answer.length {
        AnswerLength::Absent => return None,
        AnswerLength::Sized(bytes) if is_too_large(bytes) => return None,
        _ if is_event_stream(&answer.head.headers) => {
            return match first_event(answer, BODY_READ_MAX) {
                Start::Error(_, body) => Some(body),
                Start::Good | Start::Open => None,
            };
        }
        _ => {}
    }
    let ResponseHead { headers, .. } = answer.head.clone();
    let (bytes, _) = answer.read_ahead(BODY_MAX_BYTES, BODY_READ_MAX);
    (bytes.len() <= BODY_MAX_BYTES).then(|| RefusalBody::read(&headers, bytes))
}

fn of_start(headers: &Headers, start: Start, examiner: &Examiner<'_>) -> Option<Refusal> {
    let Start::Error(status, body) = start else { return None };
    let refused = Refused { status, headers, body: Some(&body) };
    let limited = refusal::judge(&refused, examiner.clock.wall(), examiner.usual, examiner.model)?;
    Some(Refusal { status, is_event: true, limited })
}

/// Reads a stream up to its first event; the stream is yielded whole all the same.
// Not inlined: keeps worker stacks small.
#[inline(never)]
fn first_event(answer: &mut Answer<'_>, wait_max: Duration) -> Start {
    let is_coded = answer.head.headers.contains("content-encoding");
    let deadline = Deadline::after(wait_max);
    while let Some(peeked) = answer.peek(Some(deadline.left())) {
        match judge(is_coded, peeked) {
            Start::Open if peeked.bytes.len() <= BODY_MAX_BYTES && !deadline.has_passed() => {}
            start => return start,
        }
        // Comments that keep coming leave no silence in which the end of the client would be noticed.
        answer.look_at_client();
    }
    Start::Open
}

fn judge(is_coded: bool, Peeked { bytes, is_whole }: Peeked<'_>) -> Start {
    let judge = if is_whole { first_event::judge_whole } else { first_event::judge };
    if !is_coded {
        return judge(bytes);
    }
    match inflate::so_far(bytes, BODY_MAX_BYTES) {
        Some(plain) => judge(&plain),
        None if bytes.len() < inflate::MARK_BYTES => Start::Open,
        // Nobody here can read it, so it waits for nothing.
        None if !inflate::is_text(bytes) => Start::Good,
        None => judge(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_in_an_encoding_that_can_t_be_read_is_not_held_back() {
        let start = |is_coded, bytes| judge(is_coded, Peeked { bytes, is_whole: false });
        let brotli = b"\x1b\x2f\x00\xf8\x1d\xa9";
        assert!(matches!(start(true, brotli), Start::Good));
        assert!(matches!(start(true, b"\x78\x9c\x01\x02\x00"), Start::Good), "zlib");
        // Its field names an encoding, but it has none.
        assert!(matches!(start(true, b"data: {"), Start::Open));
        assert!(matches!(start(true, &brotli[..3]), Start::Open), "it may be gzip or zstd");
    }

    /// A zstd stream that goes on was held back until its end, or for ten seconds: the decoder gives nothing of it before.
    #[test]
    fn the_first_event_of_a_zstd_stream_is_read_as_soon_as_its_block_is_whole() {
        let events = include_bytes!("../../tests/data/zstd/events.zst");
        let start = |end: usize| judge(true, Peeked { bytes: &events[..end], is_whole: false });
        assert!(matches!(start(45), Start::Open));
        assert!(matches!(start(46), Start::Good));
        // Its window is too large for the decoder here.
        let long = include_bytes!("../../tests/data/zstd/long.zst");
        assert!(matches!(judge(true, Peeked { bytes: long, is_whole: false }), Start::Good));
    }
}
