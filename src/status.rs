//! `evertoken status`: asks a running instance for its providers' status.

use std::io;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::bound::connect_unix;
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

pub(crate) use instance::{Instance, Place, PortUnknown, own_certificate, url_at};
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
    #[error(
        "{}; --config FILE trusts the certificate in its settings.tls, if that can be read",
        unasked(.0, .1)
    )]
    UnaskedInTrust(String, UpstreamError),
    /// The unix socket at this URL is not open to this user.
    #[error(
        "{0} can't be reached: {1}; run this as the user that runs evertoken, or as root, or let others in with ?mode= in \
         settings.listen"
    )]
    ClosedToUs(String, io::Error),
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

impl StatusError {
    /// True if another address of the same instance may be better.
    fn is_of_address(&self) -> bool {
        match self {
            Self::ClosedToUs(..) => true,
            Self::Unasked(_, error) | Self::UnaskedInTrust(_, error) => {
                matches!(error, UpstreamError::Unreachable(_) | UpstreamError::NoTls { .. })
            }
            _ => false,
        }
    }
}

fn unasked(url: &str, error: &UpstreamError) -> String {
    match error {
        UpstreamError::Unreachable(why) => format!("{url} can't be reached: {why}; is it running?"),
        UpstreamError::NoTls { why, .. } => format!("{url} can't be asked: {why}"),
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
            Err(errors) if redraws => {
                let lines = errors.iter().flat_map(|one| table::wrapped(&one.to_string(), width));
                (lines.map(|line| line + "\n").collect(), false)
            }
            Err(errors) => {
                for error in &errors {
                    (io.err)(&error.to_string());
                }
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
) -> Result<(String, bool), Vec<StatusError>> {
    if form == OutputForm::Quiet {
        // This needs no key.
        return Ok((String::new(), get(instance, "/-/ready", TIMEOUTS.response)?.status == 200));
    }
    let asked = get(instance, "/-/status", TIMEOUTS.response)?;
    let report = report_in(&asked).map_err(|error| vec![error])?;
    let is_ready = report.ready;
    let text = match form {
        OutputForm::Json => asked.text,
        _ => table::render(&report, asked.url, is_coloured, width),
    };
    Ok((text, is_ready))
}

/// The content of `/-/status`.
fn report_in(asked: &Asked<'_>) -> Result<Report, StatusError> {
    let (url, text) = (asked.url.to_owned(), &asked.text);
    match asked.status {
        200 => json::read(text.as_bytes()).map_err(|_| StatusError::NoReport(url)),
        401 => Err(StatusError::WantsKey(url)),
        403 if text.contains(Code::NotAllowed.as_str()) => Err(StatusError::KeyIsLimited(url)),
        _ if text.contains(PLAIN_TO_TLS) => Err(StatusError::TakesTls(url)),
        other => Err(StatusError::Answers(url, other)),
    }
}

/// An instance's answer.
pub(crate) struct Asked<'a> {
    /// The URL that answered.
    pub url: &'a str,
    /// Its status.
    pub status: u16,
    /// Its body.
    pub text: String,
}

/// Gets `path` from the instance, at the first of its URLs that can be asked; its answer begins within `allowed`.
pub(crate) fn get<'a>(
    instance: &'a Instance,
    path: &str,
    allowed: Duration,
) -> Result<Asked<'a>, Vec<StatusError>> {
    let mut errors = Vec::new();
    for url in &instance.urls {
        match get_at(url, instance, path, allowed) {
            Ok((status, text)) => return Ok(Asked { url, status, text }),
            Err(error) => {
                let is_of_address = error.is_of_address();
                errors.push(error);
                if !is_of_address {
                    break;
                }
            }
        }
    }
    Err(errors)
}

fn get_at(
    url: &str,
    instance: &Instance,
    path: &str,
    allowed: Duration,
) -> Result<(u16, String), StatusError> {
    let timeouts = Timeouts { response: allowed, ..TIMEOUTS };
    let base = url.trim_end_matches('/');
    let own_certificate = instance.certificate.clone();
    let egress = Egress { own_certificate, ..Egress::default() };
    let socket = base.strip_prefix("unix:").map(Path::new);
    let upstream = match socket {
        Some(path) => Upstream::to_unix(path.to_owned(), timeouts),
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
    let mut answer = sent.map_err(|error| match socket.and_then(closed_to_us) {
        Some(why) => StatusError::ClosedToUs(base.to_owned(), why),
        None => unasked(base.to_owned(), error),
    })?;
    let status = answer.head.status;
    let (bytes, is_whole) = answer.read_ahead(ANSWER_MAX_BYTES, TIMEOUTS.idle);
    if !is_whole {
        return Err(StatusError::CutOff(base.to_owned()));
    }
    Ok((status, String::from_utf8_lossy(bytes).into_owned()))
}

/// The reason why we may not connect to the unix socket at `path`, if that is so.
fn closed_to_us(path: &Path) -> Option<io::Error> {
    let refused = connect_unix(path, TIMEOUTS.connect).err();
    refused.filter(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_instance_is_drawn_in_place_and_an_interruption_ends_it() {
        let urls = vec!["http://127.0.0.1:1".to_owned()];
        let instance = Instance { urls, key: None, certificate: None };
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
