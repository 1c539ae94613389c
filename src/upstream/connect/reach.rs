//! TCP to the first of several addresses that answers, without a thread for each.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::clock::{Deadline, Stopwatch};
use crate::liveness::{Peer, watch_peer};
use crate::upstream::connect::race::{Race, Turn};
use crate::upstream::fault::Fault;
use crate::upstream::resolver::ResolvedTarget;
use crate::upstream::watch::Watch;

/// The time between two looks for new addresses while more may come.
const NEWS_EVERY: Duration = Duration::from_millis(50);

/// The time after which the name server is asked again if no address answers, however fresh its last answer: this
/// machine may have moved to another network.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// An attempt that has begun.
type ConnectAttempt = (TcpStream, SocketAddr);

/// Connects to `target` by `deadline`.
pub(super) fn reach(
    target: &ResolvedTarget,
    watch: &Watch,
    deadline: Deadline,
) -> Result<TcpStream, Fault> {
    let outcome = run(target, watch, deadline);
    match &outcome {
        Ok((stream, address)) => {
            watch_peer(&SockRef::from(stream), Peer::at(address.ip()));
            target.note_success(*address);
        }
        Err(Fault::ClientGone | Fault::Short(_)) => {}
        Err(_) => target.note_failure(),
    }
    outcome.map(|(stream, _)| stream)
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn run(
    target: &ResolvedTarget,
    watch: &Watch,
    deadline: Deadline,
) -> Result<ConnectAttempt, Fault> {
    let began = Stopwatch::start();
    let mut race = Race::default();
    race.add(&target.addresses);
    let mut attempts: Vec<ConnectAttempt> = Vec::new();
    let (mut last, mut ask_at) = (None, ASK_AGAIN_AFTER);
    while !deadline.has_passed() {
        match race.turn(began.elapsed()) {
            Turn::Begin(address) => match begin(address) {
                Ok((stream, true)) => return Ok((stream, address)),
                Ok((stream, false)) => attempts.push((stream, address)),
                Err(Fault::Short(shortage)) if attempts.is_empty() => {
                    return Err(Fault::Short(shortage));
                }
                Err(fault) => {
                    last = Some(fault);
                    race.fail();
                }
            },
            Turn::Lost => {
                let (addresses, may_come) = target.news();
                if race.add(&addresses) {
                    continue;
                }
                if !may_come {
                    return Err(last.unwrap_or(Fault::TimedOut));
                }
                watch.check()?;
                target.wait(deadline.left());
            }
            Turn::Wait(limit) => {
                let (addresses, may_come) = target.news();
                if race.add(&addresses) {
                    continue;
                }
                let now = began.elapsed();
                if now >= ask_at {
                    target.ask_again();
                    ask_at = now + ASK_AGAIN_AFTER;
                    continue;
                }
                let until_asking = ask_at.saturating_sub(now);
                let mut limit =
                    limit.unwrap_or(until_asking).min(until_asking).min(deadline.left());
                if may_come {
                    limit = limit.min(NEWS_EVERY);
                }
                if let Some(won) = wait(&mut attempts, &mut race, &mut last, watch, limit)? {
                    return Ok(won);
                }
            }
        }
    }
    Err(Fault::TimedOut)
}

/// Waits for one of `attempts`; failed ones are removed.
fn wait(
    attempts: &mut Vec<ConnectAttempt>,
    race: &mut Race,
    last: &mut Option<Fault>,
    watch: &Watch,
    limit: Duration,
) -> Result<Option<ConnectAttempt>, Fault> {
    let sockets: Vec<_> = attempts.iter().map(|(stream, _)| stream).collect();
    // From the back, so that those before it keep their places.
    for index in watch.wait_for_any(&sockets, limit)?.into_iter().rev() {
        let (stream, address) = attempts.remove(index);
        match stream.take_error()? {
            None => return Ok(Some((stream, address))),
            Some(error) => {
                *last = Some(error.into());
                race.fail();
            }
        }
    }
    Ok(None)
}

/// Begins to connect; returns true if the connection is already made.
fn begin(address: SocketAddr) -> Result<(TcpStream, bool), Fault> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok((socket.into(), true)),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {
            Ok((socket.into(), false))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::liveness::tests::set_on;
    use crate::upstream::resolver::Resolver;

    const LONG: Duration = Duration::from_mins(1);

    fn target(listener: &TcpListener) -> ResolvedTarget {
        let address = listener.local_addr().unwrap();
        let (host, watch) = (address.ip().to_string(), Watch::default());
        let deadline = Deadline::after(LONG);
        Resolver::of_process().find(&host, address.port(), &watch, deadline).unwrap()
    }

    #[test]
    fn connections_to_providers_notice_that_the_provider_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = target(&listener);
        let stream = reach(&target, &Watch::default(), Deadline::after(LONG)).unwrap();
        assert_eq!(set_on(&SockRef::from(&stream)), (true, [30, 10, 3], None));
    }

    #[test]
    fn an_address_that_refuses_is_passed_over_and_the_last_refusal_is_told() {
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut target = target(&listener);
        target.addresses.insert(0, refusing);
        assert!(reach(&target, &Watch::default(), Deadline::after(LONG)).is_ok());
        target.addresses = vec![refusing];
        let outcome = reach(&target, &Watch::default(), Deadline::after(LONG));
        assert!(matches!(outcome, Err(Fault::Io(_))), "{outcome:?}");
        target.addresses.clear();
        let outcome = reach(&target, &Watch::default(), Deadline::after(LONG));
        assert!(matches!(outcome, Err(Fault::TimedOut)), "{outcome:?}");
    }
    #[test]
    fn addresses_that_do_not_answer_get_a_head_start_and_no_more() {
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut target = target(&live);
        for listener in &dead {
            // Everything that comes in is lost before TCP sees it.
            let nothing = socket2::SockFilter::new(0x06, 0, 0, 0);
            SockRef::from(listener).attach_filter(&[nothing]).unwrap();
            target.addresses.insert(0, listener.local_addr().unwrap());
        }
        let stream = reach(&target, &Watch::default(), Deadline::after(LONG)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live.local_addr().unwrap());
        target.addresses.pop();
        let outcome = reach(&target, &Watch::default(), Deadline::after(Duration::ZERO));
        assert!(matches!(outcome, Err(Fault::TimedOut)), "{outcome:?}");
    }
}
