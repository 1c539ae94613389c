//! The inputs for serving connections, and the way to the door for those without a free worker.

use std::net::TcpStream;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::config::Limits;
use crate::http::message::RequestHead;
use crate::ingress::conn::{self, ConnectionEnd};
use crate::ingress::guest::{Guest, Offer};
use crate::ingress::pool::{Job, Seats};
use crate::ingress::service::Service;
use crate::platform::Wake;

/// The inputs for serving every connection.
#[derive(Clone)]
pub(crate) struct Hosting {
    /// Times and sizes.
    pub limits: Arc<Limits>,
    /// The service for requests.
    pub service: Arc<dyn Service>,
    /// The destination of a connection that gives way to another.
    pub door: Door,
    /// The places of connections that become WebSockets.
    pub seats: Seats,
}

impl Hosting {
    /// A worker's job: to serve the guest of `offer`.
    pub(crate) fn job(&self, offer: Offer) -> Job {
        let hosting = self.clone();
        Box::new(move || {
            let Some(guest) = offer.take() else { return };
            let counted = CountedService::new(hosting.service.clone());
            let stream = guest.stream.clone();
            match conn::serve(guest, &hosting.limits, &*hosting.service) {
                ConnectionEnd::Over => {}
                ConnectionEnd::GaveWay(head) => {
                    drop(counted);
                    hosting.door.say(Word::GaveWay(stream, head));
                }
                ConnectionEnd::Tunnel(tunnel, entry) => {
                    entry.carry(tunnel, (counted, hosting.seats.take()));
                }
            }
        })
    }
}

/// Tells of a connection that is open while this lives.
struct CountedService(Arc<dyn Service>);

impl CountedService {
    fn new(service: Arc<dyn Service>) -> Self {
        service.connections_changed(1);
        Self(service)
    }
}

impl Drop for CountedService {
    fn drop(&mut self) {
        self.0.connections_changed(-1);
    }
}

/// A message to the door's thread.
pub(super) enum Word {
    /// There is no free worker for this one.
    Guest(Guest),
    /// This one gets no slot, and why.
    Refused(Arc<TcpStream>, &'static str),
    /// A worker gave this one up for another, before or after it read the head of a request.
    GaveWay(Arc<TcpStream>, Option<Box<RequestHead>>),
    /// Descriptors have run out.
    Shed,
    /// The server stops.
    Stop,
}

/// The way to the door's thread.
#[derive(Clone)]
pub(crate) struct Door {
    pub(super) words: Sender<Word>,
    pub(super) wake: Arc<Wake>,
}

impl Door {
    pub(super) fn say(&self, word: Word) {
        // The thread never blocks, so there is room soon. Once it has ended, the connection just closes.
        if self.words.send(word).is_ok() {
            self.wake.ring();
        }
    }
}
