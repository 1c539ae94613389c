//! The inputs for serving connections, and the way to the door for those without a free worker.

use std::net::TcpStream;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::config::Limits;
use crate::http::message::RequestHead;
use crate::ingress::conn;
use crate::ingress::guest::{Guest, Offer};
use crate::ingress::pool::Job;
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
}

impl Hosting {
    /// A worker's job: to serve the guest of `offer`.
    pub(crate) fn job(&self, offer: Offer) -> Job {
        let hosting = self.clone();
        Box::new(move || {
            let Some(guest) = offer.take() else { return };
            let stream = guest.stream.clone();
            if let conn::ConnectionEnd::GaveWay(head) =
                conn::serve(guest, &hosting.limits, &*hosting.service)
            {
                hosting.door.say(Word::GaveWay(stream, head));
            }
        })
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
