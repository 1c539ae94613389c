//! Answers that exist as a whole: evertoken's own pages, and failing answers that were kept.

use crate::http::message::{AnswerLength, RequestHead, ResponseHead};
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::reply::Reply;
use crate::proxy::state::Proxy;

/// A page, ready to be sent.
#[derive(Debug)]
pub(crate) struct Page {
    /// Status and header fields without framing.
    pub head: ResponseHead,
    /// The body.
    pub body: Vec<u8>,
}

impl Page {
    /// Sends it in answer to the request with `asked`.
    pub(super) fn send(
        mut self,
        proxy: &Proxy,
        asked: &RequestHead,
        reply: &mut Reply<'_>,
        record: &mut RequestRecord<'_>,
    ) -> Result<(), Stop> {
        record.status = Some(self.head.status);
        self.head.headers.push("date", proxy.date());
        send_whole(self.head, &self.body, &asked.method, reply)
    }
}

/// Sends an answer to a request of `method` whose whole body exists.
pub(super) fn send_whole(
    mut head: ResponseHead,
    body: &[u8],
    method: &str,
    reply: &mut Reply<'_>,
) -> Result<(), Stop> {
    let length = if method == "HEAD" {
        head.headers.remove("content-length");
        head.headers.push("content-length", body.len().to_string());
        AnswerLength::Absent
    } else {
        AnswerLength::Sized(body.len() as u64)
    };
    reply.begin(&head, length);
    reply.piece(body).map_err(|_| Stop::ClientGone)
}
