//! Name resolution with a memory, one for all connections: a name server that is slow or silent holds up nobody who
//! has an answer of an hour ago.
//!
//! `known` decides what serves, who is asked and what is waited for; `order` which address is tried first. Each family
//! is asked for on a thread of its own, since the system's resolver can't be told to hurry; what it says after
//! everybody has given up is kept for the next.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::clock::{Deadline, Stopwatch};
use crate::shortage::Shortage;
use crate::thread;
use crate::upstream::fault::Fault;
use crate::upstream::origin::literal;
use crate::upstream::source::source_towards;
use crate::upstream::watch::Watch;

mod known;
mod order;
mod system;

pub(super) use known::Family;

use known::{LookupReply, Name, Verdict};

/// The time between two looks at the client during the wait for an answer.
const SLICE: Duration = Duration::from_millis(250);
/// The most threads that ask the system's resolver: two for a name.
const ASKING_MAX: usize = 64;
/// Names that are remembered; the configuration has fewer.
const NAMES_MAX: usize = 1024;
/// The stack of a thread that asks the system's resolver.
const STACK_BYTES: usize = 256 * 1024;

/// Asks for the addresses of a name in one family, and waits for the answer.
type Ask = Box<dyn Fn(&str, Family) -> LookupReply + Send + Sync>;

/// Names and their addresses. Cloning shares them.
#[derive(Clone)]
pub(super) struct Resolver(Arc<ResolverState>);

struct ResolverState {
    names: Mutex<HashMap<String, Name>>,
    /// Signals each answer.
    answered: Condvar,
    ask: Ask,
    stack_bytes: usize,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver(..)")
    }
}

/// A name that a connection needs, with addresses that may become more meanwhile.
#[derive(Debug)]
pub(super) struct ResolvedTarget {
    resolver: Resolver,
    /// None for an address.
    name: Option<String>,
    port: u16,
    /// The addresses that were known at first, in the order of attempts.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Resolver {
    /// This process's resolver, which asks the system's.
    pub(super) fn of_process() -> Self {
        static ONLY: LazyLock<Resolver> =
            LazyLock::new(|| Resolver::over(system::ask, STACK_BYTES));
        ONLY.clone()
    }

    fn over(
        ask: impl Fn(&str, Family) -> LookupReply + Send + Sync + 'static,
        stack_bytes: usize,
    ) -> Self {
        let (names, answered) = Default::default();
        Self(Arc::new(ResolverState { names, answered, ask: Box::new(ask), stack_bytes }))
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds addresses of `host`, a name or an address without brackets, by `deadline`.
    pub(super) fn find(
        &self,
        host: &str,
        port: u16,
        watch: &Watch,
        deadline: Deadline,
    ) -> Result<ResolvedTarget, Fault> {
        if let Some(address) = literal(host, port) {
            let (resolver, addresses) = (self.clone(), vec![address]);
            return Ok(ResolvedTarget { resolver, name: None, port, addresses });
        }
        let name = host.to_ascii_lowercase();
        self.ask(&name)?;
        let addresses = self.wait(&name, watch, deadline)?;
        let first = self.names().get(&name).and_then(|one| one.first_family(Stopwatch::start()));
        let source_of = |address| source_towards(SocketAddr::new(address, port));
        let addresses = order::in_order(addresses, &source_of, first);
        let addresses = addresses.into_iter().map(|one| SocketAddr::new(one, port)).collect();
        Ok(ResolvedTarget { resolver: self.clone(), name: Some(name), port, addresses })
    }

    /// Asks the system for missing or old addresses.
    fn ask(&self, name: &str) -> Result<(), Fault> {
        let mut names = self.names();
        let now = Stopwatch::start();
        if names.len() >= NAMES_MAX {
            names.retain(|_, one| !one.is_over(now));
        }
        let asking = names.values().filter(|one| one.is_asked()).count() * Family::BOTH.len();
        let is_full = names.len() >= NAMES_MAX && !names.contains_key(name);
        if asking >= ASKING_MAX || is_full {
            return Ok(());
        }
        let wanted = names.entry(name.to_owned()).or_default().ask(now);
        drop(names);
        let mut shortage = None;
        for family in wanted {
            let (resolver, of_thread) = (self.clone(), name.to_owned());
            let run = move || {
                let reply = (resolver.0.ask)(&of_thread, family);
                resolver.take(&of_thread, family, reply);
            };
            match thread::spawn("resolver", self.0.stack_bytes, run) {
                Ok(thread) => thread.detach(),
                Err(error) => {
                    self.take(name, family, LookupReply::Failed);
                    shortage = Some(error);
                }
            }
        }
        match shortage {
            // Known addresses, or those from the other thread, still serve.
            Some(error) if verdict(&self.names(), name) == Verdict::Unanswered => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn take(&self, name: &str, family: Family, reply: LookupReply) {
        if let Some(name) = self.names().get_mut(name) {
            name.answer(family, reply, Stopwatch::start());
        }
        self.0.answered.notify_all();
    }

    /// Waits until there is something to use.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn wait(&self, name: &str, watch: &Watch, deadline: Deadline) -> Result<Vec<IpAddr>, Fault> {
        let mut names = self.names();
        loop {
            match verdict(&names, name) {
                Verdict::Use(addresses) => return Ok(addresses),
                Verdict::Unknown => return Err(without_address("the host name is not known")),
                Verdict::Unanswered => {
                    let why = "no name server answers for the host name; see /etc/resolv.conf";
                    return Err(without_address(why));
                }
                Verdict::Wait(None) if deadline.has_passed() => {
                    return Err(Fault::Bad("the host name was not resolved in time".to_owned()));
                }
                Verdict::Wait(limit) => {
                    let slice = limit.unwrap_or_else(|| deadline.left()).min(SLICE);
                    names = self.pause(names, slice);
                }
            }
            drop(names);
            watch.check()?;
            names = self.names();
        }
    }

    /// Waits for an answer to any question, for `limit` at most.
    fn pause<'a>(
        &'a self,
        names: MutexGuard<'a, HashMap<String, Name>>,
        limit: Duration,
    ) -> MutexGuard<'a, HashMap<String, Name>> {
        let waited = self.0.answered.wait_timeout(names, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl ResolvedTarget {
    /// All addresses known by now, and true if more may come.
    pub(super) fn news(&self) -> (Vec<SocketAddr>, bool) {
        let Some(name) = &self.name else { return (Vec::new(), false) };
        let names = self.resolver.names();
        let Some(name) = names.get(name) else { return (Vec::new(), false) };
        let all = name.addresses(Stopwatch::start()).into_iter();
        (all.map(|one| SocketAddr::new(one, self.port)).collect(), name.is_asked())
    }

    /// Waits for news, for a moment at most.
    pub(super) fn wait(&self, limit: Duration) {
        drop(self.resolver.pause(self.resolver.names(), limit.min(SLICE)));
    }

    /// A connection was made to `address`.
    pub(super) fn note_success(&self, address: SocketAddr) {
        self.note(|name| name.note_success(Family::of(address.ip()), Stopwatch::start()));
    }

    /// No connection could be made.
    pub(super) fn note_failure(&self) {
        self.note(Name::doubt);
    }

    /// Asks the name server for newer addresses.
    pub(super) fn ask_again(&self) {
        self.note(Name::doubt);
        if let Some(name) = &self.name {
            // A shortage of threads leaves the known addresses.
            let _ = self.resolver.ask(name);
        }
    }

    fn note(&self, tell: impl FnOnce(&mut Name)) {
        let Some(name) = &self.name else { return };
        if let Some(name) = self.resolver.names().get_mut(name) {
            tell(name);
        }
    }
}

fn verdict(names: &HashMap<String, Name>, name: &str) -> Verdict {
    names.get(name).map_or(Verdict::Unknown, |one| one.verdict(Stopwatch::start()))
}

/// The fault that a name was not found, with the reason `why`. Without a descriptor, the system's resolver can ask
/// nobody, and reports the same as for a name that does not exist.
fn without_address(why: &str) -> Fault {
    let shortage = Socket::new(Domain::IPV4, Type::DGRAM, None).err();
    match shortage.and_then(|error| Shortage::of(&error)) {
        Some(shortage) => Fault::Short(shortage),
        None => Fault::Bad(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam_channel::{Receiver, Sender, never, unbounded};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// A resolver whose answers the test supplies: IPv4 ones as they are sent, IPv6 ones never.
    fn scripted() -> (Resolver, Sender<LookupReply>, Arc<AtomicUsize>) {
        let (send, replies): (_, Receiver<LookupReply>) = unbounded();
        let never: Receiver<LookupReply> = never();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let ask = move |_: &str, family| {
            let replies = if family == Family::V4 { &replies } else { &never };
            counted.fetch_add(usize::from(family == Family::V4), Ordering::SeqCst);
            replies.recv().unwrap_or(LookupReply::Failed)
        };
        let resolver = Resolver::over(ask, STACK_BYTES);
        (resolver, send, count)
    }

    fn find(resolver: &Resolver, allowed: Duration) -> Result<Vec<SocketAddr>, Fault> {
        let target = resolver.find("API.example", 443, &Watch::default(), Deadline::after(allowed));
        target.map(|target| target.addresses)
    }

    #[test]
    fn a_resolver_that_drops_ipv6_questions_costs_nothing() {
        let (resolver, send, count) = scripted();
        send.send(LookupReply::Addresses(vec!["192.0.2.1".parse().unwrap()])).unwrap();
        for _ in 0..2 {
            let found = find(&resolver, LONG).unwrap();
            assert_eq!(found, ["192.0.2.1:443".parse().unwrap()]);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1, "the second time it was known");
    }

    #[test]
    fn an_answer_that_comes_after_everybody_gave_up_serves_the_next() {
        let (resolver, send, count) = scripted();
        let outcome = find(&resolver, Duration::ZERO);
        assert!(matches!(&outcome, Err(Fault::Bad(why)) if why.contains("in time")), "{outcome:?}");
        send.send(LookupReply::Addresses(vec!["192.0.2.1".parse().unwrap()])).unwrap();
        assert_eq!(find(&resolver, LONG).unwrap().len(), 1);
        assert_eq!(count.load(Ordering::SeqCst), 1, "the second joined the first");
    }

    #[test]
    fn news_come_to_who_is_connecting_already() {
        let (resolver, send, _) = scripted();
        send.send(LookupReply::Addresses(vec!["192.0.2.1".parse().unwrap()])).unwrap();
        let watch = Watch::default();
        let target = resolver.find("x", 1, &watch, Deadline::after(LONG)).unwrap();
        target.note_failure();
        let deadline = Deadline::after(LONG);
        assert_eq!(target.news(), (target.addresses.clone(), true), "IPv6 is still asked for");
        resolver.take("x", Family::V6, LookupReply::Addresses(vec!["::1".parse().unwrap()]));
        while target.news().0.len() < 2 && !deadline.has_passed() {
            target.wait(deadline.left());
        }
        assert_eq!(target.news().0.len(), 2);
    }

    #[test]
    fn an_address_is_none_that_anybody_is_asked_for() {
        let resolver = Resolver::over(|_, _| panic!("nobody is asked"), STACK_BYTES);
        for (host, expected) in [("::1", "[::1]:8"), ("192.0.2.1", "192.0.2.1:8")] {
            let target = resolver.find(host, 8, &Watch::default(), Deadline::after(LONG)).unwrap();
            assert_eq!(target.addresses, [expected.parse().unwrap()]);
            assert_eq!(target.news(), (Vec::new(), false));
            target.note_failure();
        }
        assert!(resolver.names().is_empty());
    }

    #[test]
    fn names_are_asked_for_up_to_a_limit_at_once() {
        let (resolver, send, _) = scripted();
        for index in 0..ASKING_MAX / 2 {
            resolver.ask(&format!("{index}.example")).unwrap();
        }
        assert!(matches!(find(&resolver, Duration::ZERO), Err(Fault::Bad(_))));
        assert_eq!(resolver.names().len(), ASKING_MAX / 2);
        drop(send);
    }
    #[test]
    fn without_a_thread_what_is_known_serves_and_both_families_are_asked_for_again() {
        // More stack than address space: no thread.
        let resolver = Resolver::over(|_, _| LookupReply::Nothing, usize::MAX / 2);
        for _ in 0..2 {
            let outcome = find(&resolver, LONG);
            assert!(matches!(outcome, Err(Fault::Short(_) | Fault::Io(_))), "{outcome:?}");
            assert!(!resolver.names()["api.example"].is_asked());
        }
        let known = LookupReply::Addresses(vec!["192.0.2.1".parse().unwrap()]);
        resolver.take("api.example", Family::V4, known);
        resolver.names().get_mut("api.example").unwrap().doubt();
        assert_eq!(find(&resolver, LONG).unwrap().len(), 1);
    }
}
