//! The binary under test before a peer that answers everything, and what must hold after each attack.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::MutexGuard;
use std::time::Duration;

use crate::support::binary::Binary;
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// The longest time for a normal request during an attack: less than the 15 s of `client_head`, after which the
/// attackers' connections would end by themselves.
pub(crate) const SERVED_MAX: Duration = Duration::from_secs(10);
/// The most memory it may ever have had.
const RSS_MAX_KIB: u64 = 64 * 1024;

/// Descriptors that may be more than before: the kept connections to a provider.
const KEPT_MAX: usize = 64 + 2;

/// A running binary, under attack alone until it is looked at afterwards.
pub(crate) struct Subject {
    /// The process.
    pub(crate) binary: Binary,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The provider behind it.
    pub(crate) peer: Peer,
    before: (usize, usize),
    alone: Cell<Option<MutexGuard<'static, ()>>>,
    _folder: tempfile::TempDir,
}

impl Subject {
    /// Starts it with these settings, by `shell` before the command (`ulimit …;`).
    pub(crate) fn start_by(shell: &str, settings: &str) -> Self {
        Self::start_so(shell, settings, "")
    }

    /// Starts it with these settings and more providers.
    pub(crate) fn start_with_more(settings: &str, providers: &str) -> Self {
        Self::start_so("", settings, providers)
    }

    /// Starts it with a log level.
    pub(crate) fn start_logging(level: &str) -> Self {
        Self::start_so(&format!("export RUST_LOG={level};"), "", "")
    }

    fn start_so(shell: &str, settings: &str, more: &str) -> Self {
        let alone = Cell::new(Some(super::alone()));
        let peer = Peer::answering(|_| answer(200, "fine"));
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "settings: {{port: 0, state_dir: \"{}\", {settings}}}\nproviders:\n  - {{name: P, \
             type: anthropic, base_url: \"{}\", auth_type: none}}\n{more}",
            folder.path().join("state").display(),
            peer.url()
        );
        std::fs::write(folder.path().join("providers.yaml"), text).expect("a file");
        let script = format!("{shell} exec {} run", env!("CARGO_BIN_EXE_evertoken"));
        let binary = Binary::start_shell(
            folder.path(),
            &script,
            &[("RUST_LOG", "warn,evertoken::app=info")],
        );
        let address = binary.address();
        let mut subject = Self { binary, address, peer, before: (0, 0), alone, _folder: folder };
        subject.served();
        subject.before = (subject.threads(), subject.descriptors());
        subject
    }

    /// Starts it with these settings.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_by("", settings)
    }

    /// A normal request works, and in time.
    #[track_caller]
    pub(crate) fn served(&self) {
        let mut client = Client::connect_within(self.address, SERVED_MAX);
        // A path that goes to it, whoever else there is.
        client.send(get("/v1/messages?normal"));
        assert_eq!(client.answer().body, "fine");
    }

    /// After an attack: a normal request works, descriptors and threads are back, memory was never
    /// over the limit, and nothing was smuggled to the provider.
    #[track_caller]
    pub(crate) fn is_unharmed(&self) {
        self.served();
        // Idle threads end after 10 s, which needs no attention.
        drop(self.alone.take());
        // Two threads more: that of the connection just made, and the one that watches for clients
        // that leave.
        eventually("threads are back", || self.threads() <= self.before.0 + 2);
        eventually("descriptors are back", || self.descriptors() <= self.before.1 + KEPT_MAX);
        let peak = self.peak_kib();
        assert!(peak < RSS_MAX_KIB, "{peak} KiB");
        assert!(!self.peer.seen().iter().any(|seen| seen.line.contains("smuggled")));
    }

    fn proc(&self, what: &str) -> String {
        format!("/proc/{}/{what}", self.binary.id())
    }

    fn threads(&self) -> usize {
        std::fs::read_dir(self.proc("task")).expect("it runs").count()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("it runs").count()
    }

    /// The most it ever had resident.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }
}
