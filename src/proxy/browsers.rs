//! What a browser gets that no provider and no page of ours answers: a preflight, and the way to the page.

use crate::message::{RequestHead, ResponseHead};
use crate::proxy::exchange::{Proxy, Record, Stop};
use crate::proxy::pages;
use crate::proxy::reply::Reply;
use crate::upstream::AnswerLength;

impl Proxy {
    /// Answers a preflight, which no browser gives a key.
    #[cold]
    pub(super) fn answer_preflight(
        &self,
        preflight: &ResponseHead,
        head: &RequestHead,
        reply: &mut Reply<'_>,
        record: &mut Record,
    ) -> Result<(), Stop> {
        if self.access.keys.is_none() {
            self.access.check(head, false)?;
        }
        record.is_page = true;
        record.status = Some(preflight.status);
        reply.begin(preflight, AnswerLength::Absent);
        reply.flush().map_err(|_| Stop::ClientGone)
    }

    /// Sends a person who opened the bare address to the page.
    #[cold]
    pub(super) fn to_people(
        &self,
        head: &RequestHead,
        reply: &mut Reply<'_>,
        record: &mut Record,
    ) -> Result<(), Stop> {
        self.access.check(head, true)?;
        record.is_page = true;
        let page = pages::to_people();
        record.status = Some(page.head.status);
        self.send_page(&page, head, reply)
    }
}
