//! A relay that passes bytes on some milliseconds later, in place of a network. Connections are made at once: only what
//! is sent over them takes its time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::SockRef;

use crate::Outcome;
use crate::time::{nanos, sleep, spawn};

const BUFFER_BYTES: usize = 16 * 1024;
const BACKLOG: i32 = 4096;
/// The pieces that are under way in one direction of a connection.
const UNDER_WAY_MAX: usize = 1024;

/// Runs until the process is killed: takes connections `at`, and makes one `to` the provider for each.
pub(crate) fn run(at: &str, to: &str, milliseconds: &str) -> Outcome<()> {
    let to: SocketAddr = to.parse()?;
    let delay_nanos = milliseconds.parse::<u64>()? * 1_000_000;
    let listener = TcpListener::bind(at)?;
    SockRef::from(&listener).listen(BACKLOG)?;
    for client in listener.incoming().map_while(Result::ok) {
        let Ok(provider) = TcpStream::connect(to) else { continue };
        let _ = (client.set_nodelay(true), provider.set_nodelay(true));
        pass_on(client.try_clone()?, provider.try_clone()?, delay_nanos)?;
        pass_on(provider, client, delay_nanos)?;
    }
    Ok(())
}

/// Passes on what comes from one side to the other, on two threads.
fn pass_on(mut from: TcpStream, mut to: TcpStream, delay_nanos: u64) -> Outcome<()> {
    type UnderWay = (u64, Vec<u8>);
    let (sender, receiver): (Sender<UnderWay>, Receiver<UnderWay>) = bounded(UNDER_WAY_MAX);
    spawn(move || {
        let mut buffer = [0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((nanos() + delay_nanos, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    })?;
    spawn(move || {
        for (due, bytes) in receiver {
            sleep(Duration::from_nanos(due.saturating_sub(nanos())));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    })?;
    Ok(())
}
