//! The way of a new connection to its worker, or to the door if none is free.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

use crate::ingress::guest::{Guest, Offer};
use crate::ingress::hosting::{Hosting, Word};
use crate::ingress::live::Live;
use crate::ingress::pool::Pool;
use crate::ingress::tally::ConnectionTally;

/// Takes in new connections.
#[derive(Clone)]
pub(super) struct Reception {
    pub(super) pool: Pool,
    pub(super) live: Arc<Live>,
    pub(super) hosting: Hosting,
}

impl Reception {
    /// Takes in the served connection `stream`. `client` is the client's own, which is another one if it speaks TLS, and
    /// `from` its address; None for a unix socket. The error says that no thread could be made.
    pub(super) fn receive(
        &self,
        stream: Arc<TcpStream>,
        client: Arc<TcpStream>,
        from: Option<IpAddr>,
        tally: ConnectionTally,
    ) -> io::Result<()> {
        let entry = self.live.enter(stream.clone(), client, from, tally);
        let door = &self.hosting.door;
        if !entry.has_share(self.hosting.limits.max_connections_per_address) {
            let why = "All settings.max_connections_per_address are in use";
            door.say(Word::Refused(stream, why));
            return Ok(());
        }
        let offer = Offer::of(Guest { stream, entry, read: Vec::new() });
        let Err(error) = self.pool.run(self.hosting.job(offer.clone())) else { return Ok(()) };
        let Some(guest) = offer.take() else { return Ok(()) };
        if error.kind() == io::ErrorKind::WouldBlock {
            door.say(Word::Guest(guest));
            return Ok(());
        }
        let why = "There is no worker thread for this connection";
        door.say(Word::Refused(guest.stream, why));
        Err(error)
    }
}
