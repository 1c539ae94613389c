//! Answers that exist as a whole: evertoken's own pages, and failing answers that were kept.

use crate::http::message::{AnswerLength, RequestHead, ResponseHead};
use crate::proxy::outcome::Stop;
use crate::proxy::reply::Reply;

/// A page, ready to be sent.
#[derive(Debug)]
pub(crate) struct Page {
    /// Status and header fields without framing.
    pub head: ResponseHead,
    /// The body.
    pub body: Vec<u8>,
}

impl Page {
    /// Sends it in answer to the request with `asked`; `date` is the value of that field.
    pub(super) fn send(
        &self,
        asked: &RequestHead,
        date: String,
        reply: &mut Reply<'_>,
    ) -> Result<(), Stop> {
        let mut head = self.head.clone();
        head.headers.push("date", date);
        send_whole(head, &self.body, asked, reply)
    }
}

/// Sends an answer whose whole body exists.
pub(super) fn send_whole(
    mut head: ResponseHead,
    body: &[u8],
    asked: &RequestHead,
    reply: &mut Reply<'_>,
) -> Result<(), Stop> {
    let length = if asked.method == "HEAD" {
        head.headers.remove("content-length");
        head.headers.push("content-length", body.len().to_string());
        AnswerLength::Absent
    } else {
        AnswerLength::Sized(body.len() as u64)
    };
    reply.begin(&head, length);
    reply.piece(body).map_err(|_| Stop::ClientGone)
}
