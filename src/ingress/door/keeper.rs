//! The thread at the door: it decides which requests get a slot and which get a 503, and sends the visitors away.

use std::collections::BTreeMap;
use std::io::{Cursor, ErrorKind};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use log::error;

use crate::clock::Deadline;
use crate::http::message::{BodyLength, RequestHead};
use crate::http::refusal::{Code, Refusal};
use crate::ingress::door::visitor::{self, HandshakeStage, Readiness, Visitor};
use crate::ingress::guest::{Guest, Offer};
use crate::ingress::hosting::{Hosting, Word};
use crate::ingress::live::Live;
use crate::ingress::pool::Pool;
use crate::ingress::service::Request;
use crate::peer;
use crate::platform::{Events, Interest, Poller, Wake};

/// The number of the wake-up call among those of the visitors.
pub(super) const WAKE_ID: u64 = u64::MAX;
/// The longest wait for the head of a request.
const ASK_MAX: Duration = Duration::from_millis(50);
/// The longest wait for a worker that must make room.
const OFFER_MAX: Duration = Duration::from_millis(30);
/// The longest time that a client may leave its answer unread.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The longest stay of answered visitors once the server stops.
const STOP_MAX: Duration = Duration::from_millis(500);
/// The sockets that are handled in one turn.
const EVENTS_MAX: usize = 64;

const NO_SLOT: &str = "All settings.max_connections are in use";
const TOO_SLOW: &str = "All settings.max_connections are in use, and this request was the slowest";

/// Pages that say how evertoken is doing. They are made from memory, and wait for no disk that hangs, so they are answered
/// without a slot: a supervisor must not take a busy process for a dead one.
const PAGES: [&str; 4] = ["/-/healthy", "/-/ready", "/-/status", "/-/metrics"];

pub(super) struct DoorThread {
    pub(super) inbox: Receiver<Word>,
    pub(super) wake: Arc<Wake>,
    pub(super) poller: Poller,
    pub(super) hosting: Hosting,
    pub(super) live: Arc<Live>,
    pub(super) pool: Pool,
    pub(super) visitors_max: usize,
    /// By number, so the first one came first.
    pub(super) visitors: BTreeMap<u64, Visitor>,
    pub(super) next_id: u64,
    /// Set by a stop: whoever is here then has left by it.
    pub(super) stopping: Option<Deadline>,
}

impl DoorThread {
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.has_stopped() {
            let next = self.visitors.values().map(|visitor| visitor.due).chain(self.stopping);
            let next = next.reduce(Deadline::min);
            // Rounded up, so that the time has come when the wait is over.
            let wait = next.map(|due| due.left() + Duration::from_millis(1));
            if let Err(error) = self.poller.wait(&mut events, wait) {
                return error!("Connections without a slot are not told any more: {error}");
            }
            for (id, _) in events.iter() {
                match id {
                    WAKE_ID => self.hear(),
                    id => self.go_on(id),
                }
            }
            self.end_what_is_due();
        }
    }

    fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|until| self.visitors.is_empty() || until.has_passed())
    }

    fn hear(&mut self) {
        self.wake.clear();
        // Visitors that come meanwhile have their own wake-up call.
        for _ in 0..self.inbox.len() {
            match self.inbox.try_recv() {
                Ok(Word::Guest(Guest { stream, entry, read })) => {
                    self.ask(
                        stream,
                        HandshakeStage::Asking { entry: Some(entry), read, why: NO_SLOT },
                    );
                }
                Ok(Word::Refused(stream, why)) => {
                    self.ask(stream, HandshakeStage::Asking { entry: None, read: Vec::new(), why });
                }
                Ok(Word::GaveWay(stream, head)) => self.tell_who_gave_way(stream, head.as_deref()),
                Ok(Word::Shed) => self.make_room(),
                Ok(Word::Stop) => self.stop(),
                Err(_) => return,
            }
        }
    }

    fn ask(&mut self, stream: Arc<TcpStream>, stage: HandshakeStage) {
        if self.visitors.len() >= self.visitors_max {
            self.make_room();
        }
        let mut visitor = Visitor { stream, stage, due: Deadline::after(ASK_MAX) };
        let id = self.next_id;
        self.next_id += 1;
        if visitor.stream.set_nonblocking(true).is_err() {
            return;
        }
        if !self.watch(id, &visitor, Interest::Read) {
            visitor.allow(Duration::ZERO);
        }
        self.visitors.insert(id, visitor);
        // Most have sent their request already.
        self.go_on(id);
    }

    /// Registers a wake-up for when `what` can be done with the socket.
    fn watch(&self, id: u64, visitor: &Visitor, what: Interest) -> bool {
        let known = self.poller.change(&visitor.stream, id, what);
        known.or_else(|_| self.poller.add(&visitor.stream, id, what)).is_ok()
    }

    /// Receives or sends as much as possible now.
    fn go_on(&mut self, id: u64) {
        let Some(mut visitor) = self.visitors.remove(&id) else { return };
        let stays = match &visitor.stage {
            HandshakeStage::Asking { .. } => self.go_on_asking(id, &mut visitor),
            HandshakeStage::Offered(..) => true,
            HandshakeStage::Answering { .. } => self.go_on_answering(id, &mut visitor),
            HandshakeStage::Leaving { .. } => !visitor.drain(),
        };
        self.keep_or_forget(id, visitor, stays);
    }

    fn keep_or_forget(&mut self, id: u64, visitor: Visitor, stays: bool) {
        if stays {
            self.visitors.insert(id, visitor);
        } else {
            self.forget(&visitor);
        }
    }

    /// Its descriptor may live on elsewhere for a moment.
    fn forget(&self, visitor: &Visitor) {
        self.poller.remove(&visitor.stream);
    }

    /// Decides what becomes of it once its head is there; whether it stays.
    fn go_on_asking(&mut self, id: u64, visitor: &mut Visitor) -> bool {
        match visitor.look() {
            Readiness::Nothing => true,
            Readiness::Gone => false,
            Readiness::TooLong => self.decide(id, visitor, None),
            Readiness::Head(head) => self.decide(id, visitor, Some(&head)),
            Readiness::Bad(refusal) => {
                let mut answer = Vec::new();
                self.hosting.service.refuse(&refusal, None, &mut answer);
                self.answer(id, visitor, answer)
            }
            Readiness::Other(protocol) => {
                protocol.say(&visitor.stream);
                self.answer(id, visitor, Vec::new())
            }
        }
    }

    /// Answers, or offers it to a worker; whether it stays.
    fn decide(&mut self, id: u64, visitor: &mut Visitor, head: Option<&RequestHead>) -> bool {
        if let Some(head) = head.filter(|head| is_page(head)) {
            let page = self.page(head, peer::came_by_path(&*visitor.stream));
            return self.answer(id, visitor, page);
        }
        if self.offer(visitor) {
            return true;
        }
        self.refuse(id, visitor, head)
    }

    /// Offers it to a worker: one that has become free, or the one whose connection waits longest, which ends then.
    /// Whether that can be.
    fn offer(&mut self, visitor: &mut Visitor) -> bool {
        let HandshakeStage::Asking { entry, read, why } = &mut visitor.stage else { return false };
        let Some(guest_entry) = entry.take().filter(|_| self.stopping.is_none()) else {
            return false;
        };
        let why = *why;
        let stream = visitor.stream.clone();
        let offer = Offer::of(Guest { stream, entry: guest_entry, read: std::mem::take(read) });
        self.forget(visitor);
        // A worker's reads wait.
        let is_ready = visitor.stream.set_nonblocking(false).is_ok();
        let is_taken = is_ready
            && match self.pool.run(self.hosting.job(offer.clone())) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.live.give_way() && {
                        self.pool.promise(self.hosting.job(offer.clone()));
                        true
                    }
                }
                Err(_) => false,
            };
        if is_taken {
            visitor.stage = HandshakeStage::Offered(offer, why);
            visitor.allow(OFFER_MAX);
        }
        is_taken
    }

    fn refuse(&mut self, id: u64, visitor: &mut Visitor, head: Option<&RequestHead>) -> bool {
        let why = match &visitor.stage {
            HandshakeStage::Asking { why, .. } | HandshakeStage::Offered(_, why) => *why,
            HandshakeStage::Answering { .. } | HandshakeStage::Leaving { .. } => NO_SLOT,
        };
        let answer = self.refusal(why, head);
        self.answer(id, visitor, answer)
    }

    fn refusal(&self, why: &'static str, head: Option<&RequestHead>) -> Vec<u8> {
        let mut answer = Vec::new();
        self.hosting.service.refuse(&Refusal::new(Code::Overloaded, why), head, &mut answer);
        answer
    }

    /// One of [`PAGES`]; empty if that fails, and the connection ends.
    fn page(&self, head: &RequestHead, is_by_unix: bool) -> Vec<u8> {
        let mut page = Vec::new();
        let mut body = Cursor::new([]);
        let request = Request {
            head,
            body: &mut body,
            client: None,
            is_by_unix,
            may_keep_alive: false,
            switch: None,
        };
        let serve = AssertUnwindSafe(|| self.hosting.service.serve(request, &mut page));
        if catch_unwind(serve).is_err() {
            error!("A page could not be made because of a panic; please report this");
            page.clear();
        }
        page
    }

    fn answer(&mut self, id: u64, visitor: &mut Visitor, answer: Vec<u8>) -> bool {
        // A worker may have been about to have it.
        if visitor.stream.set_nonblocking(true).is_err() {
            return false;
        }
        visitor.stage = HandshakeStage::Answering { answer, sent: 0 };
        visitor.allow(ANSWER_MAX);
        self.go_on_answering(id, visitor)
    }

    fn go_on_answering(&mut self, id: u64, visitor: &mut Visitor) -> bool {
        if !visitor.send() {
            visitor.allow(ANSWER_MAX);
            return self.watch(id, visitor, Interest::Write);
        }
        visitor.begin_to_leave();
        // Bytes that have already come are read first, so that most connections end at once.
        !visitor.drain() && self.watch(id, visitor, Interest::Read)
    }

    fn tell_who_gave_way(&mut self, stream: Arc<TcpStream>, head: Option<&RequestHead>) {
        if self.visitors.len() >= self.visitors_max {
            self.make_room();
        }
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let answer = self.refusal(TOO_SLOW, head);
        let stage = HandshakeStage::Answering { answer, sent: 0 };
        let mut visitor = Visitor { stream, stage, due: Deadline::after(ANSWER_MAX) };
        // A client whose socket takes no more than this has not read its earlier answers.
        visitor.send();
        visitor.begin_to_wait();
        visitor.drain();
        self.visitors.insert(self.next_id, visitor);
        self.next_id += 1;
    }

    fn end_what_is_due(&mut self) {
        let is_due = |(_, visitor): &(&u64, &Visitor)| visitor.due.has_passed();
        let due: Vec<u64> = self.visitors.iter().filter(is_due).map(|(id, _)| *id).collect();
        for id in due {
            self.end_stage(id);
        }
    }

    fn end_stage(&mut self, id: u64) {
        let Some(mut visitor) = self.visitors.remove(&id) else { return };
        let stays = match &mut visitor.stage {
            HandshakeStage::Asking { .. } => self.decide(id, &mut visitor, None),
            HandshakeStage::Offered(offer, _) => match offer.take() {
                Some(guest) => self.take_back(id, &mut visitor, &guest),
                // A worker has it.
                None => return,
            },
            HandshakeStage::Answering { .. } => false,
            HandshakeStage::Leaving { .. } => {
                visitor.drain();
                false
            }
        };
        self.keep_or_forget(id, visitor, stays);
    }

    /// The expected worker did not come.
    fn take_back(&mut self, id: u64, visitor: &mut Visitor, guest: &Guest) -> bool {
        let head = match visitor::find(&guest.read) {
            Readiness::Head(head) => Some(head),
            _ => None,
        };
        self.refuse(id, visitor, head.as_deref())
    }

    /// Lets one go: of those that have their answer the first, else the first of all, which is told at last.
    fn make_room(&mut self) {
        let mut all = self.visitors.iter();
        let leaving = all.find(|(_, one)| matches!(one.stage, HandshakeStage::Leaving { .. }));
        let first = leaving.or_else(|| self.visitors.first_key_value()).map(|(id, _)| *id);
        let Some(mut visitor) = first.and_then(|id| self.visitors.remove(&id)) else { return };
        match &visitor.stage {
            HandshakeStage::Asking { why, .. } => {
                let answer = self.refusal(why, None);
                visitor.stage = HandshakeStage::Answering { answer, sent: 0 };
                visitor.send();
                visitor.begin_to_leave();
                visitor.drain();
            }
            HandshakeStage::Leaving { .. } => drop(visitor.drain()),
            HandshakeStage::Offered(..) | HandshakeStage::Answering { .. } => {}
        }
        self.forget(&visitor);
    }

    /// No new visitors are accepted. The present ones get their answers and leave soon.
    fn stop(&mut self) {
        let until = Deadline::after(STOP_MAX);
        self.stopping = Some(until);
        for visitor in self.visitors.values_mut() {
            visitor.due = match visitor.stage {
                HandshakeStage::Asking { .. } => Deadline::after(Duration::ZERO),
                _ => visitor.due.min(until),
            };
        }
    }
}

/// True if `head` asks for one of [`PAGES`].
fn is_page(head: &RequestHead) -> bool {
    let reads = matches!(&*head.method, "GET" | "HEAD");
    reads && head.body == BodyLength::Absent && PAGES.contains(&head.path())
}
