//! Issuer and provider on a port of 127.0.0.1, with `tiny_http`.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tiny_http::{Header, Request, Response, Server};

use crate::faults::{Fault, Faults};
use crate::issuer::{Counts, Issuer, Rules};
use crate::provider::{self, Reply};

/// The largest request body that is taken.
const BODY_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How a sandbox behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// How long an access token lives.
    pub lifetime: Duration,
    /// Time between the events of a stream.
    pub event_delay: Duration,
    /// Whether refresh tokens can be used once only.
    pub rotates: bool,
    /// How long a used refresh token is still taken.
    pub overlap: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            lifetime: Duration::from_hours(1),
            event_delay: Duration::from_millis(30),
            rotates: true,
            overlap: Duration::ZERO,
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

struct State {
    /// `http://127.0.0.1:PORT`.
    url: String,
    options: Options,
    started: Instant,
    issuer: Mutex<Issuer>,
    faults: Mutex<Faults>,
    requests: AtomicU64,
    refused: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// Starts a sandbox.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let server = Server::http(("127.0.0.1", options.port)).map_err(std::io::Error::other)?;
        let server = Arc::new(server);
        let address = server.server_addr().to_ip().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let rules = Rules {
            lifetime_ms: millis(options.lifetime),
            rotates: options.rotates,
            overlap_ms: millis(options.overlap),
        };
        let state = Arc::new(State {
            url: format!("http://{address}"),
            issuer: Mutex::new(Issuer::new(rules, fastrand::Rng::new())),
            started: now(),
            options,
            faults: Mutex::default(),
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.state.url.clone()
    }

    /// How long its access tokens live.
    pub fn lifetime(&self) -> Duration {
        self.state.options.lifetime
    }

    /// The secret of [`crate::issuer::CLIENT_ID`].
    pub fn client_secret(&self) -> String {
        lock(&self.state.issuer).client_secret().to_owned()
    }

    /// A first refresh token, as a login would give.
    pub fn login(&self) -> String {
        lock(&self.state.issuer).login()
    }

    /// Somebody types in the code of a device and agrees, or refuses; false where it is not known.
    pub fn answer_device(&self, user_code: &str, agreed: bool) -> bool {
        lock(&self.state.issuer).answer_device(user_code, agreed)
    }

    /// Revokes every access token.
    pub fn revoke_access_tokens(&self) {
        lock(&self.state.issuer).revoke_access_tokens();
    }

    /// What is to go wrong.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.state.faults)
    }

    /// What the issuer did.
    pub fn counts(&self) -> Counts {
        lock(&self.state.issuer).counts
    }

    /// Requests to the provider, and how many of them had no valid token.
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

#[expect(clippy::disallowed_methods, reason = "the sandbox lives in real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a stall is what a slow server does")]
fn stall(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sandbox".into()).stack_size(256 * 1024).spawn(body)
}

impl State {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn serve(&self, mut request: Request) {
        let mut body = Vec::new();
        if request.as_reader().take(BODY_MAX_BYTES).read_to_end(&mut body).is_err() {
            return;
        }
        let path = request.url().split('?').next().unwrap_or_default().to_owned();
        match path.as_str() {
            "/oauth/token" => self.token(request, &body),
            "/oauth/authorize" => self.authorize(request),
            "/oauth/device" => {
                let params = params(&request, &body);
                let own = self.url.clone();
                let (status, answer) = lock(&self.issuer).device(&params, &own, self.now_ms());
                send(request, status, &answer.to_string(), &[]);
            }
            "/control/faults" => {
                let list = serde_json::from_slice(&body).unwrap_or_default();
                let taken = lock(&self.faults).take_up(&list);
                let status = if taken.is_ok() { 200 } else { 400 };
                send(request, status, &json!({"result": format!("{taken:?}")}).to_string(), &[]);
            }
            "/control/login" => {
                let token = lock(&self.issuer).login();
                send(request, 200, &json!({ "refresh_token": token }).to_string(), &[]);
            }
            "/control/stats" => {
                let counts = lock(&self.issuer).counts;
                let value = json!({
                    "granted": counts.granted, "refused": counts.refused, "reused": counts.reused,
                    "overlapped": counts.overlapped,
                    "requests": self.requests.load(Ordering::SeqCst),
                    "requests_without_valid_token": self.refused.load(Ordering::SeqCst),
                });
                send(request, 200, &value.to_string(), &[]);
            }
            _ => self.provider(request, &path, &body),
        }
    }

    fn token(&self, request: Request, body: &[u8]) {
        let fault = lock(&self.faults).next_at_token().unwrap_or_default();
        stall(fault.stall);
        let params = params(&request, body);
        let hidden = fault.status.is_some() || fault.body.is_some();
        if hidden && !fault.after_processing {
            let status = fault.status.unwrap_or(200);
            return send(request, status, fault.body.as_deref().unwrap_or(""), &fault.headers);
        }
        let (status, answer) = lock(&self.issuer).token(&params, self.now_ms());
        let status = fault.status.unwrap_or(status);
        let body = fault.body.unwrap_or_else(|| answer.to_string());
        send(request, status, &body, &fault.headers);
    }

    fn authorize(&self, request: Request) {
        let query = request.url().split_once('?').map_or("", |(_, query)| query);
        let params = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let target = lock(&self.issuer).authorize(&params, &self.url, self.now_ms());
        match target {
            Ok(target) => send(request, 302, "", &[("Location".to_owned(), target)]),
            Err(why) => send(request, 400, why, &[]),
        }
    }

    fn provider(&self, request: Request, path: &str, body: &[u8]) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = lock(&self.faults).next_at_provider().unwrap_or_default();
        stall(fault.stall);
        let valid = credential(&request)
            .is_some_and(|token| lock(&self.issuer).is_valid(&token, self.now_ms()));
        if !valid {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(status) = fault.status {
            return send(request, status, fault.body.as_deref().unwrap_or("{}"), &fault.headers);
        }
        let reply = if valid {
            let method = request.method().as_str().to_owned();
            provider::answer(&method, path, body)
        } else {
            provider::unauthorized(path)
        };
        match reply {
            Reply::Json(status, value) => send(request, status, &value.to_string(), &fault.headers),
            // A client that leaves ends the stream.
            Reply::Events(events) => drop(self.stream(request, &events, &fault)),
        }
    }

    /// Events in chunks of our own: `tiny_http` would hold them back until it has 8 KiB.
    fn stream(&self, request: Request, events: &[String], fault: &Fault) -> std::io::Result<()> {
        let mut out = request.into_writer();
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
             transfer-encoding: chunked\r\n\r\n"
        )?;
        for (index, event) in events.iter().enumerate() {
            if fault.stop_after_events == Some(index) {
                return out.flush();
            }
            write!(out, "{:x}\r\n{event}\r\n", event.len())?;
            out.flush()?;
            stall(if index == 0 { fault.stall_in_stream } else { Duration::ZERO });
            stall(self.options.event_delay);
        }
        write!(out, "0\r\n\r\n")?;
        out.flush()
    }
}

fn send(request: Request, status: u16, body: &str, headers: &[(String, String)]) {
    let mut response = Response::from_string(body).with_status_code(status);
    let json = ("Content-Type".to_owned(), "application/json".to_owned());
    for (name, value) in std::iter::once(&json).chain(headers) {
        if let Ok(header) = Header::from_bytes(name.as_bytes(), value.as_bytes()) {
            response.add_header(header);
        }
    }
    // A client that left needs no answer.
    let _ = request.respond(response);
}

fn field<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    let found = request.headers().iter().find(|header| header.field.equiv(name));
    found.map(|header| header.value.as_str())
}

/// The token that a request shows.
fn credential(request: &Request) -> Option<String> {
    let bearer = field(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| field(request, "x-api-key")).map(str::to_owned)
}

/// The parameters of a token request: form or JSON, with the client's Basic credentials mixed in.
fn params(request: &Request, body: &[u8]) -> HashMap<String, String> {
    let mut params: HashMap<String, String> = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => object
            .into_iter()
            .map(|(name, value)| (name, value.as_str().unwrap_or("").to_owned()))
            .collect(),
        _ => form_urlencoded::parse(body).into_owned().collect(),
    };
    let basic = field(request, "authorization").and_then(|value| value.strip_prefix("Basic "));
    let decoded = basic.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    if let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok())
        && let Some((id, secret)) = text.split_once(':')
    {
        params.insert("client_id".into(), id.to_owned());
        params.insert("client_secret".into(), secret.to_owned());
    }
    params
}
