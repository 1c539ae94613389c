//! Answers for browsers besides pages: a preflight, and a redirect to the page for people.

use crate::http::message::{AnswerLength, RequestHead, ResponseHead};
use crate::proxy::access::Access;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::pages;
use crate::proxy::reply::Reply;
use crate::proxy::state::Proxy;

/// Answers a preflight, for which no browser sends a key.
#[cold]
pub(super) fn answer_preflight(
    access: &Access,
    preflight: &ResponseHead,
    head: &RequestHead,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
) -> Result<(), Stop> {
    if access.keys.is_none() {
        access.check(head, false)?;
    }
    record.is_page = true;
    record.status = Some(preflight.status);
    reply.begin(preflight, AnswerLength::Absent);
    reply.flush().map_err(|_| Stop::ClientGone)
}

/// Redirects a person who opened `/` to the page.
#[cold]
pub(super) fn redirect_to_page(
    proxy: &Proxy,
    head: &RequestHead,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
) -> Result<(), Stop> {
    proxy.access.check(head, true)?;
    record.is_page = true;
    pages::redirect_to_page().send(proxy, head, reply, record)
}
