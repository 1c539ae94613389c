//! A network of a test's own: a namespace with the binary in it, addresses, and a name server that the test leads.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{SockFilter, SockRef};

use crate::support::binary::Binary;

/// What there is in each network: `10.77.0.1` and `2001:db8:77::1` for providers, `10.77.0.9` and `2001:db8:77::9` to
/// reach them from. Packets to other addresses of `10.77.0.0/24` and `2001:db8:77::/64` get lost in silence: they go
/// to a card whose other end is nobody's. The kernel makes the routes to IPv6 addresses a moment after the addresses,
/// which is waited for.
const SETUP: &str = "set -e; ip link set lo up; ip link add card type veth peer name nobody; \
    ip link set card up; ip link set nobody up; \
    ip addr add 10.77.0.9/24 dev card; ip -6 addr add 2001:db8:77::9/64 dev card nodad; \
    ip addr add 10.77.0.1/32 dev lo; ip addr add 10.77.0.2/32 dev lo; ip -6 addr add 2001:db8:77::1/128 dev lo nodad; \
    for dead in 10.77.0.66 2001:db8:77::66; do \
    ip neigh add $dead lladdr 02:00:00:00:00:66 nud permanent dev card; done; \
    for address in 2001:db8:77::1 2001:db8:77::9; do for try in $(seq 2000); do \
    ip -6 route show table local | grep -q \"^local $address \" && break; sleep 0.01; done; done; \
    mount --bind resolv.conf /etc/resolv.conf; ";

/// The providers' port, in a network where nobody else listens.
pub(crate) const PORT: u16 = 8000;

/// A binary in a network of its own, which the test's thread has entered.
pub(crate) struct Lan {
    /// The process.
    pub(crate) binary: Binary,
    /// Its address.
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Lan {
    /// Starts the binary with these settings before one provider at `base_url`, after `setup` in a shell.
    pub(crate) fn start(setup: &str, settings: &str, base_url: &str) -> Self {
        let providers =
            format!("{{name: P, type: generic, base_url: \"{base_url}\", auth_type: none}}");
        Self::start_with(setup, settings, &providers, &[])
    }

    /// Starts it with these settings, providers and variables.
    pub(crate) fn start_with(
        setup: &str,
        settings: &str,
        providers: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "settings: {{port: 0, state_dir: \"{}\", {settings}}}\nproviders: [{providers}]\n",
            folder.path().join("state").display()
        );
        std::fs::write(folder.path().join("providers.yaml"), config).expect("a file");
        // A name server that is silent is waited for longer than any test takes.
        let servers = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";
        std::fs::write(folder.path().join("resolv.conf"), servers).expect("a file");
        let run = format!("{SETUP}{setup} exec {} run", env!("CARGO_BIN_EXE_evertoken"));
        std::fs::write(folder.path().join("start"), run).expect("a file");
        let mut all = vec![("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")];
        all.extend(variables);
        let script = "exec unshare -n -m sh ./start";
        let binary = Binary::start_shell(folder.path(), script, &all);
        let address = binary.address();
        let network = std::fs::File::open(format!("/proc/{}/ns/net", binary.id())).expect("a file");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(network.as_fd(), kind).expect("root's right");
        Self { binary, address, _folder: folder }
    }
}

/// Runs a command in the network of this thread.
pub(crate) fn ip(arguments: &str) {
    let status = std::process::Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("iproute2 is installed").success(), "ip {arguments}");
}

/// From now on all that comes in on `socket` is lost, before TCP sees it.
pub(crate) fn lose_all(socket: &impl AsFd) {
    let nothing = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(socket).attach_filter(&[nothing]).expect("an option");
}

/// The name server's reaction to a question.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// Answers with these, which may be none.
    Addresses(Vec<IpAddr>),
    /// Says nothing until it is told to.
    Later(Vec<IpAddr>),
    /// Says nothing.
    Nothing,
    /// Says that it failed (SERVFAIL).
    Failure,
}

/// `Say::Addresses` of these.
pub(crate) fn say(addresses: &[&str]) -> Say {
    Say::Addresses(addresses.iter().map(|text| text.parse().expect("an address")).collect())
}

/// A name server at 127.0.0.1 of this thread's network.
pub(crate) struct Names {
    socket: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
}

struct State {
    v4: Say,
    v6: Say,
    questions: usize,
    held: Vec<(Vec<u8>, SocketAddr)>,
}

impl Names {
    /// Starts it: what it says when it is asked for IPv4 and for IPv6 addresses, of whichever name.
    pub(crate) fn start(v4: Say, v6: Say) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:53").expect("the port"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
        let state = Arc::new(Mutex::new(State { v4, v6, questions: 0, held: Vec::new() }));
        let (own, shared) = (socket.clone(), Arc::downgrade(&state));
        let serve = move || {
            let mut packet = [0; 512];
            while let Some(state) = shared.upgrade() {
                if let Ok((count, from)) = own.recv_from(&mut packet) {
                    state.lock().unwrap().hear(&own, &packet[..count], from);
                }
            }
        };
        evertoken::testing::spawn("names", 128 * 1024, serve).unwrap().detach();
        Self { socket, state }
    }

    /// From now on it says this.
    pub(crate) fn change(&self, v4: Say, v6: Say) {
        let mut state = self.state.lock().unwrap();
        (state.v4, state.v6) = (v4, v6);
    }

    /// The number of questions.
    pub(crate) fn questions(&self) -> usize {
        self.state.lock().unwrap().questions
    }

    /// Says what was to be said later.
    pub(crate) fn release(&self) {
        for (answer, from) in self.state.lock().unwrap().held.drain(..) {
            self.socket.send_to(&answer, from).expect("a packet");
        }
    }
}

impl State {
    fn hear(&mut self, socket: &UdpSocket, question: &[u8], from: SocketAddr) {
        self.questions += 1;
        let name = question[12..].iter().position(|byte| *byte == 0).expect("a name");
        let end = 12 + name + 1 + 4;
        let is_v6 = question[end - 3] == 28;
        match if is_v6 { self.v6.clone() } else { self.v4.clone() } {
            Say::Addresses(addresses) => {
                let answer = answer(&question[..end], &addresses);
                socket.send_to(&answer, from).expect("a packet");
            }
            Say::Later(addresses) => self.held.push((answer(&question[..end], &addresses), from)),
            Say::Failure => {
                let mut answer = answer(&question[..end], &[]);
                answer[3] |= 2;
                socket.send_to(&answer, from).expect("a packet");
            }
            Say::Nothing => {}
        }
    }
}

/// A DNS message (RFC 1035 §4) that answers `question`.
fn answer(question: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&[0x81, 0x80]);
    message[6..8].copy_from_slice(&[0, u8::try_from(addresses.len()).expect("a few")]);
    message[8..12].fill(0);
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        // The name of the question, the class of the internet, a minute.
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0]);
        message.push(u8::try_from(data.len()).expect("an address"));
        message.extend(data);
    }
    message
}

/// A listener at `address` of this thread's network.
pub(crate) fn listen(address: &str) -> TcpListener {
    TcpListener::bind((address, PORT)).expect("an address of this network")
}
