//! Answers for browsers besides pages: a preflight, and a redirect to the page for people.

use crate::http::message::{AnswerLength, ResponseHead};
use crate::ingress::Request;
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
    request: &Request<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
) -> Result<(), Stop> {
    if access.keys.is_none() {
        access.check(request.head, false, request.is_by_unix)?;
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
    request: &Request<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
) -> Result<(), Stop> {
    proxy.access.check(request.head, true, request.is_by_unix)?;
    record.is_page = true;
    pages::redirect_to_page().send(proxy, request.head, reply, record)
}
