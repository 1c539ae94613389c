//! `/-/events`: the status as server-sent events, for its watchers.
//!
//! A watcher takes the thread of its connection, reads the status twice a second, and sends changes; without watchers
//! nothing runs. Watchers are few, and never more than half of all connections. They are sent away when the
//! configuration is replaced or the proxy stops.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::http::message::{AnswerLength, Headers, ResponseHead};
use crate::ingress::Request;
use crate::liveness::has_left;
use crate::proxy::outcome::Stop;
use crate::proxy::pages::{needs, status};
use crate::proxy::reply::Reply;
use crate::proxy::state::Proxy;
use crate::proxy::watchers::SILENCE_MAX;
use crate::report::Report;

/// The time between two looks at the status.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest time that a watcher may leave an event unread.
const UNTAKEN_MAX: Duration = Duration::from_secs(5);
/// The wait before a watcher that was sent away may come again, in milliseconds.
const COME_AGAIN_MS: u32 = 1000;

/// Sends events until the client leaves or is sent away.
pub(in crate::proxy) fn stream(
    proxy: &Proxy,
    request: &Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Stop> {
    needs(&request.head.method, &["GET", "HEAD"])?;
    let mut headers = Headers::new();
    headers.push("content-type", "text/event-stream");
    headers.push("cache-control", "no-store");
    headers.push("x-content-type-options", "nosniff");
    headers.push("date", proxy.date());
    reply.close_after();
    let head = ResponseHead { status: 200, headers };
    if request.head.method == "HEAD" {
        reply.begin(&head, AnswerLength::Absent);
        return Ok(());
    }
    let _place = proxy.watchers.enter()?;
    if let Some(client) = request.client {
        // If it can't be set, the connection's longer limit holds.
        let _ = client.set_write_timeout(Some(UNTAKEN_MAX));
    }
    reply.begin(&head, AnswerLength::Unknown);
    let mut told: Option<Report> = None;
    let mut silence = Stopwatch::start();
    loop {
        let report = status::report(proxy);
        let piece = match &told {
            None => Some(format!("retry: {COME_AGAIN_MS}\n{}", event(&report))),
            Some(last) if *last != report.at_rest() => Some(event(&report)),
            Some(_) if silence.elapsed() >= SILENCE_MAX => Some(":\n\n".to_owned()),
            Some(_) => None,
        };
        if let Some(piece) = piece {
            reply.piece(piece.as_bytes()).map_err(|_| Stop::ClientGone)?;
            told = Some(report.at_rest());
            silence = Stopwatch::start();
        }
        if proxy.watchers.are_dismissed_within(LOOK_EVERY) {
            return Ok(());
        }
        if request.client.is_some_and(has_left) {
            return Err(Stop::ClientGone);
        }
    }
}

/// JSON has no line ends of its own, so one `data` field is enough.
fn event(report: &Report) -> String {
    // Texts, numbers and lists of them: JSON can hold all of it.
    let json = serde_json::to_string(report).unwrap_or_default();
    format!("event: status\ndata: {json}\n\n")
}
