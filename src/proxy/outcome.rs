//! How a request ends, and what its line in the log tells.

use std::io;
use std::time::Duration;

use crate::http::refusal::{Code, Refusal};
use crate::proxy::cut::Cut;
use crate::proxy::provider::Provider;
use crate::proxy::verdict;

/// Why a request ends without a whole response.
pub(super) enum Stop {
    /// The client is told, if nothing was sent yet.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
    /// The upstream broke off in the middle of the body, or was silent for too long.
    UpstreamCut(Cut),
}

impl Stop {
    /// For a request whose body can't be taken.
    #[expect(clippy::needless_pass_by_value, reason = "it is used with `map_err`")]
    pub(super) fn of_body(error: io::Error) -> Self {
        match verdict::refusal_for_body(&error) {
            Some(refusal) => refusal.into(),
            None if error.kind() == io::ErrorKind::OutOfMemory => {
                Refusal::new(Code::Overloaded, "There is no memory for the request's body").into()
            }
            None => Self::ClientGone,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the log line tells, gathered on the way.
#[derive(Default)]
pub(super) struct RequestRecord<'p> {
    pub(super) provider: Option<&'p Provider>,
    pub(super) status: Option<u16>,
    pub(super) first_byte: Option<Duration>,
    pub(super) attempts: u32,
    pub(super) received_bytes: u64,
    /// One of our own pages was asked for.
    pub(super) is_page: bool,
    /// Why we refused it ourselves, where we did.
    pub(super) refused: Option<Code>,
}

impl<'p> RequestRecord<'p> {
    /// The answer of a provider is passed on.
    pub(super) fn answered_by(&mut self, provider: &'p Provider, status: u16) {
        self.provider = Some(provider);
        self.status = Some(status);
    }

    /// The client is told of `refusal`, which names the provider only where that was asked, or could not be reached.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let code = refusal.code;
        self.status = Some(code.status());
        self.refused = Some(code);
        let was_asked = self.attempts > 0 && !verdict::is_before_sending(code);
        self.provider = self.provider.filter(|_| was_asked || verdict::cools_down(code));
    }

    /// The client went away; a provider is named where the request was sent to it.
    pub(super) fn client_went(&mut self) {
        self.provider = self.provider.filter(|_| self.attempts > 0);
    }

    /// The proxy itself answers.
    pub(super) fn answered_here(&mut self, status: u16) {
        self.status = Some(status);
    }
}
