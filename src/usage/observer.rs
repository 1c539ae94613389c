//! Looks at the body of one answer as it passes: plain, inflated, or not at all. Never holds a byte up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http::inflate::passing::PassingGzip;
use crate::http::message::ResponseHead;
use crate::usage::members::Form;
use crate::usage::scan::{Finding, Scan};

/// The most answers that are inflated at once; others count as unread. Each takes 45 KB.
const INFLATED_AT_ONCE_MAX: usize = 64;
/// The most bytes of one answer that are inflated.
const INFLATED_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Counts the answers that are inflated. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inflating(Arc<AtomicUsize>);

/// The endings of the paths whose answers report tokens.
const REPORTING_PATHS: [&str; 10] = [
    "/v1/messages", "/chat/completions", "/v1/completions", "/v1/responses", "/responses",
    "/embeddings", ":generateContent", ":streamGenerateContent", ":rawPredict",
    ":streamRawPredict",
];

/// The endings of such paths of Bedrock's API, below `/model/NAME`.
const BEDROCK_PATHS: [&str; 4] =
    ["/converse", "/converse-stream", "/invoke", "/invoke-with-response-stream"];

/// True if an answer to a request for `path` is expected to report tokens. Other answers may do so as well.
pub(crate) fn reports_tokens(path: &str) -> bool {
    let ends_like = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
    ends_like(&REPORTING_PATHS) || path.contains("/model/") && ends_like(&BEDROCK_PATHS)
}

/// The look at one answer.
#[derive(Debug)]
pub(crate) enum Observer {
    /// The answer reports no tokens: it is an error, or to a request of another method.
    Off,
    Plain(Scan),
    Gzip(Box<Inflated>, Scan),
    /// Its type or its encoding can't be read here, or it is broken.
    Unreadable,
}

/// A gzip stream, counted among those that are inflated at once.
#[derive(Debug)]
pub(crate) struct Inflated {
    inflating: Inflating,
    stream: PassingGzip,
    left_bytes: u64,
    is_broken: bool,
}

/// The result of the look at an answer, at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// It is none that reports tokens.
    Nothing,
    /// Its body was read.
    Read(Finding),
    /// It was not read.
    Unread,
}

impl Observer {
    /// For the answer with `head` to a request with `method`.
    pub(crate) fn of(method: &str, head: &ResponseHead, inflating: &Inflating) -> Self {
        if method != "POST" || !(200..300).contains(&head.status) {
            return Self::Off;
        }
        let headers = &head.headers;
        let Some(form) = headers.first("content-type").and_then(form_of) else {
            return Self::Unreadable;
        };
        match headers.first("content-encoding").map(<[u8]>::trim_ascii) {
            None | Some(b"" | b"identity") => Self::Plain(Scan::new(form)),
            Some(b"gzip" | b"x-gzip") => Inflated::new(inflating)
                .map_or(Self::Unreadable, |one| Self::Gzip(Box::new(one), Scan::new(form))),
            Some(_) => Self::Unreadable,
        }
    }

    /// True if the answer is JSON that is read as it comes.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::Plain(scan) if scan.form() == Form::Json)
    }

    /// Looks at the next piece of the body, which may be known to be the last.
    #[inline]
    pub(crate) fn see(&mut self, piece: &[u8], is_last: bool) {
        match self {
            Self::Plain(scan) => scan.see(piece, is_last),
            Self::Gzip(inflated, scan) => inflated.see(piece, scan),
            Self::Off | Self::Unreadable => {}
        }
    }

    /// The result at the end of the body, which is not `is_whole` if it broke off.
    pub(crate) fn finish(&mut self, is_whole: bool) -> Observed {
        match self {
            Self::Off => Observed::Nothing,
            Self::Plain(scan) => Observed::Read(scan.finish(is_whole)),
            Self::Gzip(inflated, _) if inflated.is_broken => Observed::Unread,
            Self::Gzip(inflated, scan) => {
                Observed::Read(scan.finish(is_whole && inflated.stream.may_end_here()))
            }
            Self::Unreadable => Observed::Unread,
        }
    }
}

/// The form of a body of `media_type`; None for one that is not looked at.
fn form_of(media_type: &[u8]) -> Option<Form> {
    // As most servers write it.
    match media_type {
        b"application/json" => return Some(Form::Json),
        b"text/event-stream" | b"text/event-stream; charset=utf-8" => return Some(Form::Events),
        _ => {}
    }
    let is = |name: &[u8]| {
        let (start, rest) = media_type.split_at_checked(name.len())?;
        let ends = matches!(rest.first(), None | Some(b';' | b' ' | b'\t'));
        (ends && start.eq_ignore_ascii_case(name)).then_some(())
    };
    is(b"application/json")
        .map(|()| Form::Json)
        .or_else(|| is(b"text/event-stream").map(|()| Form::Events))
}

impl Inflated {
    /// None if too many are under way.
    fn new(inflating: &Inflating) -> Option<Self> {
        if inflating.0.fetch_add(1, Ordering::Relaxed) >= INFLATED_AT_ONCE_MAX {
            inflating.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self {
            inflating: inflating.clone(),
            stream: PassingGzip::new(),
            left_bytes: INFLATED_MAX_BYTES,
            is_broken: false,
        })
    }

    fn see(&mut self, piece: &[u8], scan: &mut Scan) {
        if self.is_broken {
            return;
        }
        let left = &mut self.left_bytes;
        let outcome = self.stream.feed(piece, &mut |bytes| {
            *left = left.saturating_sub(bytes.len() as u64);
            scan.see(bytes, false);
        });
        self.is_broken = outcome.is_err() || self.left_bytes == 0;
    }
}

impl Drop for Inflated {
    fn drop(&mut self) {
        self.inflating.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::inflate::tests::gzip;
    use crate::http::message::Headers;

    const BODY: &[u8] = br#"{"model":"m","usage":{"input_tokens":3,"output_tokens":4}}"#;

    fn observer(method: &str, status: u16, fields: &[(&str, &str)]) -> Observer {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        Observer::of(method, &ResponseHead { status, headers }, &Inflating::default())
    }

    fn observed(fields: &[(&str, &str)], pieces: &[&[u8]]) -> Observed {
        let mut observer = observer("POST", 200, fields);
        for piece in pieces {
            observer.see(piece, false);
        }
        observer.finish(true)
    }

    fn is_read(observed: &Observed) -> bool {
        matches!(observed, Observed::Read(Finding { tokens: Some(tokens), .. }) if tokens.input + tokens.output == 7)
    }

    #[test]
    fn answers_that_are_looked_at() {
        let json = ("Content-Type", "application/json; charset=utf-8");
        assert!(is_read(&observed(&[json], &[BODY])));
        assert!(is_read(&observed(&[json, ("Content-Encoding", "identity")], &[BODY])));
        assert!(is_read(&observed(&[("content-type", "Application/JSON")], &[BODY])));
        let event = [b"data: ", BODY, b"\n\n"].concat();
        assert!(is_read(&observed(&[("content-type", "text/event-stream")], &[&event])));
        for other in ["application/jsonl", "text/html", "application/json-seq", ""] {
            assert_eq!(observed(&[("content-type", other)], &[BODY]), Observed::Unread, "{other}");
        }
        assert_eq!(observed(&[], &[BODY]), Observed::Unread);
        for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 400), ("POST", 302)] {
            let observer = observer(method, status, &[json]);
            assert!(matches!(observer, Observer::Off), "{method} {status}");
        }
    }

    #[test]
    fn compressed_answers_are_inflated_or_said_to_be_unread() {
        let json = ("content-type", "application/json");
        let coded = |encoding| [json, ("content-encoding", encoding)];
        let body = gzip(BODY);
        for encoding in ["gzip", "x-gzip"] {
            assert!(is_read(&observed(&coded(encoding), &[&body])));
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            assert!(is_read(&observed(&coded(encoding), &bytes)));
        }
        assert_eq!(observed(&coded("gzip"), &[BODY]), Observed::Unread);
        for encoding in ["br", "zstd", "deflate", "gzip, gzip"] {
            assert_eq!(observed(&coded(encoding), &[b"x"]), Observed::Unread, "{encoding}");
        }
        let cut = observed(&coded("gzip"), &[&body[..body.len() - 9]]);
        assert!(matches!(cut, Observed::Read(Finding { tokens: None, .. })), "{cut:?}");
    }

    #[test]
    fn an_answer_that_inflates_to_too_much_is_unread() {
        let mut observer = observer(
            "POST",
            200,
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        );
        if let Observer::Gzip(inflated, _) = &mut observer {
            inflated.left_bytes = BODY.len() as u64;
        }
        observer.see(&gzip(BODY), true);
        assert_eq!(observer.finish(true), Observed::Unread);
    }

    #[test]
    fn only_so_many_answers_are_inflated_at_once() {
        let inflating = Inflating::default();
        let mut all: Vec<_> = (0..INFLATED_AT_ONCE_MAX)
            .map(|_| Inflated::new(&inflating).expect("there is room"))
            .collect();
        assert!(Inflated::new(&inflating).is_none() && Inflated::new(&inflating).is_none());
        all.pop();
        assert!(Inflated::new(&inflating).is_some());
    }

    #[test]
    fn paths_that_report_tokens() {
        for path in [
            "/v1/messages",
            "/to/a/v1/chat/completions",
            "/openai/deployments/x/embeddings",
            "/v1beta/models/gemini-pro:streamGenerateContent",
            "/v1/responses",
            "/v1internal:streamGenerateContent",
            "/to/b/model/anthropic.claude-x/converse",
            "/model/m/invoke-with-response-stream",
        ] {
            assert!(reports_tokens(path), "{path}");
        }
        for path in [
            "/v1/messages/count_tokens",
            "/v1/threads/t/messages",
            "/v1/responses/input_tokens",
            "/v1beta/models/gemini-pro:countTokens",
            "/v1/files",
            "/mcp",
            "/chains/invoke",
            "/model/m/count-tokens",
        ] {
            assert!(!reports_tokens(path), "{path}");
        }
    }
}
