//! Issuer and provider on a port of 127.0.0.1, with `tiny_http`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tiny_http::{Header, Request, Response, Server};

use crate::device_page::{self, Visit};
use crate::faults::{Fault, Faults};
use crate::issuer::{Counts, Issuer, Outcome};
use crate::manners::answer::{Answer, Values, fill, of_api};
use crate::manners::request::TokenRequest;
use crate::manners::{Manners, Template};
use crate::provider::{self, Reply};

/// The largest accepted request body.
const BODY_MAX_BYTES: u64 = 64 * 1024 * 1024;

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
    event_delay: Duration,
    manners: Manners,
    clock: Clock,
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
        let manners = options.manners();
        let state = Arc::new(State {
            url: format!("http://{address}"),
            issuer: Mutex::new(Issuer::new(manners.clone(), fastrand::Rng::new())),
            manners,
            clock: options.clock.unwrap_or_else(system_clock),
            event_delay: options.event_delay,
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
        (self.clock)()
    }

    fn login(&self) -> String {
        lock(&self.issuer).login(self.now_ms())
    }

    /// Makes the next token requests meet the answers under `name` in the manners; returns their number.
    fn queue(&self, name: &str) -> usize {
        let all = self.manners.templates().into_iter();
        let named: Vec<_> = all.filter(|(own, _)| *own == name).collect();
        for (_, template) in &named {
            lock(&self.faults).at_token(self.fault(template));
        }
        named.len()
    }

    /// `template` as a fault.
    fn fault(&self, template: &Template) -> Fault {
        Fault::of(fill(&self.manners, template, &Values::default(), "application/json"))
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
                let params = token_request(&request, &body).params;
                let own = self.url.clone();
                let (status, answer) = lock(&self.issuer).device(&params, &own, self.now_ms());
                send(request, json_answer(status, &answer));
            }
            "/device" => self.device_page(request, &body),
            "/control/faults" => {
                let list = serde_json::from_slice(&body).unwrap_or_default();
                let taken = lock(&self.faults).take_up(&list);
                let status = if taken.is_ok() { 200 } else { 400 };
                send(request, json_answer(status, &json!({"result": format!("{taken:?}")})));
            }
            "/control/login" => {
                send(request, json_answer(200, &json!({ "refresh_token": self.login() })));
            }
            "/control/answer" => {
                let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
                let queued = self.queue(asked["name"].as_str().unwrap_or(""));
                send(request, json_answer(200, &json!({ "queued": queued })));
            }
            "/control/revoke-access-tokens" => {
                lock(&self.issuer).revoke_access_tokens();
                send(request, json_answer(200, &json!({})));
            }
            "/control/revoke-logins" => {
                lock(&self.issuer).revoke_logins();
                send(request, json_answer(200, &json!({})));
            }
            "/control/stats" => {
                let counts = lock(&self.issuer).counts;
                let value = json!({
                    "granted": counts.granted, "refused": counts.refused, "reused": counts.reused,
                    "overlapped": counts.overlapped,
                    "requests": self.requests.load(Ordering::SeqCst),
                    "requests_without_valid_token": self.refused.load(Ordering::SeqCst),
                });
                send(request, json_answer(200, &value));
            }
            _ => self.provider(request, &path, &body),
        }
    }

    fn token(&self, request: Request, body: &[u8]) {
        let fault = lock(&self.faults).next_at_token().unwrap_or_default();
        stall(fault.stall);
        let hidden = fault.status.is_some() || fault.body.is_some();
        if hidden && !fault.after_processing {
            return send(request, fault.instead_of(json_answer(200, &Value::Null)));
        }
        let asked = token_request(&request, body);
        let has_header = |name: &str| field(&request, name).is_some_and(|value| !value.is_empty());
        let outcome = lock(&self.issuer).token(&asked, has_header, self.now_ms());
        let accept = field(&request, "accept").unwrap_or("").to_owned();
        let answer = self.answer(&outcome, &accept);
        send(request, fault.instead_of(answer));
    }

    /// The manners' answer for an outcome.
    fn answer(&self, outcome: &Outcome, accept: &str) -> Answer {
        let answers = &self.manners.answers;
        let none = Values::default();
        let (template, values) = match outcome {
            Outcome::Granted(values) => (&answers.granted, values),
            Outcome::WrongClient => (&answers.wrong_client, &none),
            Outcome::WrongRequest => (&answers.wrong_request, &none),
            Outcome::HeaderMissing => {
                (answers.header_missing.as_ref().unwrap_or(&answers.wrong_request), &none)
            }
            Outcome::Dead => (&answers.dead_refresh_token, &none),
            Outcome::Used => {
                let used = answers.used_refresh_token.as_ref();
                (used.unwrap_or(&answers.dead_refresh_token), &none)
            }
            Outcome::Other((status, body)) => return json_answer(*status, body),
        };
        fill(&self.manners, template, values, accept)
    }

    fn authorize(&self, request: Request) {
        let query = request.url().split_once('?').map_or("", |(_, query)| query);
        let params = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let target = lock(&self.issuer).authorize(&params, &self.url, self.now_ms());
        let answer = |status: u16, headers: Vec<(String, String)>, body: &str| Answer {
            status,
            headers,
            body: body.into(),
        };
        match target {
            Ok(target) => send(request, answer(302, vec![("Location".to_owned(), target)], "")),
            Err(why) => send(request, answer(400, Vec::new(), why)),
        }
    }

    fn device_page(&self, request: Request, body: &[u8]) {
        let query = request.url().split_once('?').map_or("", |(_, query)| query);
        let answer = match device_page::visit(request.method().as_str(), query, body) {
            Visit::Look(code) => device_page::form(&code),
            Visit::Decide(code, agreed) => {
                let is_known = lock(&self.issuer).answer_device(&code, agreed);
                device_page::decided(&code, agreed, is_known)
            }
        };
        send(request, answer);
    }

    fn provider(&self, request: Request, path: &str, body: &[u8]) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = lock(&self.faults).next_at_provider().unwrap_or_default();
        // Before a stall, during which the token may expire.
        let valid = credential(&request)
            .is_some_and(|token| lock(&self.issuer).is_valid(&token, self.now_ms()));
        stall(fault.stall);
        if !valid {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        if fault.status.is_some() {
            return send(request, fault.instead_of(json_answer(200, &json!({}))));
        }
        if !valid && let Some(template) = &self.manners.api.stale_token {
            return send(request, of_api(template));
        }
        let reply = if field(&request, "upgrade").is_some() {
            provider::no_websocket(path)
        } else if valid && self.has_headers(&request) {
            let method = request.method().as_str().to_owned();
            provider::answer(&method, path, body)
        } else {
            provider::unauthorized(path)
        };
        match reply {
            Reply::Json(status, value) => {
                send(request, fault.instead_of(json_answer(status, &value)));
            }
            // A client that leaves ends the stream.
            Reply::Events(events) => drop(self.stream(request, &events, &fault)),
        }
    }

    /// True if the request has the header fields that the API requires.
    fn has_headers(&self, request: &Request) -> bool {
        let mut wanted = self.manners.api.headers.iter();
        wanted.all(|(name, part)| field(request, name).is_some_and(|value| value.contains(part)))
    }

    /// Sends events in our own chunks, because `tiny_http` would hold them back until it has 8 KiB.
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
            stall(self.event_delay);
        }
        write!(out, "0\r\n\r\n")?;
        out.flush()
    }
}

fn json_answer(status: u16, body: &Value) -> Answer {
    let kind = ("Content-Type".to_owned(), "application/json".to_owned());
    Answer { status, headers: vec![kind], body: body.to_string().into() }
}

fn send(request: Request, answer: Answer) {
    let mut response = Response::from_data(answer.body).with_status_code(answer.status);
    for (name, value) in answer.headers {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    // A client that left needs no answer.
    let _ = request.respond(response);
}

fn field<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let is_it = |header: &&Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
    request.headers().iter().find(is_it).map(|header| header.value.as_str())
}

/// The token in a request.
fn credential(request: &Request) -> Option<String> {
    let bearer = field(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| field(request, "x-api-key")).map(str::to_owned)
}

fn token_request(request: &Request, body: &[u8]) -> TokenRequest {
    let value = |name: &str| field(request, name).unwrap_or("");
    TokenRequest::read(value("content-type"), value("authorization"), body)
}
