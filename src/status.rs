//! `evertoken status`: asks a running instance for its providers' status.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::config::Egress;
use crate::http::message::Headers;
use crate::http::refusal::Code;
use crate::http::selected::Selected;
use crate::json;
use crate::report::Report;
use crate::upstream::{OutBody, OutRequest, Timeouts, Upstream, UpstreamError};

mod broken;
mod instance;
pub(crate) mod table;

pub(crate) use instance::{Instance, PortUnknown, own_certificate, url_at};
use table::WIDTH_MAX;

/// The time limit of each step: the instance is on this machine, or near.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(3),
    response: Duration::from_secs(5),
    idle: Duration::from_secs(5),
};
/// The largest answer that is accepted.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The words of an answer to a request without TLS, ours and nginx's.
const PLAIN_TO_TLS: &str = "plain HTTP request was sent to HTTPS port";

/// The time between two questions to a watched instance.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Switches to a separate screen without a cursor, and back to the screen before.
const ENTER_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE_SCREEN: &str = "\x1b[?25h\x1b[?1049l";

/// The size of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The form of the output, and whether to repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// The form of the output.
    pub form: OutputForm,
    /// Repeats until an interruption.
    pub watches: bool,
}

/// See [`StatusOptions::form`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputForm {
    /// A table for people.
    Table,
    /// The JSON of `/-/status`.
    Json,
    /// Only the exit code.
    Quiet,
}

/// The outputs of the command.
pub(crate) struct StatusIo<'a> {
    /// Prints a text; false if nobody reads it.
    pub out: &'a mut dyn FnMut(&str) -> bool,
    /// Prints a line about a failure.
    pub err: &'a mut dyn FnMut(&str),
    /// The size of the terminal for the texts; None if they do not go to a terminal.
    pub size: &'a dyn Fn() -> Option<Size>,
    /// True if the texts may have colours.
    pub is_coloured: bool,
    /// Disconnected by an interruption.
    pub interrupted: Receiver<()>,
}

/// The reason why an instance has no status to show; `Display` gives advice.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// This URL can't be asked.
    #[error("{0} is no URL to ask")]
    BadUrl(String),
    /// The instance at this URL could not be asked.
    #[error("{}", unasked(.0, .1))]
    Unasked(String, UpstreamError),
    /// The same over TLS, with the usual trust.
    #[error("{}; --config FILE trusts the certificate in its settings.tls", unasked(.0, .1))]
    UnaskedInTrust(String, UpstreamError),
    /// The answer was cut.
    #[error("{0} breaks off its answer")]
    CutOff(String),
    /// It wants a key.
    #[error("{0} wants a key; set EVERTOKEN_API_KEY, or name its configuration with --config")]
    WantsKey(String),
    /// It shows its status to no key that is limited to certain providers.
    #[error(
        "{0} shows its status only to a key without 'providers' in settings.auth.keys; set EVERTOKEN_API_KEY to one"
    )]
    KeyIsLimited(String),
    /// It is asked without TLS.
    #[error("{0} takes TLS: write https:// instead of http://")]
    TakesTls(String),
    /// It answers with this status.
    #[error("{0} answers {1}; is it evertoken?")]
    Answers(String, u16),
    /// Its answer is no report.
    #[error("{0} does not answer as evertoken does")]
    NoReport(String),
}

fn unasked(url: &str, error: &UpstreamError) -> String {
    match error {
        UpstreamError::Unreachable(why) => format!("{url} can't be reached: {why}; is it running?"),
        UpstreamError::Short(shortage) => shortage.to_string(),
        UpstreamError::Unsendable(why) => format!("{url} is no URL to ask: {why}"),
        UpstreamError::Broken(why) | UpstreamError::TimedOut(why) => {
            format!("{url} gives no answer: {why}")
        }
        UpstreamError::ClientGone | UpstreamError::RequestBody(_) => {
            format!("{url} gives no answer")
        }
    }
}

/// Asks and prints; returns whether every enabled provider was ready at the end.
pub(crate) fn run(instance: &Instance, options: StatusOptions, io: &mut StatusIo<'_>) -> bool {
    let redraws = options.watches && (io.size)().is_some() && options.form == OutputForm::Table;
    if redraws {
        (io.out)(ENTER_SCREEN);
    }
    loop {
        let size = (io.size)();
        let width = size.map_or(WIDTH_MAX, |size| size.columns.min(WIDTH_MAX));
        let (text, is_ready) = match once(instance, options.form, io.is_coloured, width) {
            Ok(answered) => answered,
            Err(error) if redraws => {
                (table::wrapped(&error.to_string(), width).join("\n") + "\n", false)
            }
            Err(error) => {
                (io.err)(&error.to_string());
                (String::new(), false)
            }
        };
        let is_printed = match size.filter(|_| redraws) {
            Some(size) => (io.out)(&in_place(&text, size.rows)),
            None => (io.out)(&text),
        };
        let goes_on = options.watches
            && is_printed
            && io.interrupted.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Timeout);
        if !goes_on {
            if redraws {
                // The last output stays on the screen.
                (io.out)(&format!("{LEAVE_SCREEN}{text}"));
            }
            return is_ready;
        }
    }
}

/// The text from the top of the screen, with the rest of each line and of the screen cleared. Lines beyond the rows
/// would push the top out, so they are only counted.
fn in_place(text: &str, rows: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    // The cursor stands in the line below the last.
    let room = rows.saturating_sub(1).max(1);
    let mut shown = lines.iter().take(room).map(ToString::to_string).collect::<Vec<_>>();
    if let (true, Some(last)) = (lines.len() > room, shown.last_mut()) {
        *last = format!("… {} more lines", lines.len() - room + 1);
    }
    let lines: String = shown.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

/// Asks once: the text to print, in lines of `width`, and whether every enabled provider is ready.
fn once(
    instance: &Instance,
    form: OutputForm,
    is_coloured: bool,
    width: usize,
) -> Result<(String, bool), StatusError> {
    if form == OutputForm::Quiet {
        // This needs no key.
        return Ok((String::new(), get(instance, "/-/ready", TIMEOUTS.response)?.0 == 200));
    }
    let (text, report) = ask(instance)?;
    let is_ready = report.ready;
    let text = match form {
        OutputForm::Json => text,
        _ => table::render(&report, &instance.url, is_coloured, width),
    };
    Ok((text, is_ready))
}

/// Gets `/-/status`: its text, and its content.
fn ask(instance: &Instance) -> Result<(String, Report), StatusError> {
    let (status, text) = get(instance, "/-/status", TIMEOUTS.response)?;
    match status {
        200 => {}
        401 => return Err(StatusError::WantsKey(instance.url.clone())),
        403 if text.contains(Code::NotAllowed.as_str()) => {
            return Err(StatusError::KeyIsLimited(instance.url.clone()));
        }
        _ if text.contains(PLAIN_TO_TLS) => {
            return Err(StatusError::TakesTls(instance.url.clone()));
        }
        other => return Err(StatusError::Answers(instance.url.clone(), other)),
    }
    let no_report = |_| StatusError::NoReport(instance.url.clone());
    let report = json::read(text.as_bytes()).map_err(no_report)?;
    Ok((text, report))
}

/// Gets `path` from the instance: the status and the body of its answer, which begins within `allowed`.
pub(crate) fn get(
    instance: &Instance,
    path: &str,
    allowed: Duration,
) -> Result<(u16, String), StatusError> {
    let timeouts = Timeouts { response: allowed, ..TIMEOUTS };
    let base = instance.url.trim_end_matches('/');
    let own_certificate = instance.certificate.clone();
    let egress = Egress { own_certificate, ..Egress::default() };
    let upstream = match base.strip_prefix("unix:") {
        Some(path) => Upstream::to_unix(path.into(), timeouts),
        None => Upstream::new(base, &egress, timeouts, 0),
    };
    let upstream = upstream.map_err(|_| StatusError::BadUrl(base.to_owned()))?;
    let mut headers = Headers::new();
    if let Some(key) = &instance.key {
        headers.push("x-api-key", key.expose());
    }
    let request = OutRequest {
        method: "GET",
        target: path,
        passed_on: &Selected::none(),
        headers: &headers,
        response_max: None,
        websocket_key: None,
    };
    let sent = upstream.send(&request, &mut OutBody::Absent, None, &mut 0);
    let has_usual_trust = base.starts_with("https:") && instance.certificate.is_none();
    let unasked = if has_usual_trust { StatusError::UnaskedInTrust } else { StatusError::Unasked };
    let mut answer = sent.map_err(|error| unasked(base.to_owned(), error))?;
    let status = answer.head.status;
    let (bytes, is_whole) = answer.read_ahead(ANSWER_MAX_BYTES, TIMEOUTS.idle);
    if !is_whole {
        return Err(StatusError::CutOff(base.to_owned()));
    }
    Ok((status, String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_instance_is_drawn_in_place_and_an_interruption_ends_it() {
        let instance = Instance { url: "http://127.0.0.1:1".into(), key: None, certificate: None };
        let told = |watches, is_terminal: bool| {
            let (mut out, mut err) = (String::new(), String::new());
            let (held, interrupted) = crossbeam_channel::bounded(0);
            drop(held);
            let mut io = StatusIo {
                out: &mut |text| {
                    out.push_str(text);
                    true
                },
                err: &mut |text| err.push_str(text),
                size: &|| is_terminal.then_some(Size { columns: 40, rows: 3 }),
                is_coloured: false,
                interrupted,
            };
            assert!(!run(&instance, StatusOptions { form: OutputForm::Table, watches }, &mut io));
            (out, err)
        };
        for (out, err) in [told(false, true), told(true, false)] {
            assert!(out.is_empty() && err.contains("http://127.0.0.1:1 can't be reached"), "{err}");
        }
        let (out, err): (String, String) = told(true, true);
        let (drawn, left) = out.split_once(LEAVE_SCREEN).unwrap();
        let drawn = drawn.strip_prefix(ENTER_SCREEN).unwrap();
        assert!(drawn.starts_with("\x1b[Hhttp") && drawn.ends_with("\x1b[K\n\x1b[J"), "{out:?}");
        assert!(left.starts_with("http") && left.lines().all(|line| line.len() <= 40), "{left:?}");
        assert_eq!(err, "");
    }

    #[test]
    fn what_does_not_fit_on_the_screen_is_counted() {
        assert_eq!(in_place("a\nb\n", 3), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(in_place("a\nb\nc\n", 3), "\x1b[Ha\x1b[K\n… 2 more lines\x1b[K\n\x1b[J");
        assert_eq!(in_place("a\nb\n", 0), "\x1b[H… 2 more lines\x1b[K\n\x1b[J");
    }
}
