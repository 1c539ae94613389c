//! Issuer and provider on a port of 127.0.0.1, with `tiny_http`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tiny_http::Server;

use crate::faults::{Fault, Faults};
use crate::issuer::{Counts, Issuer};
use crate::manners::answer::of_api;
use crate::manners::{Manners, Template};

mod state;

use state::{State, lock};

/// The default time between the events of a stream.
pub const EVENT_DELAY: Duration = Duration::from_millis(5);

/// Returns the time in milliseconds since 1970; it never goes back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The behaviour of a sandbox.
#[derive(Clone)]
pub struct Options {
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// These manners, instead of `lifetime`, `rotates` and `overlap`.
    pub manners: Option<Manners>,
    /// This clock, instead of the system's.
    pub clock: Option<Clock>,
    /// The lifetime of an access token.
    pub lifetime: Duration,
    /// Time between the events of a stream.
    pub event_delay: Duration,
    /// True if a refresh token works only once.
    pub rotates: bool,
    /// The time for which a used refresh token still works.
    pub overlap: Duration,
    /// Public keys (PEM) of assertions and subject tokens.
    pub public_keys: Vec<String>,
}

impl Options {
    fn manners(&self) -> Manners {
        self.manners.clone().unwrap_or_else(|| {
            let mut manners = Manners::own();
            manners.tokens.lifetime_seconds = self.lifetime.as_secs();
            manners.rotation.rotates = self.rotates;
            manners.rotation.overlap_seconds = self.overlap.as_secs();
            manners
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            manners: None,
            clock: None,
            lifetime: Duration::from_hours(1),
            event_delay: EVENT_DELAY,
            rotates: true,
            overlap: Duration::ZERO,
            public_keys: Vec::new(),
        }
    }
}

/// A running sandbox; dropping it stops it.
pub struct Sandbox {
    address: SocketAddr,
    state: Arc<State>,
    server: Arc<Server>,
    receiving: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts a sandbox.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let server = Server::http(("127.0.0.1", options.port)).map_err(std::io::Error::other)?;
        let server = Arc::new(server);
        let address = server.server_addr().to_ip().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let manners = options.manners();
        let url = format!("http://{address}");
        let mut issuer = Issuer::new(manners.clone(), fastrand::Rng::new());
        issuer.serves(vec![url.clone(), format!("{url}/oauth/token")]);
        if !options.public_keys.iter().all(|pem| issuer.learn_key(pem)) {
            let wanted =
                "a public key must be an RSA, P-256 or Ed25519 key in PEM (BEGIN PUBLIC KEY)";
            return Err(std::io::Error::other(wanted));
        }
        let state = Arc::new(State {
            url,
            issuer: Mutex::new(issuer),
            manners,
            clock: options.clock.unwrap_or_else(system_clock),
            event_delay: options.event_delay,
            faults: Mutex::default(),
            caches: Mutex::default(),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let (of_thread, serving) = (state.clone(), server.clone());
        let receiving = spawn(move || {
            // Ends once the server is unblocked.
            while let Ok(request) = serving.recv() {
                let state = of_thread.clone();
                drop(spawn(move || state.serve(request)));
            }
        })?;
        Ok(Self { address, state, server, receiving: Some(receiving) })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.state.url.clone()
    }

    /// The lifetime of its access tokens.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.state.manners.tokens.lifetime_seconds)
    }

    /// The secret of [`crate::issuer::CLIENT_ID`].
    pub fn client_secret(&self) -> String {
        lock(&self.state.issuer).client_secret().to_owned()
    }

    /// A first refresh token, as after a login.
    pub fn login(&self) -> String {
        self.state.login()
    }

    /// A person types in a device's code and accepts or refuses; false for an unknown code.
    pub fn answer_device(&self, user_code: &str, agreed: bool) -> bool {
        lock(&self.state.issuer).answer_device(user_code, agreed)
    }

    /// Revokes every access token.
    pub fn revoke_access_tokens(&self) {
        lock(&self.state.issuer).revoke_access_tokens();
    }

    /// Ends every login and revokes all its tokens.
    pub fn revoke_logins(&self) {
        lock(&self.state.issuer).revoke_logins();
    }

    /// Answers the next request to the API with `template`.
    pub fn answer_at_provider(&self, template: &Template) {
        self.faults().at_provider(Fault::of(of_api(template)));
    }

    /// Answers the next token request with `template`, before anything is done for it.
    pub fn answer_at_token(&self, template: &Template) {
        let fault = self.state.fault(template);
        self.faults().at_token(fault);
    }

    /// Answers the next request to the API, which asks for `model`, with the refusal of a real API that has this name;
    /// false if none has.
    pub fn refuse(&self, name: &str, model: &str) -> bool {
        self.state.refuse(name, model)
    }

    /// The queued faults.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.state.faults)
    }

    /// The issuer's counts.
    pub fn counts(&self) -> Counts {
        lock(&self.state.issuer).counts
    }

    /// Requests to the provider, and the number of them without a valid token.
    pub fn requests(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (load(&self.state.requests), load(&self.state.refused))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(receiving) = self.receiving.take() {
            let _ = receiving.join();
        }
    }
}

/// The wall clock at the start, advanced by the steady one.
#[expect(clippy::disallowed_methods, reason = "the sandbox lives in real time")]
fn system_clock() -> Clock {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let started = Instant::now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Arc::new(move || millis(wall + started.elapsed()))
}

fn spawn(body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sandbox".into()).stack_size(256 * 1024).spawn(body)
}
