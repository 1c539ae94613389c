//! The ends of a request, and the record for its log line.

use std::io;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::http::refusal::{Code, Refusal};
use crate::proxy::client_key::{ClientKey, CountedRequest};
use crate::proxy::cut::Cut;
use crate::proxy::provider::Provider;
use crate::proxy::verdict;

/// The reason why a request ends without a whole response.
pub(super) enum Stop {
    /// The client gets this refusal, if nothing was sent yet.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
    /// The upstream broke off in the middle of the body, or was silent for too long.
    UpstreamCut(Cut),
    /// The connection goes on as a WebSocket.
    IsTunnel,
}

impl Stop {
    /// The end of a request whose body can't be taken.
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

/// The facts for the log line, gathered on the way.
#[derive(Default)]
pub(super) struct RequestRecord<'p> {
    /// The key that let the request in; None without one.
    pub(super) key: Option<&'p ClientKey>,
    /// The request, as it was counted against the limits of its key.
    pub(super) counted: Option<CountedRequest>,
    pub(super) provider: Option<&'p Provider>,
    /// The model that was asked, if the answer may not name one.
    pub(super) asked_model: Option<String>,
    /// Measures the time since the request's head; None for evertoken's own requests.
    pub(super) begun: Option<Stopwatch>,
    pub(super) status: Option<u16>,
    pub(super) first_byte: Option<Duration>,
    pub(super) attempts: u32,
    pub(super) received_bytes: u64,
    /// The request is for one of evertoken's own pages.
    pub(super) is_page: bool,
    /// The reason for evertoken's own refusal, if there was one.
    pub(super) refused: Option<Code>,
}

impl<'p> RequestRecord<'p> {
    /// A provider's answer is passed on.
    pub(super) fn answered_by(&mut self, provider: &'p Provider, status: u16) {
        self.provider = Some(provider);
        self.status = Some(status);
    }

    /// The client gets `refusal`; the provider is named only if it was asked, or could not be reached.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let code = refusal.code;
        self.status = Some(code.status());
        self.refused = Some(code);
        self.give_back();
        let was_asked = self.attempts > 0 && !verdict::is_before_sending(code);
        self.provider = self.provider.filter(|_| was_asked || verdict::cools_down(code));
    }

    /// Takes the request back from the limits of its key, if no provider got it. The client's next request may come as
    /// soon as it has its answer.
    fn give_back(&mut self) {
        let counted = self.counted.take().filter(|_| self.attempts == 0);
        if let (Some(key), Some(counted)) = (self.key, counted) {
            key.give_back(counted);
        }
    }

    /// The client went away; a provider is named if the request was sent to it.
    pub(super) fn client_went(&mut self) {
        self.give_back();
        self.provider = self.provider.filter(|_| self.attempts > 0);
    }
}
